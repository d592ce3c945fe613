"""Hashes of cached files, and the memory of those that were right."""

import hashlib
import subprocess

import pytest

from llmcli.errors import CheckpointError
from llmcli.hub import verify
from llmcli.hub.verify import git_id_of, read_marks, remember, sha256_of, verify_files

CONTENT = b"weights" * 1000


@pytest.fixture
def blob(tmp_path):
    """A blob in a cache, called by its sha256."""
    path = tmp_path / "cache" / hashlib.sha256(CONTENT).hexdigest()
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


def test_the_hashes_are_those_of_other_tools(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    assert sha256_of(file) == subprocess.check_output(["sha256sum", file], text=True).split()[0]
    assert git_id_of(file) == subprocess.check_output(["git", "hash-object", file], text=True).strip()


def test_a_good_file_is_hashed_once(blob, tmp_path, monkeypatch):
    marks = tmp_path / "marks.json"
    verify_files([blob], blob.parent, marks)
    monkeypatch.delattr(verify, "sha256_of")
    verify_files([blob], blob.parent, marks)


def test_a_changed_file_is_hashed_again_and_removed(blob, tmp_path):
    marks = tmp_path / "marks.json"
    verify_files([blob], blob.parent, marks)
    blob.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(CheckpointError, match="is damaged"):
        verify_files([blob], blob.parent, marks)
    assert not blob.exists()


def test_a_file_swapped_for_another_of_the_same_size_is_found(blob, tmp_path):
    blob.write_bytes(b"\0" * len(CONTENT))
    with pytest.raises(CheckpointError, match=f"the hub's is {blob.name}"):
        verify_files([blob], blob.parent, tmp_path / "marks.json")


def test_marks_of_files_that_are_gone_are_dropped(blob, tmp_path):
    marks, other = tmp_path / "marks.json", tmp_path / "other"
    other.touch()
    remember([other], marks)
    other.unlink()
    remember([blob], marks)
    assert list(read_marks(marks)) == [str(blob)]


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_damaged_marks_count_as_none(blob, tmp_path, damage):
    marks = tmp_path / "marks.json"
    marks.write_bytes(damage)
    verify_files([blob], blob.parent, marks)
    assert list(read_marks(marks)) == [str(blob)]


def test_marks_that_can_not_be_written_do_no_harm(blob, tmp_path):
    (tmp_path / "file").touch()
    verify_files([blob], blob.parent, tmp_path / "file" / "marks.json")


def test_marks_are_private(blob, tmp_path):
    marks = tmp_path / "marks.json"
    remember([blob], marks)
    assert marks.stat().st_mode & 0o777 == 0o600
