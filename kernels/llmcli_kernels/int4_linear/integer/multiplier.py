"""Products by the compiled program of one group size: how they are cut, their memory, the program's test of itself.

Called by `IntegerInt4Linear`. Needs llvmlite: importing this module may fail.
"""

import ctypes
import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from llmcli_kernels.int4_linear import Int4Weight
from llmcli_kernels.int4_linear.integer import slots
from llmcli_kernels.int4_linear.integer.compiled import Compiled, machines_here
from llmcli_kernels.int4_linear.integer.program import build_program
from llmcli_kernels.int4_linear.integer.records import GROUP, PANEL, PackedRecords, pack
from llmcli_kernels.int4_linear.integer.team import Team

ITEMS_PER_PIECE = 64  # (row, group) items of quantisation; fewer are not worth sharing out
RANGES_PER_THREAD = 16  # of panels: a thread that is held up leaves its share to the others
SELF_TEST_ERROR = 0.03  # of the largest output; a wrong kernel is off by all of it


class Multiplier:
    """The kernel for weights of one group size.

    Args:
        group_size: of the packed weights: 32, 64 or 128.
        activation_group: k that share an activation scale: 32, 64 or 128, at most group_size.
        machine_name: "avx512vnni" or "avx2"; None for the best that this processor has.
        cache_folder: of compiled code, or None.

    Raises:
        RuntimeError: this processor or system is none that the kernel runs on, or the compiled code is wrong.
    """

    def __init__(
        self, group_size: int, activation_group: int, machine_name: str | None, cache_folder: Path | None
    ) -> None:
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            raise RuntimeError(f"not for {platform.system()} on {platform.machine()}")
        machines = machines_here()
        name = machine_name or next(iter(machines), "")
        if name not in machines:
            raise RuntimeError(
                "the processor has neither AVX-512 VNNI nor AVX2" if not name else f"no {name} here"
            )
        self.machine_name, self._group_size = name, group_size
        self._activation_group = activation_group
        self._program = Compiled(
            name,
            f"{name} {group_size} {activation_group}",
            lambda: build_program(name, group_size, activation_group),
            cache_folder,
        )
        self._quantise, self._product = (self._program.address(name) for name in ("quantise", "product"))
        self._team = Team()
        self._test()

    def multiply(self, x: Tensor, packed: PackedRecords, bias: Tensor | None) -> Tensor:
        """x bfloat16 [M, K], bias bfloat16 [N] or None -> y bfloat16 [M, N]."""
        padding = packed.no_bias.shape[0] - packed.N
        y = torch.empty(x.shape[0], packed.no_bias.shape[0], dtype=torch.bfloat16)
        if x.shape[0]:
            bias = packed.no_bias if bias is None else F.pad(bias, (0, padding)).contiguous()
            self._run(x.contiguous(), packed.records, bias, y)
        return y[:, : packed.N].contiguous() if padding else y

    def _run(self, x: Tensor, records: Tensor, bias: Tensor, y: Tensor) -> None:
        rows, (panels, groups, _) = x.shape[0], records.shape
        items, parts = rows * groups, GROUP // self._activation_group
        scratch = torch.empty(8 * slots.NUM_WORDS + items * (GROUP + 8 * parts), dtype=torch.uint8)
        state = scratch.data_ptr()
        q = state + 8 * slots.NUM_WORDS
        scales = q + items * GROUP
        sums = scales + items * parts * 4
        threads = self._team.num_threads()
        chunk = -(-rows // -(-rows // slots.MOST_CHUNK))
        ranges = min(panels, RANGES_PER_THREAD * threads) if threads > 1 else 1
        per = max(ITEMS_PER_PIECE, items // (8 * threads))
        num_quantise, num_product = -(-items // per), -(-rows // chunk) * ranges
        words = (ctypes.c_int64 * slots.NUM_WORDS).from_address(state)
        words[slots.NEXT_QUANTISE] = words[slots.NEXT_PRODUCT] = 0
        words[slots.FIRST : slots.NUM_PRODUCT + 1] = (
            *(x.data_ptr(), records.data_ptr(), bias.data_ptr(), y.data_ptr(), q, scales, sums),
            *(rows, groups, panels, ranges, chunk, per, num_quantise, num_product),
        )
        self._team.call(self._quantise, state, min(threads, num_quantise))
        self._team.call(self._product, state, min(threads, num_product))

    def _test(self) -> None:
        """Two small products, compared with the definition."""
        random = torch.Generator().manual_seed(0)
        n, k = PANEL + 8, 2 * GROUP
        groups = (n, k // self._group_size)
        weight = Int4Weight(
            q=torch.randint(0, 256, (n, k // 2), dtype=torch.uint8, generator=random),
            zeros=torch.randint(0, 16, groups, dtype=torch.uint8, generator=random),
            scales=torch.rand(groups, generator=random).add_(0.1).half(),
            group_size=self._group_size,
        )
        x = torch.randn(13, k, generator=random).to(torch.bfloat16)
        expected = x.float() @ weight.dequantize(torch.float32).T
        packed = pack(weight)
        for rows in (1, 13):
            error = (self.multiply(x[:rows], packed, None).float() - expected[:rows]).abs().max()
            if not error <= SELF_TEST_ERROR * expected.abs().max():  # NaN fails too
                raise RuntimeError(f"the compiled kernel is wrong here: {rows} rows are off by {error:.3g}")
