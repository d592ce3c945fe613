"""Exactly once: a run that is killed anywhere and resumed gives each line one result, and touches no finished one."""

import contextlib
import errno
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llmcli.errors import ItemsFailedError, OutputError, UsageError
from llmcli.jobs.batch.output import open_locked
from llmcli.jobs.batch.resume import ResultFile, read_record
from tests.jobs.fake_engine import FakeEngine
from tests.jobs.faulty_disk import FailingDisk, Killed, MortalDisk
from tests.jobs.killed_run import SETTINGS, attempt
from tests.meta.source_tree import ROOT

NUM_KILL_POINTS = 240


def write_lines(path: Path, rng: random.Random, count: int = 14) -> None:
    """Lines of every form, some of them equal, some with an id, some too long for the model."""
    lines: list[Any] = []
    for number in range(count):
        text = rng.choice(["same", "same", f"line {number}", "é" * rng.randint(1, 9), "x" * 1200])
        lines.append(
            rng.choice([text, {"prompt": text}, {"prompt": text, "id": number}, _openai(number, text)])
        )
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _openai(number: int, text: str) -> dict[str, Any]:
    body = {"prompt": text}
    return {"custom_id": f"c-{number}", "method": "POST", "url": "/v1/completions", "body": body}


def whole(data: bytes) -> bytes:
    """The whole records of a file that may end in a torn one."""
    return data[: data.rfind(b"\n") + 1]


def comparable(data: bytes) -> Counter[str]:
    """Records as a multiset, without the second in which an OpenAI answer was made."""
    records = [json.loads(line) for line in data.split(b"\n")[:-1]]
    for record in records:
        with contextlib.suppress(KeyError, TypeError):
            record["response"]["body"].pop("created", None)
    return Counter(json.dumps(record) for record in records)


def run_to_the_end(source: Path, output: Path, **more: Any) -> None:
    with contextlib.suppress(ItemsFailedError):  # of the prompts that are too long
        attempt(source, output, **more)


@pytest.mark.parametrize("seed", range(NUM_KILL_POINTS))
def test_a_run_that_is_killed_anywhere_is_completed_by_resuming(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    source, output, truth = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "truth.jsonl"
    ordered = seed % 2 == 1
    write_lines(source, rng)
    disk = MortalDisk()
    run_to_the_end(source, truth, disk=disk, ordered=ordered)
    before = b""
    for _ in range(rng.randint(1, 4)):
        with contextlib.suppress(Killed):
            run_to_the_end(source, output, disk=MortalDisk(rng.randrange(disk.ticks)), ordered=ordered)
        after = output.read_bytes() if output.exists() else b""
        assert after.startswith(before)
        before = whole(after)
    run_to_the_end(source, output, ordered=ordered)
    assert output.read_bytes().startswith(before)
    assert comparable(output.read_bytes()) == comparable(truth.read_bytes())
    if ordered:
        indexes = [read_index(line) for line in output.read_bytes().splitlines()]
        assert indexes == [read_index(line) for line in truth.read_bytes().splitlines()]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("out")) == [
        "out.jsonl",
        "out.jsonl.meta.json",
    ]


def read_index(line: bytes) -> str:
    record = json.loads(line)
    return str(record.get("custom_id", record.get("index")))


def test_an_ordered_run_that_was_killed_ends_with_the_same_bytes(tmp_path: Path) -> None:
    source, truth = tmp_path / "in.jsonl", tmp_path / "truth.jsonl"
    source.write_text("".join(json.dumps({"prompt": "ab" * (i * 7 % 5 + 1)}) + "\n" for i in range(12)))
    attempt(source, truth, ordered=True)
    for ticks in range(0, 3000, 101):
        output = tmp_path / f"out{ticks}.jsonl"
        with contextlib.suppress(Killed):
            attempt(source, output, disk=MortalDisk(ticks), ordered=True)
        attempt(source, output, ordered=True)
        assert output.read_bytes() == truth.read_bytes()


@pytest.mark.parametrize("seed", range(6))
def test_a_process_that_is_killed_for_good_is_completed_by_resuming(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    source, output, truth = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "truth.jsonl"
    write_lines(source, rng)
    disk = MortalDisk()
    run_to_the_end(source, truth, disk=disk)
    command = [sys.executable, "-m", "tests.jobs.killed_run", str(source), str(output)]
    ticks = rng.randrange(disk.ticks)
    done = subprocess.run([*command, str(ticks), "any"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    before = whole(output.read_bytes()) if output.exists() else b""
    run_to_the_end(source, output)
    assert output.read_bytes().startswith(before)
    assert comparable(output.read_bytes()) == comparable(truth.read_bytes())


@pytest.mark.parametrize("seed", range(40))
def test_retried_errors_survive_a_kill_anywhere(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"prompt": "same", "label": i % 3}) + "\n" for i in range(9)))
    with pytest.raises(ItemsFailedError):
        attempt(source, output, engine=FakeEngine(failing={"2": "not finite", "5": "not finite"}))
    good = {line for line in output.read_bytes().splitlines() if b'"error": null' in line}
    with contextlib.suppress(Killed):
        attempt(source, output, retry_errors=True, disk=MortalDisk(rng.randrange(4500)))
    assert good <= set(output.read_bytes().splitlines())
    attempt(source, output, retry_errors=True)
    records = [json.loads(line) for line in output.read_bytes().splitlines()]
    assert sorted(record["index"] for record in records) == list(range(9))
    assert all(record["error"] is None for record in records)
    assert good <= set(output.read_bytes().splitlines())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("short", [False, True])
