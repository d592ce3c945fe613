"""int4 linear with integer dot products: activations as int8, machine code made by llvmlite at the first use.

Owns the choice between this and the torch path, which it is given. Known to the kernel set "cpu". The generator and
llvmlite are imported when the first weight is packed; without llvmlite, or on another processor or system, everything
goes to the torch path. The operation's README.md has the maths and the error.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llmcli_kernels.int4_linear import Int4Weight
from llmcli_kernels.int4_linear.integer.records import GROUP, PackedRecords, fits, pack

if TYPE_CHECKING:
    from llmcli_kernels.int4_linear.integer.multiplier import Multiplier

# Half of 128 costs 7% of the speed at many rows, and a quarter less error where some activations are far larger than
# the rest; a quarter would cost a third.
ACTIVATION_GROUP = 64


class IntegerInt4Linear:
    """The operation for bfloat16 activations and weights that `records.fits`; all else is the torch path's.

    Args:
        torch_pack, torch_linear: the torch path.
        machine_name: "avx512vnni" or "avx2"; None for the best that this processor has.
        activation_group: most k that share an activation scale; never more than share a weight's scale.
        cache_folder: of compiled code; None for none.

    Attributes:
        unavailable: why the compiled kernel cannot be used; None as long as nothing speaks against it.
    """

    def __init__(
        self,
        torch_pack: Callable[[Int4Weight, torch.dtype], Any],
        torch_linear: Callable[[Tensor, Any, Tensor | None], Tensor],
        *,
        cache_folder: Path | None,
        machine_name: str | None = None,
        activation_group: int = ACTIVATION_GROUP,
    ) -> None:
        self._torch_pack, self._torch_linear = torch_pack, torch_linear
        self._cache_folder, self._machine_name = cache_folder, machine_name
        self._activation_group = activation_group
        self._multipliers: dict[int, Multiplier] = {}
        self.unavailable: str | None = None

    def pack_int4(self, weight: Int4Weight, dtype: torch.dtype) -> Any:
        if dtype == torch.bfloat16 and fits(weight) and self._is_ready(min(weight.group_size, GROUP)):
            return pack(weight)
        return self._torch_pack(weight, dtype)

    def __call__(self, x: Tensor, packed: Any, bias: Tensor | None) -> Tensor:
        if not isinstance(packed, PackedRecords):
            return self._torch_linear(x, packed, bias)
        if x.dtype != torch.bfloat16:
            raise ValueError(f"int4_linear: the weights were packed for torch.bfloat16, x is {x.dtype}")
        return self._multipliers[packed.group_size].multiply(x, packed, bias)

    def _is_ready(self, group_size: int) -> bool:
        """Whether the kernel for this group size is compiled and right; tried once."""
        if self.unavailable is None and group_size not in self._multipliers:
            try:
                from llmcli_kernels.int4_linear.integer.multiplier import Multiplier

                self._multipliers[group_size] = Multiplier(
                    group_size,
                    min(self._activation_group, group_size),
                    self._machine_name,
                    self._cache_folder,
                )
            except Exception as error:  # whatever it is: the torch path can do the work
                self.unavailable = f"{type(error).__name__}: {error}"
        return self.unavailable is None
