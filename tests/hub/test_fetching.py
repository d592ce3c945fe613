"""Several tasks at once: the first that fails ends them all."""

import threading

import pytest

from llmcli.hub.fetching import free_space, run_all


def test_every_task_is_done_once_by_no_more_threads_than_told():
    done, threads = [], set()

    def task(number):
        threads.add(threading.get_ident())
        done.append(number)

    run_all([lambda number=number: task(number) for number in range(50)], 3, threading.Event())
    assert sorted(done) == list(range(50))
    assert len(threads) <= 3


def test_the_first_error_is_raised_and_the_others_are_told_to_stop():
    stop = threading.Event()

    def fail():
        raise IndexError("mine")

    with pytest.raises(IndexError, match="mine"):
        run_all([fail, lambda: stop.wait(30)], 2, stop)
    assert stop.is_set()


def test_after_an_error_no_further_task_begins():
    begun = []

    def fail():
        raise KeyError("mine")

    with pytest.raises(KeyError):
        run_all([fail, lambda: begun.append(1)], 1, threading.Event())
    assert begun == []


def test_no_tasks_are_done_at_once():
    run_all([], 8, threading.Event())


def test_the_space_is_that_of_the_disk_where_the_folder_will_be(tmp_path):
    assert free_space(tmp_path / "not" / "yet") == pytest.approx(free_space(tmp_path), rel=0.05)
