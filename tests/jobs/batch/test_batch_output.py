"""Where a batch writes: refused before any work is done, and always ending at a whole record."""

import io
import os
import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from llmcli.errors import OutputError, UsageError
from llmcli.jobs.batch.input import file_status
from llmcli.jobs.batch.output import Mode, RecordWriter, check_output, open_locked
from tests.jobs.faulty_disk import MortalDisk


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n')
    return path


def check(output: Path, source: Path, *, mode: Mode = "overwrite") -> None:
    check_output(str(output), os.stat(source), mode=mode)


def create(output: Path) -> RecordWriter:
    stream = open_locked(str(output), create=True)
    assert stream is not None
    return RecordWriter(stream, output.name, owned=True)


def test_the_input_is_refused_as_output_through_any_link(source: Path, tmp_path: Path) -> None:
    soft, hard = tmp_path / "soft", tmp_path / "hard"
    soft.symlink_to(source)
    hard.hardlink_to(source)
    for output in (source, soft, hard, tmp_path / "." / "in.jsonl"):
        with pytest.raises(UsageError, match="is the input file: it would be overwritten"):
            check(output, source)


def test_standard_output_that_leads_into_the_input_is_refused(source: Path) -> None:
    with open(source, "ab") as stdout, pytest.raises(UsageError, match="standard output is the input"):
        check_output("-", os.stat(source), mode="new", stdout=file_status(stdout))


def test_an_existing_file_is_refused_without_overwrite(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("precious")
    with pytest.raises(UsageError, match="exists"):
        check(output, source, mode="new")
    check(output, source, mode="overwrite")
    check(output, source, mode="resume")
    assert output.read_text() == "precious"


def test_a_folder_that_is_missing_or_a_folder_as_output_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        check(tmp_path / "none" / "out.jsonl", source)
    with pytest.raises(UsageError, match="is a folder"):
        check(tmp_path, source)
    with pytest.raises(UsageError, match="can not write"):
        check(source / "out.jsonl", source)
    with pytest.raises(UsageError, match="can not write"):
        check(tmp_path / ("x" * 300), source)
    with pytest.raises(UsageError, match="can not write"):
        check_output("a\0b", None, mode="new")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_what_is_not_writable_is_refused(source: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(UsageError, match="not writable"):
        check(locked / "out.jsonl", source)
    output = tmp_path / "out.jsonl"
    output.touch(mode=0o400)
    with pytest.raises(UsageError, match="not writable"):
        check(output, source)


def test_records_are_in_the_file_as_soon_as_they_are_written(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with closing(create(output)) as writer:
        writer.write(b"one\n")
        assert output.read_bytes() == b"one\n"


def test_a_file_that_appeared_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("precious")
    with pytest.raises(FileExistsError):
        open_locked(str(output), create=True)
    assert output.read_text() == "precious"


def test_a_device_needs_no_overwrite() -> None:
    check_output("/dev/null", None, mode="new")
    with closing(RecordWriter.to_stream("/dev/null", io.BytesIO())) as writer:
        writer.write(b"one\n")


def test_a_full_disk_is_told_with_the_path() -> None:
    said = pytest.raises(OutputError, match="can not write to /dev/full: No space left on device")
    with closing(RecordWriter.to_stream("/dev/full", io.BytesIO())) as writer, said:
        writer.write(b"one\n")


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", range(8, 17))
def test_a_file_that_can_not_grow_ends_at_a_whole_record(tmp_path: Path, limit: int) -> None:
    output = tmp_path / "out.jsonl"
    with closing(create(output)) as writer:
        with file_size_limit(limit):
            for _ in range(limit // 7):
                writer.write(b"record\n")
            with pytest.raises(OutputError, match=r"out\.jsonl: File too large"):
                writer.write(b"record\n")
        assert output.read_bytes() == b"record\n" * (limit // 7)
        writer.write(b"more\n")
    assert output.read_bytes() == b"record\n" * (limit // 7) + b"more\n"


def test_an_interrupted_write_leaves_nothing_of_its_record(tmp_path: Path) -> None:
    class Interrupted(io.FileIO):
        pressed = False

        def flush(self) -> None:
            if self.pressed:
                self.pressed = False
                raise KeyboardInterrupt

    output = tmp_path / "out.jsonl"
    stream = Interrupted(output, "wb")
    with closing(RecordWriter(stream, "out.jsonl", owned=True)) as writer:  # type: ignore[arg-type]
        writer.write(b"record\n")
        stream.pressed = True
        with pytest.raises(KeyboardInterrupt):
            writer.write(b"record\n")
    assert output.read_bytes() == b"record\n"


def test_short_writes_are_carried_on(tmp_path: Path) -> None:
    class Slow(io.FileIO):
        def write(self, data: memoryview) -> int:  # type: ignore[override]
            return super().write(data[:2]) or 0

    output = tmp_path / "out.jsonl"
    with closing(RecordWriter(Slow(output, "wb"), "out.jsonl", owned=True)) as writer:  # type: ignore[arg-type]
        writer.write(b"one\ntwo\n")
    assert output.read_bytes() == b"one\ntwo\n"


def test_a_gone_reader_is_no_output_error() -> None:
    reader, end = os.pipe()
    os.close(reader)
    with os.fdopen(end, "wb", buffering=0) as stream, pytest.raises(BrokenPipeError):
        RecordWriter(stream, "standard output").write(b"one\n")  # type: ignore[arg-type]


def test_resuming_needs_a_file(source: Path, tmp_path: Path) -> None:
    check(tmp_path / "new.jsonl", source, mode="resume")
    with pytest.raises(UsageError, match="--resume needs a file"):
        check(Path("/dev/null"), source, mode="resume")
    with pytest.raises(UsageError, match="--resume needs a file"):
        check_output("-", None, mode="resume")


def test_what_follows_the_whole_records_is_cut_off(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_bytes(b"one\ntwo\nthr")
    stream = open_locked(str(output), create=False)
    assert stream is not None
    with closing(RecordWriter(stream, "out.jsonl", owned=True, num_bytes=8)) as writer:
        writer.write(b"three\n")
    assert output.read_bytes() == b"one\ntwo\nthree\n"


class CountingDisk(MortalDisk):
    """Counts how often it was synced."""

    num_syncs = 0

    def sync(self, stream: BinaryIO) -> None:
        self.num_syncs += 1


def test_records_are_synced_every_32_or_200_ms(tmp_path: Path) -> None:
    now, disk = [0.0], CountingDisk()
    stream = open_locked(str(tmp_path / "out.jsonl"), create=True)
    assert stream is not None
    with closing(RecordWriter(stream, "out", owned=True, disk=disk, clock=lambda: now[0])) as writer:
        for _ in range(31):
            writer.write(b"record\n")
        assert disk.num_syncs == 0
        writer.write(b"record\n")
        assert disk.num_syncs == 1
        now[0] = 1.0
        writer.sync_if_due()
        assert disk.num_syncs == 1
        writer.write(b"record\n")
        assert disk.num_syncs == 2
        writer.write(b"record\n")
        now[0] = 1.25
        writer.sync_if_due()
        assert disk.num_syncs == 3
    assert disk.num_syncs == 3
