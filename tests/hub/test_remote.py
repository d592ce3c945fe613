"""What of a repository is wanted, and what its card says."""

import pytest

from llmcli.errors import CheckpointError, UsageError
from llmcli.hub.names import HubId
from llmcli.hub.remote import Patterns, list_remote

ID = HubId("ada/model")
NAMES = ["config.json", "tokenizer.json", "model.safetensors", "model.bin", "original/w.pth", "../x", "a b"]


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (Patterns(), ["config.json", "tokenizer.json", "model.safetensors"]),
        (Patterns(exclude=("*.safetensors",)), ["config.json", "tokenizer.json"]),
        (Patterns(include=("*.bin", "original/*")), ["model.bin", "original/w.pth"]),
        (Patterns(include=("*",), exclude=("model*", "*.pth")), ["config.json", "tokenizer.json"]),
    ],
)
def test_patterns_replace_or_narrow_the_usual_choice_and_never_leave_the_folder(patterns, chosen):
    assert patterns.choose(NAMES) == chosen


def test_patterns_that_leave_nothing_are_told_with_what_there_is(hub, settings, files):
    hub.add("ada/model", files)
    with pytest.raises(UsageError, match=r"no file of ada/model is left by the patterns \*\.gguf") as caught:
        list_remote(ID, settings, Patterns(include=("*.gguf",)))
    assert "config.json" in caught.value.why


def test_a_part_of_a_model_may_lack_weights_only_when_patterns_say_so(hub, settings, files):
    del files["model.safetensors"]
    hub.add("ada/model", files)
    assert list_remote(ID, settings, Patterns(include=("*.json",))).partial
    with pytest.raises(CheckpointError, match="pickled weights only"):
        list_remote(ID, settings)


def test_licence_gate_and_licence_files_are_told(hub, settings, files):
    hub.add("ada/model", files | {"LICENSE": b"as is", "NOTICE.txt": b"thanks"})
    hub.repos["ada/model"].tags = ("awq", "license:llama2")
    open_to_all = list_remote(ID, settings)
    hub.repos["ada/model"].gated = frozenset()
    gated = list_remote(ID, settings)
    assert (open_to_all.licence, open_to_all.gate) == ("llama2", "")
    assert (gated.licence, gated.gate) == ("llama2", "manual")
    assert [file.name for file in gated.licence_files] == ["LICENSE", "NOTICE.txt"]


def test_a_card_without_a_licence_says_nothing(hub, settings, files):
    hub.add("ada/model", files)
    hub.repos["ada/model"].tags = ()
    assert list_remote(ID, settings).licence is None
