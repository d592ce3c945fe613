"""`Gpu`: what the Triton kernels need to know of the card they run on.

Read once, when a kernel set is chosen, and handed to the operations as plain values. Knows no kernel.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Gpu:
    """A card, or Triton's interpreter in the place of one.

    Attributes:
        capability: CUDA compute capability, (9, 0) for sm_90.
        num_sms: streaming multiprocessors.
        nvidia: whether NVIDIA's inline assembly can be used; not on AMD's cards and not in the interpreter.
    """

    capability: tuple[int, int]
    num_sms: int
    nvidia: bool


INTERPRETER = Gpu(capability=(9, 0), num_sms=4, nvidia=False)


def current_gpu() -> Gpu:
    """The current CUDA device, or INTERPRETER where there is none."""
    if not torch.cuda.is_available():
        return INTERPRETER
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return Gpu(
        capability=(properties.major, properties.minor),
        num_sms=properties.multi_processor_count,
        nvidia=torch.version.hip is None,
    )
