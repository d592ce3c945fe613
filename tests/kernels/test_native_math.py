"""The exponentials of native kernels against float64, and the turning of lanes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("llvmlite")

from llmcli_kernels.native import math
from llmcli_kernels.native.emit import const
from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import Stage, function, pieces_function, word, words
from llmcli_kernels.native.transpose import transpose_lanes

SMALLEST_NORMAL, SMALLEST = 2.0**-126, 2.0**-149


def apply(host: Host, name: str, x: Tensor) -> Tensor:
    """A function of `math` on float32, whose number is a multiple of 16."""
    emit_function: Callable = getattr(math, name)

    def emit(module: Any, machine: Any) -> None:
        pieces_function(module, name, lambda e, args: const(1))
        with (
            function(module, name, 2) as (e, (args, _)),
            e.each(const(0), word(e, args, 2), machine.lanes) as i,
        ):
            at = e.b.mul(i, const(4))
            value = emit_function(e, e.load_floats("fp32", e.b.add(word(e, args, 0), at), machine.lanes))
            e.store_floats("fp32", value, e.b.add(word(e, args, 1), at))

    out = torch.empty_like(x)
    kernel = host.compile(f"test {name}", emit).kernel(name)
    host.run(Stage(kernel, words(x.data_ptr(), out.data_ptr(), x.numel())))
    return out


def test_powers_are_within_a_rounding_step_of_float64(host: Host):
    near = torch.linspace(-2, 2, 2**16)
    for x in (near, near * 43, near * 63.9, near * 1e-6, near * 1e-42):
        expected = x.double().exp()
        usable = (expected >= SMALLEST_NORMAL) & (expected <= torch.finfo(torch.float32).max)
        error = (apply(host, "exp", x).double() - expected)[usable] / expected[usable]
        assert error.abs().max() <= 1.2e-7


def test_small_powers_are_subnormal(host: Host):
    x = torch.linspace(-103.9, -103.9 * 0.85, 1024)
    error = (apply(host, "exp", x).double() - x.double().exp()).abs()
    assert (error <= SMALLEST).all()


def test_the_ends_of_the_line(host: Host):
    x = torch.tensor([-torch.inf, -1e30, -200.0, 0.0, -0.0, 200.0, 1e30, torch.inf, torch.nan] + [0.0] * 7)
    powers = apply(host, "exp", x)
    assert powers[:8].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, torch.inf, torch.inf, torch.inf]
    assert powers[8].isnan()


def test_the_largest_lane_is_in_every_lane(host: Host):
    lanes = host.machine.lanes
    x = torch.randn(64)
    expected = x.view(-1, lanes).amax(1, keepdim=True).expand(-1, lanes)
    assert torch.equal(apply(host, "largest_lane", x).view(-1, lanes), expected)


@pytest.mark.parametrize("lanes", [8, 16])
def test_lanes_are_transposed(host: Host, lanes: int):
    def emit(module: Any, _: Any) -> None:
        pieces_function(module, "turn", lambda e, args: const(1))
        with function(module, "turn", 2) as (e, (args, _)):
            source, to = word(e, args, 0), word(e, args, 1)
            rows = [e.load_floats("fp32", e.at(source, 4 * lanes * i), lanes) for i in range(lanes)]
            for i, column in enumerate(transpose_lanes(e, rows)):
                e.store(column, e.at(to, 4 * lanes * i), 4)

    x = torch.randn(lanes, lanes)
    out = torch.empty_like(x)
    kernel = host.compile(f"test transpose {lanes}", emit).kernel("turn")
    host.run(Stage(kernel, words(x.data_ptr(), out.data_ptr())))
    assert torch.equal(out, x.T)
