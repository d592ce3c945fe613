"""AWQ's scales: they change nothing before rounding, and less after it than no scales."""

import pytest
import torch

from llmcli.model.spec import read_model_spec
from llmcli.quantize.awq import (
    MomentCounter,
    Moments,
    fold,
    input_channels,
    product_error,
    product_size,
    search_scales,
)
from llmcli.quantize.forward import run_layer
from llmcli.quantize.grid import round_to_grid
from llmcli.quantize.reader import LayerReader
from llmcli.quantize.shape import Grid, SharedInput, shared_inputs
from tests.quantize.small_models import FAMILIES, small_model

ALONE = SharedInput(("mlp.gate_proj", "mlp.up_proj"), "post_attention_layernorm")


def random_inputs(seed: int, count: int = 400, k: int = 64) -> torch.Tensor:
    return torch.randn(count, k, generator=torch.Generator().manual_seed(seed))


def moments_of(inputs: torch.Tensor) -> Moments:
    counter = MomentCounter()
    for part in inputs.split(150):
        counter.add(part)
    return counter.moments()


def test_the_error_from_moments_is_that_of_the_products() -> None:
    inputs, weight = random_inputs(0), random_inputs(1, 24)
    rounded = round_to_grid(weight, Grid(32)).dequantize()
    direct = (inputs @ (weight - rounded).t()).square().sum(1).mean()
    assert product_error([weight], [rounded], moments_of(inputs)) == pytest.approx(float(direct), rel=1e-4)
    size = (inputs @ weight.t()).square().sum(1).mean()
    assert product_size(weight, moments_of(inputs)) == pytest.approx(float(size), rel=1e-4)


def test_moments_within_groups_are_those_of_the_groups() -> None:
    inputs = random_inputs(2)
    blocks = moments_of(inputs).blocks(32)
    torch.testing.assert_close(blocks[1], inputs[:, 32:].t() @ inputs[:, 32:] / len(inputs))


def test_moments_of_divided_inputs_are_those_of_the_quotients() -> None:
    inputs, scales = random_inputs(3), torch.linspace(0.5, 3, 64)
    divided, expected = moments_of(inputs).scaled(scales), moments_of(inputs / scales)
    torch.testing.assert_close(divided.second, expected.second)
    torch.testing.assert_close(divided.size, expected.size)


def test_channels_with_large_inputs_get_large_scales_and_the_error_falls() -> None:
    inputs, grid = random_inputs(4), Grid(32)
    inputs[:, 5] *= 30
    weight, moments = random_inputs(5, 48), moments_of(inputs)
    scales = search_scales([weight], moments, grid, ALONE)
    assert scales.argmax() == 5
    plain = round_to_grid(weight, grid).dequantize()
    scaled = round_to_grid(weight * scales, grid).dequantize() / scales
    assert product_error([weight], [scaled], moments) < 0.7 * product_error([weight], [plain], moments)


def test_where_no_scales_help_there_are_none() -> None:
    exact = torch.randint(0, 16, (32, 64), generator=torch.Generator().manual_seed(6)).float() - 7
    exact[:, 0], exact[:, 32], exact[:, 1], exact[:, 33] = -7, -7, 8, 8  # each group spans the whole grid
    moments = moments_of(random_inputs(7))
    assert torch.equal(search_scales([exact], moments, Grid(32), ALONE), torch.ones(64))


def test_heads_that_share_their_values_share_the_scales() -> None:
    shared = SharedInput(("self_attn.o_proj",), "self_attn.v_proj", copies=2, run=4)
    assert input_channels(shared, 16).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7]


@pytest.mark.parametrize("family", FAMILIES)
def test_folded_scales_leave_what_a_layer_computes(tmp_path, family) -> None:
    spec = read_model_spec(small_model(tmp_path, **FAMILIES[family]))
    layer = LayerReader(tmp_path, spec).layer(1)
    hidden = random_inputs(8, 2 * 20).view(2, 20, 64)
    angles = torch.outer(torch.arange(20.0), torch.linspace(1, 0.1, 8))
    cos_sin = torch.cat([angles.cos(), angles.sin()], 1)
    before = run_layer(hidden, layer, spec, None, cos_sin)
    for number, shared in enumerate(shared_inputs(spec)):
        count = len(layer[f"{shared.producer}.weight"])
        scales = 0.5 + torch.rand(count, generator=torch.Generator().manual_seed(number))
        fold(layer, shared, scales, torch.float16)
    after = run_layer(hidden, layer, spec, None, cos_sin)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
