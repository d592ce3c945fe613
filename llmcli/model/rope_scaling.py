"""Rotary frequencies: the plain ones and the four ways of stretching them to longer contexts.

    default  RoFormer (arXiv 2104.09864)
    linear   position interpolation (arXiv 2306.15595)
    dynamic  NTK-aware base that grows with the position
    llama3   Llama 3.1's wavelength-dependent factor
    yarn     YaRN (arXiv 2309.00071)

Standard library only: the tables are built from these numbers in `model/rope.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmcli.errors import CheckpointError, UnsupportedModelError, quote

ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn")


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """One of the types above with its numbers, checked.

    Attributes:
        original_positions: context in tokens before stretching.
        extra: the numbers that only this type has (llama3: low_freq_factor, high_freq_factor; yarn: beta_fast, …).
    """

    kind: str
    theta: float
    head_dim: int
    factor: float
    original_positions: int
    extra: Mapping[str, float] = field(default_factory=dict)

    def extended_positions(self, max_position_embeddings: int) -> int:
        """Context in tokens: config.json counts llama3's factor in already, the others' not."""
        if self.kind == "linear" or self.kind == "dynamic":
            return int(max_position_embeddings * self.factor)
        if self.kind == "yarn":
            return max(max_position_embeddings, int(self.original_positions * self.factor))
        return max_position_embeddings

    def attention_factor(self) -> float:
        """What cos and sin are multiplied by; 1 for all but yarn."""
        if self.kind != "yarn":
            return 1.0
        if "attention_factor" in self.extra:
            return self.extra["attention_factor"]

        def mscale(weight: float) -> float:
            return 1.0 if self.factor <= 1 else 0.1 * weight * math.log(self.factor) + 1.0

        if self.extra.get("mscale") and self.extra.get("mscale_all_dim"):
            return mscale(self.extra["mscale"]) / mscale(self.extra["mscale_all_dim"])
        return mscale(1.0)


_EXTRAS = {
    "llama3": ("low_freq_factor", "high_freq_factor"),
    "yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
}
_REQUIRED = {"linear": ("factor",), "dynamic": ("factor",), "yarn": ("factor",)} | {
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
}


def read_rope_spec(config: Mapping[str, Any], path: Path, head_dim: int, max_positions: int) -> RopeSpec:
    """Read rope_theta and rope_scaling, or rope_parameters as newer files call both.

    Raises:
        UnsupportedModelError: a rope type that is not in ROPE_TYPES, or a partial rotary factor.
        CheckpointError: a number is missing or out of range.
    """
    block = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(block, dict):
        raise CheckpointError(f"{path}: rope_scaling must be an object, got {quote(block)}")
    if any(isinstance(value, dict) for value in block.values()):
        raise UnsupportedModelError(
            f"{path}: rope parameters per kind of layer are not supported: {quote(block)}"
        )
    kind = block.get("rope_type", block.get("type", "default"))
    if kind not in ROPE_TYPES:
        raise UnsupportedModelError(
            f"{path}: rope type {quote(kind)} is not supported", fix=f"supported: {', '.join(ROPE_TYPES)}"
        )
    partial = block.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    if partial != 1.0:
        raise UnsupportedModelError(
            f"{path}: partial_rotary_factor {quote(partial)} is not supported", fix="supported: 1.0"
        )
    theta = _number(block.get("rope_theta", config.get("rope_theta", 10000.0)), "rope_theta", path, above=1)
    for name in _REQUIRED.get(kind, ()):
        if block.get(name) is None:
            raise CheckpointError(f"{path}: rope type {kind} needs {name}")
    factor = _number(block.get("factor", 1.0), "rope factor", path)
    original = block.get("original_max_position_embeddings", max_positions)
    extra = {
        name: float(block[name])
        if isinstance(block[name], bool) and name == "truncate"
        else _number(block[name], name, path)
        for name in _EXTRAS.get(kind, ())
        if block.get(name) is not None
    }
    if kind == "dynamic" and head_dim == 2:
        raise UnsupportedModelError(f"{path}: rope type dynamic needs a head_dim above 2")
    if kind == "llama3" and extra["high_freq_factor"] <= extra["low_freq_factor"]:
        raise CheckpointError(f"{path}: high_freq_factor must be above low_freq_factor")
    positions = _number(original, "original_max_position_embeddings", path)
    if positions != int(positions):
        raise CheckpointError(
            f"{path}: original_max_position_embeddings must be whole, got {quote(original)}"
        )
    return RopeSpec(
        kind, theta, head_dim, factor, max_positions if kind == "dynamic" else int(positions), extra
    )


def _number(value: Any, name: str, path: Path, above: int = 0) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not above < value < 1e12:
        raise CheckpointError(
            f"{path}: {name} must be a number above {above} and below 1e12, got {quote(value)}"
        )
    return float(value)