def test_every_call_of_the_disk_may_fail_once(code: int, short: bool, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"line {i}"}) + "\n" for i in range(5)))
    for calls in range(100):
        output = tmp_path / f"out{calls}.jsonl"
        disk = FailingDisk(calls, code, short)
        if not disk_fails(source, output, disk):
            break
        data = output.read_bytes() if output.exists() else b""
        assert data == whole(data)
        attempt(source, output)
        assert sorted(read_index(line) for line in output.read_bytes().splitlines()) == list("01234")
    assert calls > 8


def disk_fails(source: Path, output: Path, disk: FailingDisk) -> bool:
    """Whether the run was stopped by the disk, and said so."""
    try:
        attempt(source, output, disk=disk)
    except OutputError as error:
        return str(output) in error.what
    return False


def test_a_full_disk_stops_the_run_and_more_room_completes_it(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"line {i}"}) + "\n" for i in range(40)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    engine = FakeEngine(max_num_seqs=3)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(OutputError, match=r"can not write to .*out\.jsonl: File too large"):
            attempt(source, output, engine=engine)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    data = output.read_bytes()
    assert 0 < len(data) <= 3000
    assert data == whole(data)
    assert len(engine.added) < 40
    attempt(source, output)
    assert sorted(int(read_index(line)) for line in output.read_bytes().splitlines()) == list(range(40))


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"line {i}", "id": f"n{i}"}) + "\n" for i in range(9)))
    with contextlib.suppress(Killed):
        attempt(source, output, disk=MortalDisk(2500))
    done = {read_index(line) for line in whole(output.read_bytes()).splitlines()}
    assert 0 < len(done) < 9
    assert set(attempt(source, output)) == {str(i) for i in range(9)} - done


def test_lines_may_be_added_anywhere(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('"a"\n"b"\n"a"\n')
    attempt(source, output)
    source.write_text('"new"\n"a"\n"b"\n"a"\n"a"\n')
    assert sorted(attempt(source, output)) == ["0", "4"]
    assert Counter(json.loads(line)["text"] for line in output.read_bytes().splitlines()) == {
        "A": 3,
        "B": 1,
        "NEW": 1,
    }


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('{"prompt": "a", "id": 1}\n{"prompt": "c", "id": 2}\n"x"\n', "line 2 has another content .* id 2"),
        (
            '{"prompt": "b", "id": 2}\n"x"\n',
            "1 lines that are answered there are not in the input, first id 1",
        ),
        ('{"prompt": "a", "id": 1}\n{"prompt": "b", "id": 2}\n"y"\n', "not in the input, first number 3"),
    ],
)
def test_finished_lines_that_changed_are_refused(lines: str, said: str, tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "a", "id": 1}\n{"prompt": "b", "id": 2}\n"x"\n')
    attempt(source, output)
    before = output.read_bytes()
    source.write_text(lines)
    with pytest.raises(UsageError, match="has results of other lines") as raised:
        attempt(source, output)
    assert re.search(said, raised.value.why)
    assert output.read_bytes() == before


def test_a_file_that_is_no_results_file_is_left_alone(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "notes.txt"
    source.write_text('"a"\n')
    output.write_text("my precious\nnotes\n")
    with pytest.raises(UsageError, match=r"notes\.txt\.meta\.json is missing"):
        attempt(source, output)
    (tmp_path / "notes.txt.meta.json").write_text(json.dumps(SETTINGS))
    with pytest.raises(UsageError, match="line 1 is not a record"):
        attempt(source, output)
    assert output.read_text() == "my precious\nnotes\n"


def test_a_second_run_on_one_output_is_refused_with_the_number_of_the_first(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('"a"\n')
    attempt(source, output)
    for other in (output, tmp_path / "link", tmp_path / "hard"):
        if other.name == "link":
            other.symlink_to(output)
        elif other.name == "hard":
            other.hardlink_to(output)
        with (
            ResultFile(str(output), "resume"),
            pytest.raises(OutputError, match="is being written") as raised,
        ):
            ResultFile(str(other), "overwrite")
        assert raised.value.exit_code == 1
    assert f"by process {os.getpid()}" in pid_told(output)
    attempt(source, output)


def pid_told(output: Path) -> str:
    with ResultFile(str(output), "resume"), pytest.raises(OutputError) as raised:
        ResultFile(str(output), "resume")
    return raised.value.what


def test_a_lock_does_not_outlive_a_file_that_was_replaced(tmp_path: Path) -> None:
    path, new = tmp_path / "out", tmp_path / "new"
    path.write_text("old")
    first = open_locked(str(path), create=False)
    second = open_locked(str(new), create=True)
    assert first is not None
    assert second is not None
    os.replace(new, path)
    first.close()
    assert open_locked(str(path), create=False) is None
    second.close()


def test_overwriting_keeps_the_old_results_until_there_are_new_ones(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('"a"\n')
    attempt(source, output)
    old = output.read_bytes()
    with ResultFile(str(output), "overwrite"):
        assert output.read_bytes() == old
    source.write_text('"b"\n')
    attempt(source, output, resume=False, overwrite=True)
    assert [json.loads(line)["text"] for line in output.read_bytes().splitlines()] == ["B"]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'"text"',
        b"\0\0",
        b'{"id": 1}',
        b'{"id": 1, "key": 5, "error": null}',
        b"\xff",
    ],
)
def test_what_is_no_record_is_seen(line: bytes) -> None:
    assert read_record(line) is None
