"""What machine code may use: the two families of x86-64 processors that kernels are generated for."""

from dataclasses import dataclass
from functools import cached_property

import llvmlite.binding as llvm


@dataclass(frozen=True)
class Machine:
    """A family of processors.

    Attributes:
        name: "avx512vnni" or "avx2".
        lanes: 32-bit lanes of a register.
        needs: features of a processor by LLVM's names.
        cpu: what LLVM compiles for; None for the very processor that is here.
    """

    name: str
    lanes: int
    needs: tuple[str, ...]
    cpu: str | None = None

    @property
    def vnni(self) -> bool:
        return self.name == "avx512vnni"

    @cached_property
    def bfloat16_pairs(self) -> bool:
        """Has dot products of pairs of bfloat16: AVX-512's, where code is for the very processor."""
        return self.cpu is None and bool(llvm.get_host_cpu_features().get("avx512bf16"))


# Besides what is named, AVX2 machines have all of x86-64-v3 by LLVM's definition.
MACHINES = {
    machine.name: machine
    for machine in (
        Machine("avx512vnni", 16, ("avx512f", "avx512bw", "avx512vl", "avx512vnni", "f16c", "fma")),
        Machine("avx2", 8, ("avx2", "f16c", "fma", "bmi2"), cpu="x86-64-v3"),
    )
}


def machines_here() -> list[str]:
    """Names of the machines that this processor is one of, best first."""
    features = llvm.get_host_cpu_features()
    return [name for name, machine in MACHINES.items() if all(features.get(need) for need in machine.needs)]
