"""What Ctrl-C does while something can be stopped."""

import signal
import threading

import pytest

from llmcli.ui.interrupt import DoublePress, StopRequest


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_first_ctrl_c_calls_the_action_and_raises_nothing() -> None:
    called = threading.Event()
    with StopRequest() as stop:
        stop.call(called.set)
        signal.raise_signal(signal.SIGINT)
        assert called.wait(5)
        assert stop.requested


def test_a_ctrl_c_before_there_is_an_action_is_not_lost() -> None:
    calls: list[str] = []
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        stop.call(lambda: calls.append("stop"))
    assert calls == ["stop"]


def test_a_second_ctrl_c_raises_only_after_a_second() -> None:
    clock = Clock()
    with StopRequest(clock):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        clock.now += 1.5
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_afterwards_ctrl_c_is_what_it_was_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopRequest():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_two_presses_count_only_within_a_second() -> None:
    clock = Clock()
    presses = DoublePress(clock)
    assert not presses.press()
    assert presses.armed
    clock.now += 2
    assert not presses.armed
    assert not presses.press()
    clock.now += 0.5
    assert presses.press()
