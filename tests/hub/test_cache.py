"""What the cache is said to hold, against the hub client's own scan of it."""

import os
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir

from llmcli.errors import LLMCliError
from llmcli.hub.cache import CachedModel, cached_models
from llmcli.hub.settings import HubSettings

OLD, NEW = "a" * 40, "b" * 40


def settings(cache: Path) -> HubSettings:
    return HubSettings(cache_dir=cache, endpoint="http://127.0.0.1:9", marks_file=cache / "marks.json")


def add(folder: Path, commit: str, files: dict[str, str]) -> None:
    """Put a snapshot into a repository's folder: links to blobs that are named by what is in them."""
    for name, content in files.items():
        blob, link = folder / "blobs" / content, folder / "snapshots" / commit / name
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        if not blob.exists():
            blob.write_text(content * 1000)
            os.utime(blob, (len(content) * 1000, len(content) * 2000))
        link.symlink_to(os.path.relpath(blob, link.parent))


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A model with two revisions that share a blob, of which main is the older one; and a data set."""
    folder = tmp_path / "models--ada--model"
    add(folder, OLD, {"config.json": "one", "model.safetensors": "weights", "deep/er.txt": "text"})
    add(folder, NEW, {"config.json": "other words", "model.safetensors": "weights"})
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(OLD)
    add(tmp_path / "datasets--ada--data", OLD, {"a.csv": "1"})
    return folder


def only(cache: Path) -> CachedModel:
    [model] = cached_models(settings(cache))
    return model


@pytest.mark.parametrize("main", [OLD, NEW, None])
def test_a_model_is_described_as_the_hubs_client_does(repo: Path, main: str | None) -> None:
    (repo / "refs" / "main").unlink()
    if main is not None:
        (repo / "refs" / "main").write_text(main)
    [known] = (found for found in scan_cache_dir(repo.parent).repos if found.repo_type == "model")
    shown = known.refs.get("main") or max(known.revisions, key=lambda revision: revision.last_modified)
    assert only(repo.parent) == CachedModel(
        name=known.repo_id,
        path=shown.snapshot_path,
        revision=shown.commit_hash,
        num_revisions=2,
        size=known.size_on_disk,
        modified=shown.last_modified,
        accessed=known.last_accessed,
        runnable=True,
    )


def test_an_unfinished_download_beside_them_counts(repo: Path) -> None:
    before = only(repo.parent).size
    (repo / "blobs" / "more.incomplete").write_bytes(b"x" * 10)
    assert only(repo.parent).size == before + 10


@pytest.mark.parametrize("fault", ["a link to nothing", "a circle of links", "a branch that is not here"])
def test_a_broken_copy_has_no_revision(repo: Path, fault: str) -> None:
    if fault == "a link to nothing":
        (repo / "blobs" / "weights").unlink()
    elif fault == "a circle of links":
        link = repo / "snapshots" / NEW / "circle"
        link.symlink_to(link)
    else:
        (repo / "refs" / "main").write_text("c" * 40)
    model = only(repo.parent)
    assert (model.name, model.revision, model.num_revisions, model.runnable) == ("ada/model", "", 2, False)
    assert not [found for found in scan_cache_dir(repo.parent).repos if found.repo_type == "model"]


@pytest.mark.parametrize("name", ["models--ada", "models--ada--..", "models--ada--x--y", "other"])
def test_what_is_no_model_of_the_hub_is_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "blobs").mkdir(parents=True)
    assert cached_models(settings(tmp_path)) == []


def test_no_cache_holds_nothing_and_a_file_in_its_place_is_told(tmp_path: Path) -> None:
    assert cached_models(settings(tmp_path / "missing")) == []
    (tmp_path / "file").touch()
    with pytest.raises(LLMCliError, match="can not read the model cache"):
        cached_models(settings(tmp_path / "file"))
