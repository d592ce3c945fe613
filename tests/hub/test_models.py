"""`resolve_model`: bundled, local and hub models."""

from dataclasses import replace

import pytest

from llmcli.errors import CheckpointError, OfflineError, UsageError
from llmcli.hub import models
from llmcli.hub.models import find_local, resolve_model


@pytest.fixture
def folder(tmp_path):
    """A folder with the names of a model's files."""
    place = tmp_path / "my-model"
    place.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (place / name).write_bytes(b"{}")
    return place


def test_a_folder_is_used_in_place_under_the_name_typed(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    model = resolve_model("./my-model")
    assert (model.name, model.source, model.revision) == ("./my-model", "folder", None)
    assert model.path.samefile(folder)


def test_a_folder_that_looks_like_an_id_wins_over_the_hub(folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    assert resolve_model(f"{folder.parent.name}/my-model").source == "folder"


def test_a_folder_without_config_lists_what_it_has(folder):
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config.json") as caught:
        resolve_model(str(folder))
    assert "model.safetensors, tokenizer.json" in str(caught.value)


def test_an_empty_folder_is_told_as_such(tmp_path):
    with pytest.raises(CheckpointError, match="files found: none"):
        resolve_model(str(tmp_path))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("pytorch_model.bin", "pickled weights only"),
        ("model.pt", "pickled weights only"),
        ("model.gguf", "is not supported"),
    ],
)
def test_a_folder_without_safetensors_is_refused_by_what_it_has(folder, weights, message):
    (folder / "model.safetensors").rename(folder / weights)
    with pytest.raises(CheckpointError, match=message):
        resolve_model(str(folder))


def test_file_names_in_a_message_are_escaped(tmp_path):
    (tmp_path / "\x1b[2Jx.bin").touch()
    with pytest.raises(CheckpointError) as caught:
        resolve_model(str(tmp_path))
    assert "\x1b" not in str(caught.value)


def test_python_files_of_a_folder_are_left_alone_with_a_note(folder, notices):
    canary = folder / "canary"
    (folder / "modeling_evil.py").write_text(f"open({str(canary)!r}, 'w')")
    resolve_model(str(folder), on_notice=notices)
    assert "1 Python files are ignored" in notices.text
    assert not canary.exists()


def test_a_single_file_is_not_a_model(folder):
    with pytest.raises(UsageError, match="is a file"):
        resolve_model(str(folder / "model.safetensors"))


def test_a_revision_belongs_to_a_hub_id_only(folder):
    with pytest.raises(UsageError, match="does not apply"):
        resolve_model(str(folder), revision="main")
    with pytest.raises(UsageError, match="does not apply"):
        resolve_model(None, revision="main")


def test_no_name_and_tiny_chat_are_the_bundled_model(folder, monkeypatch):
    monkeypatch.setattr(models, "__file__", str(folder.parent / "hub" / "models.py"))
    (folder.parent / "assets").mkdir()
    folder.rename(folder.parent / "assets" / "tiny_chat")
    model = resolve_model(None)
    assert (model.name, model.source) == ("tiny-chat", "bundled")
    assert resolve_model("tiny-chat") == model


def test_an_installation_without_the_bundled_model_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(models, "__file__", str(tmp_path / "hub" / "models.py"))
    with pytest.raises(CheckpointError, match="bundled model is not in this installation"):
        resolve_model(None)


def test_a_hub_model_is_named_by_its_repository_and_carries_its_commit(hub, settings, files):
    commit = hub.add("ada/model", files)
    model = resolve_model("ada/model@main", settings=settings)
    assert (model.name, model.revision, model.source) == ("ada/model", commit, "hub")
    assert model.path.is_relative_to(settings.cache_dir)


def test_offline_is_kept_to(hub, settings, files):
    hub.add("ada/model", files)
    with pytest.raises(OfflineError):
        resolve_model("ada/model", settings=replace(settings, offline=True))
    assert not hub.requests


def test_find_local_never_asks_the_hub(hub, settings, files):
    hub.add("ada/model", files)
    assert find_local("ada/model", settings=settings) is None
    model = resolve_model("ada/model", settings=settings)
    hub.requests.clear()
    assert find_local("ada/model", settings=settings) == model
    assert not hub.requests


@pytest.mark.parametrize(
    ("typed", "told"),
    [("tiny-caht", "did you mean tiny-chat?"), ("modle", "did you mean ada/model (in the cache)?")],
)
def test_a_name_without_an_owner_brings_the_nearest_of_what_is_here(hub, settings, files, typed, told):
    hub.add("ada/model", files)
    resolve_model("ada/model", settings=settings)
    with pytest.raises(UsageError, match="not owner/name") as caught:
        find_local(typed, settings=settings)
    assert caught.value.fix == told
