"""What a kernel is to the rest: the addresses of its two functions, and one use of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from llvmlite import ir
from torch import Tensor

from llmcli_kernels.native.emit import I64, VOID, Emit, Value


class Kernel(NamedTuple):
    """Its name, and the addresses of NAME_pieces and NAME, see the package."""

    name: str
    pieces: int
    piece: int


class Stage(NamedTuple):
    """A kernel and its words, int64 [n]. Whoever makes it keeps alive what the words point at."""

    kernel: Kernel
    args: Tensor


def words(*values: int) -> Tensor:
    """Arguments of a kernel."""
    return torch.tensor(values, dtype=torch.int64)


@contextmanager
def function(
    module: ir.Module, name: str, num_args: int, result: ir.Type = VOID, *, internal: bool = False
) -> Iterator[tuple[Emit, tuple[Value, ...]]]:
    """with function(...) as (e, args): what is emitted inside is the body, all arguments int64.

    A body without a result needs no return of its own. An internal function is not inlined: it is one loop nest, and
    registers are allotted for it alone.
    """
    fn = ir.Function(module, ir.FunctionType(result, [I64] * num_args), name)
    if internal:
        fn.linkage = "internal"
        fn.attributes.add("noinline")
    e = Emit(fn)
    yield e, fn.args
    if isinstance(result, ir.VoidType):
        e.b.ret_void()


def word(e: Emit, args: Value, index: int) -> Value:
    """An int64 of a block of arguments."""
    return e.load(I64, e.at(args, 8 * index), 8)


def pieces_function(module: ir.Module, name: str, count: Callable[[Emit, Value], Value]) -> None:
    """NAME_pieces, for a kernel called `name`: count(e, args) emits the number."""
    with function(module, f"{name}_pieces", 1, I64) as (e, (args,)):
        e.b.ret(count(e, args))
