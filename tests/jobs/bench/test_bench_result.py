"""Result files: what is in them, that they outlive a kill at any point, and what is refused."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from llmcli.errors import OutputError, UsageError
from llmcli.jobs.bench import result as bench_result
from llmcli.jobs.bench.result import FORMAT, Header, ResultFile, Row, document, line, read_result, read_rows

HEADER = Header(kind="quick", plan={"repeats": 3}, environment={"model": "m", "cpu": "c"})
PP = Row(test="pp512", batch=1, unit="tok/s", samples=(10.0, 14.0, 12.0), details={"ttft_s": 0.1})
TG = Row(test="tg128", batch=8, unit="tok/s", samples=(3.0,))
ROWS = [PP, TG]


def test_a_row_tells_its_samples_and_what_follows_from_them() -> None:
    assert PP.as_json() == {
        "test": "pp512",
        "batch": 1,
        "unit": "tok/s",
        "mean": 12.0,
        "stdev": 2.0,
        "median": 12.0,
        "min": 10.0,
        "max": 14.0,
        "samples": [10.0, 14.0, 12.0],
        "ttft_s": 0.1,
    }
    assert (PP.is_rate, Row(test="x", unit="s", samples=()).is_rate) == (True, False)


def test_a_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    ResultFile(path).replace(document(HEADER, ROWS, finished=True, summary={"extra": 1}))
    found = read_result(path)
    assert (found["kind"], found["finished"], found["extra"]) == ("quick", True, 1)
    assert found["environment"] == HEADER.environment
    assert [(row.key, row.samples) for row in read_rows(found)] == [(row.key, row.samples) for row in ROWS]
    assert os.listdir(tmp_path) == ["result.json"]


def write_lines(path: Path) -> bytes:
    file = ResultFile(path)
    for row in ROWS:
        file.append(HEADER, row)
    return path.read_bytes()


def test_lines_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_lines(tmp_path / "result.jsonl")
    found = read_result(tmp_path / "result.jsonl")
    assert found["plan"] == HEADER.plan
    assert [row.key for row in read_rows(found)] == [("pp512", 1), ("tg128", 8)]


def test_lines_cut_at_any_byte_give_the_rows_before_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "result.jsonl"
    data = write_lines(path)
    ends = [len(line(HEADER, PP)), len(data) - 1]
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        whole = sum(cut >= end for end in ends)
        if whole == 0:
            with pytest.raises(UsageError, match="no whole line"):
                read_result(path)
        else:
            assert len(read_result(path)["tests"]) == whole


def test_a_line_after_a_torn_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "result.jsonl"
    data = write_lines(path)
    path.write_bytes(data[:-20])
    ResultFile(path).append(HEADER, TG)
    assert [row.key for row in read_rows(read_result(path))] == [("pp512", 1), ("tg128", 8)]


def test_of_several_runs_in_a_file_of_lines_the_last_is_read(tmp_path: Path) -> None:
    path = tmp_path / "result.jsonl"
    write_lines(path)
    later = Header(kind="quick", plan={"repeats": 3}, environment={"model": "m", "cpu": "another"})
    ResultFile(path).append(later, TG)
    found = read_result(path)
    assert (found["environment"]["cpu"], len(found["tests"])) == ("another", 1)


class Killed(BaseException):
    """A kill in the middle of a write, as the file system sees it."""


@pytest.mark.parametrize("num_bytes", [0, 1, 50, 10_000])
def test_a_document_killed_while_it_is_replaced_is_the_one_before(
    num_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    file = ResultFile(path)
    file.replace(document(HEADER, [PP], finished=False))
    before = path.read_bytes()

    def write_and_die(descriptor: int, data: memoryview) -> None:
        os.write(descriptor, data[:num_bytes])
        raise Killed

    monkeypatch.setattr(bench_result, "_write_all", write_and_die)
    with pytest.raises(Killed):
        file.replace(document(HEADER, ROWS, finished=True))
    assert path.read_bytes() == before
    assert len(read_result(path)["tests"]) == 1


@pytest.mark.parametrize("name", ["result.json", "result.jsonl"])
def test_a_full_disk_is_told_and_leaves_what_was_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    file = ResultFile(path)
    file.append(HEADER, PP) if file.in_lines else file.replace(document(HEADER, [PP], finished=False))
    before = path.read_bytes()

    def half_then_full(descriptor: int, data: memoryview) -> None:
        os.write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(bench_result, "_write_all", half_then_full)
    with pytest.raises(OutputError, match=f"--save .*{name} can not be written: No space left on device"):
        file.append(HEADER, TG) if file.in_lines else file.replace(document(HEADER, ROWS, finished=True))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [name]


def test_a_link_stays_a_link_to_the_file_that_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    ResultFile(tmp_path / "link.json", overwrite=True).replace(document(HEADER, ROWS, finished=True))
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text())["format"] == FORMAT


def test_a_file_that_is_there_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("precious")
    with pytest.raises(UsageError, match="exists") as caught:
        ResultFile(path)
    assert "--overwrite" in caught.value.fix
    assert path.read_text() == "precious"
    ResultFile(path, overwrite=True)


def test_a_folder_and_a_place_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        ResultFile(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        ResultFile(tmp_path / "none" / "result.json")


def test_a_number_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    row = Row(test="x", unit="s", samples=(float("inf"),))
    with pytest.raises(ValueError, match="JSON"):
        ResultFile(tmp_path / "result.json").replace(document(HEADER, [row], finished=True))
    assert os.listdir(tmp_path) == []


GOOD: dict[str, Any] = document(HEADER, ROWS, finished=True)
NO_RESULTS: list[tuple[str, object]] = [
    ("not JSON", "{"),
    ("another document", {"tests": []}),
    ("another format", GOOD | {"format": "llmcli bench 99"}),
    ("a list", [1, 2]),
    ("no environment", {**GOOD, "environment": None}),
    ("no tests", {**GOOD, "tests": "none"}),
    ("a test without a name", {**GOOD, "tests": [{"unit": "s", "samples": []}]}),
    ("a test without samples", {**GOOD, "tests": [{"test": "x", "unit": "s"}]}),
    ("samples that are no numbers", {**GOOD, "tests": [{"test": "x", "unit": "s", "samples": ["1"]}]}),
]


@pytest.mark.parametrize(
    "content", [content for _, content in NO_RESULTS], ids=[name for name, _ in NO_RESULTS]
)
def test_what_is_no_result_is_a_usage_error(content: object, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UsageError, match="is no result of llmcli bench"):
        read_result(path)


def test_a_result_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"can not read .*none\.json: No such file"):
        read_result(tmp_path / "none.json")
