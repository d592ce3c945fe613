"""The table of cosines and sines that the rotary kernel reads, built once per engine."""

import math

import torch

from llmcli.model.rope_scaling import RopeSpec


def build_cos_sin(spec: RopeSpec, num_positions: int) -> torch.Tensor:
    """Cosines and sines for every position.

    Returns:
        [num_positions, head_dim] float32: cosines of the head_dim / 2 frequencies, then their sines.

    With the dynamic type the base of a position beyond the original context is that of a sequence which ends there, so
    that the table depends on nothing else in the batch; it equals what token-by-token decoding computes elsewhere.
    """
    positions = torch.arange(num_positions, dtype=torch.float32)
    angles = torch.outer(positions, _inverse_frequencies(spec))
    if spec.kind == "dynamic" and num_positions > spec.original_positions:
        tail = positions[spec.original_positions :]
        angles[spec.original_positions :] = tail[:, None] * _dynamic_inverse_frequencies(spec, tail + 1)
    scale = spec.attention_factor()
    return torch.cat([angles.cos() * scale, angles.sin() * scale], dim=1)


def _exponents(head_dim: int) -> torch.Tensor:
    return torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim


def _inverse_frequencies(spec: RopeSpec) -> torch.Tensor:
    """[head_dim / 2] float32."""
    inverse: torch.Tensor = 1.0 / (spec.theta ** _exponents(spec.head_dim))
    if spec.kind == "linear":
        return inverse / spec.factor
    if spec.kind == "llama3":
        return _llama3(spec, inverse)
    if spec.kind == "yarn":
        return _yarn(spec)
    return inverse


def _dynamic_inverse_frequencies(spec: RopeSpec, lengths: torch.Tensor) -> torch.Tensor:
    """[len(lengths), head_dim / 2]: one row for each sequence length."""
    stretch = spec.factor * lengths / spec.original_positions - (spec.factor - 1)
    base = spec.theta * stretch ** (spec.head_dim / (spec.head_dim - 2))
    return 1.0 / (base[:, None] ** _exponents(spec.head_dim))


def _llama3(spec: RopeSpec, inverse: torch.Tensor) -> torch.Tensor:
    low, high = spec.extra["low_freq_factor"], spec.extra["high_freq_factor"]
    wavelength = 2 * math.pi / inverse
    slowed = torch.where(wavelength > spec.original_positions / low, inverse / spec.factor, inverse)
    blend = (spec.original_positions / wavelength - low) / (high - low)
    smooth = (1 - blend) * slowed / spec.factor + blend * slowed
    medium = (wavelength >= spec.original_positions / high) & (wavelength <= spec.original_positions / low)
    return torch.where(medium, smooth, slowed)


def _yarn(spec: RopeSpec) -> torch.Tensor:
    dim, extra = spec.head_dim, spec.extra

    def dimension(rotations: float) -> float:
        return (
            dim * math.log(spec.original_positions / (rotations * 2 * math.pi)) / (2 * math.log(spec.theta))
        )

    low, high = dimension(extra.get("beta_fast", 32.0)), dimension(extra.get("beta_slow", 1.0))
    if extra.get("truncate", 1.0):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    frequencies = spec.theta ** _exponents(dim)
    return ramp / (spec.factor * frequencies) + (1 - ramp) / frequencies
