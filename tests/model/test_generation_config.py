"""Sampling defaults and end-of-sequence ids of a model's own generation_config.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmcli.errors import CheckpointError
from llmcli.model.generation_config import read_generation_config
from llmcli.model.spec import ModelSpec, read_model_spec
from tests.tiny_models import base_config


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    (tmp_path / "config.json").write_text(json.dumps(base_config(eos_token_id=2)))
    return read_model_spec(tmp_path)


def write(folder: Path, **fields: Any) -> None:
    (folder / "generation_config.json").write_text(json.dumps(fields))


def test_without_the_file_the_config_decides(tmp_path: Path, spec: ModelSpec) -> None:
    assert read_generation_config(tmp_path, spec) == ({}, (2,), [])


def test_sampling_fields_are_taken_and_others_left(tmp_path: Path, spec: ModelSpec) -> None:
    fields = {"temperature": 0.6, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "repetition_penalty": 1.1}
    write(tmp_path, **fields, do_sample=True, max_length=4096, transformers_version="4.44.0", cache=None)
    assert read_generation_config(tmp_path, spec) == (fields, (2,), [])


def test_do_sample_false_is_greedy(tmp_path: Path, spec: ModelSpec) -> None:
    write(tmp_path, do_sample=False, temperature=0.6)
    assert read_generation_config(tmp_path, spec)[0] == {"temperature": 0.0}


WRONG: list[tuple[str, Any]] = [
    ("temperature", -1),
    ("temperature", "hot"),
    ("temperature", {}),
    ("top_p", 0),
    ("top_p", 1.5),
    ("top_k", 2.5),
    ("top_k", -7),
    ("min_p", 2),
    ("repetition_penalty", 0),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_default_is_left_out_with_a_warning(
    tmp_path: Path, spec: ModelSpec, name: str, value: Any
) -> None:
    write(tmp_path, **{"top_p": 0.5, name: value})
    defaults, _, warnings = read_generation_config(tmp_path, spec)
    assert name not in defaults
    assert len(warnings) == 1
    assert str(tmp_path / "generation_config.json") in warnings[0]
    assert name in warnings[0]


def test_end_ids_of_both_files_count(tmp_path: Path, spec: ModelSpec) -> None:
    write(tmp_path, eos_token_id=[7, 2, 9])
    assert read_generation_config(tmp_path, spec)[1] == (7, 2, 9)
    write(tmp_path, eos_token_id=5)
    assert read_generation_config(tmp_path, spec)[1] == (5, 2)


@pytest.mark.parametrize("value", [999_999, 211, -1, True, 2.0, "2", [2, 999_999], [[2]], {"id": 2}])
def test_an_end_id_that_the_model_does_not_have_is_refused(
    tmp_path: Path, spec: ModelSpec, value: Any
) -> None:
    write(tmp_path, eos_token_id=value)
    with pytest.raises(CheckpointError, match=r"generation_config.json: eos_token_id .* is not in 0..210"):
        read_generation_config(tmp_path, spec)


def test_a_file_that_is_no_object_is_refused(tmp_path: Path, spec: ModelSpec) -> None:
    (tmp_path / "generation_config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"generation_config.json must hold a JSON object"):
        read_generation_config(tmp_path, spec)


def test_the_models_own_limit_of_an_answer_is_a_default(tmp_path: Path, spec: ModelSpec) -> None:
    write(tmp_path, max_new_tokens=400)
    assert read_generation_config(tmp_path, spec)[0] == {"max_tokens": 400}
