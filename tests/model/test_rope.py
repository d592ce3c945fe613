"""Rotary tables equal those of transformers, and what can not be computed is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from llmcli.errors import CheckpointError, UnsupportedModelError
from llmcli.model.rope import build_cos_sin
from llmcli.model.rope_scaling import RopeSpec, read_rope_spec
from llmcli.model.spec import read_model_spec
from tests.tiny_models import base_config

PATH = Path("config.json")
ROUNDING = 128 * 2.0**-24  # a frequency that is half a unit off in float32, times the last position
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
SCALINGS: dict[str, dict[str, Any] | None] = {
    "default": None,
    "linear": {"type": "linear", "factor": 2.5},
    "llama3": LLAMA3,
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    "yarn, not truncated": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "truncate": False,
    },
    "yarn with mscale": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 32,
        "mscale": 0.707,
        "mscale_all_dim": 0.5,
    },
}


def read(block: Any, head_dim: int = 16, positions: int = 128, **config: Any) -> RopeSpec:
    return read_rope_spec({"rope_scaling": block, **config}, PATH, head_dim, positions)


@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS.keys())
def test_the_table_equals_that_of_transformers(scaling: dict[str, Any] | None) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rotary = LlamaRotaryEmbedding(LlamaConfig(**base_config(rope_scaling=scaling)))
    positions = torch.arange(128)[None]
    cos, sin = rotary(torch.zeros(1, dtype=torch.float32), positions)
    table = build_cos_sin(read(scaling, rope_theta=10000.0), 128)
    torch.testing.assert_close(table[:, :8], cos[0, :, :8], atol=ROUNDING, rtol=0)
    torch.testing.assert_close(table[:, 8:], sin[0, :, :8], atol=ROUNDING, rtol=0)


def test_the_plain_table_is_the_formula() -> None:
    table = build_cos_sin(RopeSpec("default", 100.0, 4, 1.0, 8), 8)
    for position in range(8):
        angles = (position, position / 10)  # 100 ** (-2 i / 4)
        expected = [*map(math.cos, angles), *map(math.sin, angles)]
        assert table[position].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_row_of_the_dynamic_table_does_not_depend_on_its_length() -> None:
    spec = read({"type": "dynamic", "factor": 4.0}, positions=40)
    torch.testing.assert_close(build_cos_sin(spec, 160)[:60], build_cos_sin(spec, 60), atol=ROUNDING, rtol=0)
    plain = build_cos_sin(read(None, positions=40), 160)
    assert torch.equal(build_cos_sin(spec, 160)[:40], plain[:40])
    assert not torch.equal(build_cos_sin(spec, 160)[100], plain[100])


LENGTHS: list[tuple[dict[str, Any] | None, int]] = [
    (None, 128),
    ({"type": "linear", "factor": 2.5}, 320),
    ({"type": "dynamic", "factor": 4.0}, 512),
    (LLAMA3, 128),
    ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}, 512),
    ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}, 128),
]


@pytest.mark.parametrize(("scaling", "length"), LENGTHS)
def test_the_context_of_a_model_counts_its_scaling_once(
    tmp_path: Path, scaling: dict[str, Any] | None, length: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(base_config(rope_scaling=scaling)))
    assert read_model_spec(tmp_path).max_position == length


REFUSED: list[tuple[Any, str]] = [
    ({"type": "linear"}, "rope type linear needs factor"),
    ({"type": "linear", "factor": 0}, "rope factor must be a number above 0"),
    ({"type": "linear", "factor": "2"}, "rope factor must be a number above 0 and below 1e12, got 2"),
    ({"type": "linear", "factor": True}, "rope factor .* got True"),
    ({"type": "linear", "factor": -1.0}, "rope factor"),
    ({"type": "linear", "factor": 1e300}, "rope factor"),
    ({k: v for k, v in LLAMA3.items() if k != "low_freq_factor"}, "rope type llama3 needs low_freq_factor"),
    (LLAMA3 | {"high_freq_factor": 1.0}, "high_freq_factor must be above low_freq_factor"),
    (LLAMA3 | {"original_max_position_embeddings": "32"}, "original_max_position_embeddings"),
    (LLAMA3 | {"original_max_position_embeddings": 0.5}, "original_max_position_embeddings must be whole"),
    ({"rope_type": "yarn"}, "rope type yarn needs factor"),
    ({"rope_type": "yarn", "factor": 2.0, "beta_fast": True}, "beta_fast"),
    ({"rope_type": "yarn", "factor": 2.0, "beta_slow": 0}, "beta_slow"),
    ([1], "rope_scaling must be an object"),
]


@pytest.mark.parametrize(("block", "message"), REFUSED)
def test_a_number_that_is_missing_or_out_of_range_is_refused(block: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read(block)
    assert "config.json" in caught.value.what


def test_a_base_that_stretches_by_a_division_by_zero_is_refused() -> None:
    with pytest.raises(CheckpointError, match="rope_theta must be a number above 1"):
        read({"rope_type": "yarn", "factor": 2.0}, rope_theta=1.0)
    with pytest.raises(UnsupportedModelError, match="head_dim above 2"):
        read({"rope_type": "dynamic", "factor": 2.0}, head_dim=2)


def test_newer_files_hold_all_of_it_in_rope_parameters() -> None:
    block = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}
    spec = read_rope_spec({"rope_parameters": block}, PATH, 16, 128)
    assert spec == read({"type": "linear", "factor": 2.0}, rope_theta=500.0)
