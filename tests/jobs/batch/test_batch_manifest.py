"""The file beside the results: what it holds, and how a difference is told."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from llmcli import __version__
from llmcli.config import EngineConfig, Substitutes
from llmcli.errors import OutputError, UsageError
from llmcli.hub.models import LocalModel, bundled_model
from llmcli.jobs.batch.manifest import check_same, differences, model_settings, read_manifest, write_manifest
from llmcli.jobs.disk import Disk


def test_it_comes_back_as_it_was_written(tmp_path: Path) -> None:
    output = str(tmp_path / "out.jsonl")
    settings = {"model": "a", "sampling": {"stop": ("x",), "logit_bias": {5: 1.0}, "temperature": 0.0}}
    write_manifest(output, settings, Disk())
    found = read_manifest(output)
    assert found is not None
    assert found["pid"] == os.getpid()
    assert differences(found, settings) == []
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl.meta.json"]


def test_it_lies_beside_the_file_that_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "out")
    write_manifest(str(tmp_path / "link"), {}, Disk())
    assert read_manifest(str(tmp_path / "folder" / "out")) == {"pid": os.getpid()}


def test_a_missing_one_is_none_and_a_broken_one_an_error(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    assert read_manifest(output) is None
    for text in ("", "[]", "\xff"):
        (tmp_path / "out.meta.json").write_text(text, encoding="latin-1")
        with pytest.raises(UsageError, match=r"can not read .*out\.meta\.json"):
            read_manifest(output)


def test_one_that_can_not_be_written_is_told_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "out.meta.json").mkdir()
    with pytest.raises(OutputError, match=r"can not write .*out\.meta\.json"):
        write_manifest(str(tmp_path / "out"), {}, Disk())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"model": "a"}, {"model": "b"}, ['model was "a", is "b"']),
        ({"commit": None}, {"commit": "c"}, ['commit was not set, is "c"']),
        ({}, {"ordered": True}, ["ordered was not set, is true"]),
        ({"sampling": {"stop": []}}, {"sampling": {"stop": ("x",)}}, ['sampling.stop was [], is ["x"]']),
        ({"quantization": {"group_size": 128}}, {"quantization": None}, ["quantization.group_size was 128"]),
        ({"pid": 5, "model": "a"}, {"model": "a"}, []),
    ],
)
def test_differences_are_named(old: dict[str, Any], new: dict[str, Any], said: list[str]) -> None:
    found = differences(old, new)
    assert len(found) >= len(said)
    assert all(part in line for part, line in zip(said, found, strict=False))
    assert bool(found) == bool(said)


def test_many_differences_are_counted() -> None:
    with pytest.raises(UsageError, match="begun with other settings") as raised:
        check_same("out", {}, {f"field{i}": i for i in range(15)})
    assert raised.value.why.endswith("and 5 more")


def test_the_settings_of_a_model_change_with_all_that_its_answers_depend_on(tmp_path: Path) -> None:
    model, config = bundled_model(), EngineConfig()
    base = model_settings(model, config, {})
    assert base["llmcli"] == __version__
    assert base["model"] == "tiny-chat"
    assert base["chat_template"]
    assert json.dumps(base)
    changed = model_settings(model, EngineConfig(dtype="float32"), {"temperature": 0.25})
    assert [line.partition(" ")[0] for line in differences(base, changed)] == [
        "dtype",
        "sampling.temperature",
    ]


def test_what_stands_in_for_a_models_files_is_told_of_too() -> None:
    model, config = bundled_model(), EngineConfig()
    before = model_settings(model, config, {})
    given = Substitutes(chat_template="{{ x }}", template_kwargs={"x": 1}, generation_defaults={})
    changed = differences(before, model_settings(model, config, {}, given))
    assert {line.partition(" ")[0] for line in changed} == {
        "chat_template",
        "chat_template_kwargs.x",
        "sampling.max_tokens",
        "sampling.temperature",
        "sampling.top_p",
    }


def test_a_folder_is_known_by_its_weights(tmp_path: Path) -> None:
    for path in bundled_model().path.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    model = LocalModel("folder", tmp_path, None, "folder")
    before = model_settings(model, EngineConfig(), {})
    assert differences(before, model_settings(model, EngineConfig(), {})) == []
    weights = next(tmp_path.glob("*.safetensors"))
    os.utime(weights, ns=(0, 0))
    assert [
        line.partition(" ")[0] for line in differences(before, model_settings(model, EngineConfig(), {}))
    ] == ["files"]
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert any(
        line.startswith("chat_template ")
        for line in differences(before, model_settings(model, EngineConfig(), {}))
    )
