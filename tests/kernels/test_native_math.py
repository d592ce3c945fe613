"""The exponentials of native kernels against float64."""

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


@pytest.mark.parametrize("name", ["exp", "exp2"])
def test_powers_are_within_a_rounding_step_of_float64(host: Host, name: str):
    near = torch.linspace(-2, 2, 2**16)
    for x in (near, near * 43, near * 63.9, near * 1e-6, near * 1e-42):
        expected = getattr(torch, name)(x.double())
        usable = (expected >= SMALLEST_NORMAL) & (expected <= torch.finfo(torch.float32).max)
        error = (apply(host, name, x).double() - expected)[usable] / expected[usable]
        assert error.abs().max() <= 1.2e-7


@pytest.mark.parametrize(("name", "low"), [("exp", -103.9), ("exp2", -149.9)])
def test_small_powers_are_subnormal(host: Host, name: str, low: float):
    x = torch.linspace(low, low * 0.85, 1024)
    error = (apply(host, name, x).double() - getattr(torch, name)(x.double())).abs()
    assert (error <= SMALLEST).all()


@pytest.mark.parametrize("name", ["exp", "exp2"])
def test_the_ends_of_the_line(host: Host, name: str):
    x = torch.tensor([-torch.inf, -1e30, -200.0, 0.0, -0.0, 200.0, 1e30, torch.inf, torch.nan] + [0.0] * 7)
    assert apply(host, name, x)[:8].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, torch.inf, torch.inf, torch.inf]
    assert apply(host, name, x)[8].isnan()
