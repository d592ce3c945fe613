"""A model in a folder of the user's own."""

import pytest

from llmcli.errors import UsageError
from llmcli.hub.download import obtain
from llmcli.hub.local_folder import fetch_to_folder
from llmcli.hub.names import HubId
from llmcli.hub.remote import Patterns, list_remote

ID = HubId("ada/model")


def test_the_files_are_plain_and_the_cache_stays_empty(hub, settings, files, notices, tmp_path):
    hub.add("ada/model", files)
    folder = fetch_to_folder(list_remote(ID, settings), tmp_path / "mine", settings, notices)
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert not any(path.is_symlink() for path in folder.iterdir())
    assert not settings.repo_dir("ada/model").exists()
    assert not any(path.suffix == ".incomplete" for path in folder.iterdir())


def test_a_second_time_nothing_is_fetched_and_a_changed_file_is(hub, settings, files, notices, tmp_path):
    hub.add("ada/model", files)
    remote = list_remote(ID, settings)
    folder = fetch_to_folder(remote, tmp_path, settings, notices)
    (folder / "config.json").write_bytes(b"{}")
    hub.requests.clear()
    fetch_to_folder(remote, tmp_path, settings, notices)
    assert [path.rpartition("/")[2] for path in hub.paths()] == ["config.json"]
    assert (folder / "config.json").read_bytes() == files["config.json"]
    assert "is not the hub's config.json" in notices.text


def test_what_the_cache_holds_is_copied(hub, settings, files, notices, tmp_path):
    hub.add("ada/model", files)
    obtain(ID, settings, notices)
    remote = list_remote(ID, settings)
    hub.requests.clear()
    folder = fetch_to_folder(remote, tmp_path / "mine", settings, notices)
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert not hub.requests


def test_a_damaged_blob_of_the_cache_is_not_copied_on(hub, settings, files, notices, tmp_path):
    hub.add("ada/model", files)
    blob = (obtain(ID, settings, notices) / "model.safetensors").resolve()
    blob.write_bytes(b"\0" * len(files["model.safetensors"]))
    folder = fetch_to_folder(list_remote(ID, settings), tmp_path / "mine", settings, notices)
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_part_of_an_earlier_try_is_continued(hub, settings, files, notices, tmp_path):
    hub.add("ada/model", files)
    (tmp_path / "model.safetensors.incomplete").write_bytes(files["model.safetensors"][:200_000])
    fetch_to_folder(list_remote(ID, settings), tmp_path, settings, notices)
    assert hub.ranges("model.safetensors") == [(200_000, None)]


def test_files_in_folders_go_into_folders(hub, settings, files, notices, tmp_path):
    hub.add("ada/model", files)
    remote = list_remote(ID, settings, Patterns(include=("original/*",)))
    fetch_to_folder(remote, tmp_path, settings, notices)
    assert (tmp_path / "original" / "consolidated.00.safetensors").read_bytes() == b"the same again"


def test_a_file_is_no_folder(hub, settings, files, notices, tmp_path):
    hub.add("ada/model", files)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is not a folder"):
        fetch_to_folder(list_remote(ID, settings), tmp_path / "file", settings, notices)
