"""The outline of a model that is not here: what the code that reads models makes of it, and what it costs."""

import json

import pytest

from llmcli.errors import CheckpointError, GatedModelError
from llmcli.hub.download import obtain
from llmcli.hub.names import HubId
from llmcli.hub.outline import FIRST_BYTES, outline, read_text_file
from llmcli.hub.remote import list_remote
from llmcli.model.checkpoint import read_checkpoint
from llmcli.model.facts import read_model_facts
from tests.fake_hub import Fault
from tests.repositories import AWQ, repository, safetensors, tensors

ID = HubId("ada/model")


@pytest.mark.parametrize("config", [{}, AWQ], ids=["dense", "awq"])
def test_an_outline_tells_the_same_facts_as_the_whole_model(hub, settings, notices, config):
    hub.add("ada/model", repository(config))
    with outline(list_remote(ID, settings), settings) as folder:
        before = read_model_facts(folder)
    assert before == read_model_facts(obtain(ID, settings, notices))


def test_no_more_than_the_header_of_a_shard_is_asked_for_and_the_tokenizer_not_at_all(hub, settings):
    hub.add("ada/model", repository(layers=400))
    size = len(hub.repos["ada/model"].files("main")["model.safetensors"])
    with outline(list_remote(ID, settings), settings) as folder:
        assert (folder / "model.safetensors").stat().st_size == size
    asked = hub.ranges("model.safetensors")
    assert asked[0] == (0, FIRST_BYTES - 1)
    assert sum(last - first + 1 for first, last in asked) < size / 10
    assert not any(path.endswith("tokenizer.json") for path in hub.paths())


def test_a_header_longer_than_the_first_request_is_read_by_a_second(hub, settings):
    weights = safetensors(tensors(2, False), metadata=3 * FIRST_BYTES)
    hub.add("ada/model", repository() | {"model.safetensors": weights})
    with outline(list_remote(ID, settings), settings) as folder:
        assert len(read_checkpoint(folder)) == len(tensors(2, False))
    assert [first for first, _ in hub.ranges("model.safetensors")] == [0, FIRST_BYTES]


def test_every_shard_of_an_index_is_read(hub, settings):
    shapes = tensors(2, False)
    names = list(shapes)
    parts = {"model-1.safetensors": names[:5], "model-2.safetensors": names[5:]}
    index = {"weight_map": {name: part for part, group in parts.items() for name in group}}
    files = repository() | {
        part: safetensors({name: shapes[name] for name in group}) for part, group in parts.items()
    }
    del files["model.safetensors"]

    hub.add("ada/model", files | {"model.safetensors.index.json": json.dumps(index).encode()})
    with outline(list_remote(ID, settings), settings) as folder:
        assert set(read_checkpoint(folder)) == set(shapes)


def test_the_holes_take_no_space_on_the_disk(hub, settings):
    hub.add("ada/model", repository(layers=400))
    with outline(list_remote(ID, settings), settings) as folder:
        status = (folder / "model.safetensors").stat()
    assert status.st_blocks * 512 < status.st_size / 2


def test_what_the_cache_holds_is_not_asked_for(hub, settings, notices):
    hub.add("ada/model", repository())
    obtain(ID, settings, notices)
    hub.requests.clear()
    with outline(list_remote(ID, settings), settings) as folder:
        read_model_facts(folder)
    assert not any("resolve" in path for path in hub.paths())


def test_an_outline_leaves_nothing_behind(hub, settings):
    hub.add("ada/model", repository())
    with outline(list_remote(ID, settings), settings) as folder:
        pass
    assert not folder.exists()
    assert not settings.cache_dir.exists()


def test_a_server_without_ranges_is_left_after_the_header(hub, settings):
    hub.add("ada/model", repository())
    hub.fail("model.safetensors", Fault("ignore_range"))
    with outline(list_remote(ID, settings), settings) as folder:
        assert read_checkpoint(folder)


@pytest.mark.parametrize("fault", [Fault("status", 503), Fault("drop", after=100)], ids=["503", "cut"])
def test_a_range_that_fails_once_is_asked_for_again(hub, settings, fault):
    hub.add("ada/model", repository())
    hub.fail("model.safetensors", fault)
    with outline(list_remote(ID, settings), settings) as folder:
        assert read_checkpoint(folder)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "looks like a Git LFS pointer"),
        (b"\xff" * 64, "declares a header of"),
        (b"123", "too short to be safetensors"),
        (b"", "too short to be safetensors"),
    ],
)
def test_a_shard_that_is_no_safetensors_is_found_out_without_fetching_it(hub, settings, weights, message):
    hub.add("ada/model", repository() | {"model.safetensors": weights})
    with (
        outline(list_remote(ID, settings), settings) as folder,
        pytest.raises(CheckpointError, match=message),
    ):
        read_checkpoint(folder)


def test_an_error_names_the_model_in_place_of_the_folder(hub, settings):
    hub.add("ada/model", repository() | {"model.safetensors": b"123"})
    with pytest.raises(CheckpointError) as caught, outline(list_remote(ID, settings), settings) as folder:
        read_checkpoint(folder)
    assert "ada/model/model.safetensors has 3 bytes" in caught.value.what
    assert str(folder) not in str(caught.value)


def test_a_gated_model_is_told_before_anything_is_fetched(hub, settings):
    hub.add("ada/model", repository())
    hub.repos["ada/model"].gated = frozenset({"hf_good"})
    with pytest.raises(GatedModelError), outline(list_remote(ID, settings), settings):
        pass


def test_the_text_of_a_licence_can_be_read_alone(hub, settings):
    hub.add("ada/model", repository() | {"LICENSE": "as is — really".encode()})
    remote = list_remote(ID, settings)
    assert read_text_file(remote.licence_files[0], remote, settings) == "as is — really"
