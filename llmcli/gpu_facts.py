"""What is known of the machine's GPU, as plain values: what it offers, or why it can not be used.

Knows no torch: `runtime/gpu.py` looks, `plan.resolve` decides with what it found.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts:
    """A GPU that the engine can run on.

    Attributes:
        capability: CUDA compute capability, (9, 0) for Hopper.
        total_memory, free_memory: bytes; free before the weights are loaded.
        num_sms: streaming multiprocessors.
        count: how many GPUs the process sees; this is the first of them.
        driver, cuda, triton: versions; empty where unknown.
    """

    name: str
    capability: tuple[int, int]
    total_memory: int
    free_memory: int
    num_sms: int
    count: int = 1
    driver: str = ""
    cuda: str = ""
    triton: str = ""

    def describe(self) -> str:
        """`NVIDIA H200, the first of 4 GPUs`."""
        return self.name if self.count == 1 else f"{self.name}, the first of {self.count} GPUs"


@dataclass(frozen=True, slots=True)
class NoGpu:
    """Why the engine can not run on a GPU.

    Attributes:
        reason: half a sentence, with the values at fault.
        fix: what to type or change; empty where nothing helps.
        present: whether there is a GPU that was meant to be used, so that its owner wants to hear of it.
    """

    reason: str
    fix: str = ""
    present: bool = False
