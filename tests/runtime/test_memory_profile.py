"""What steps take of a GPU's memory, told from the counters of a device that is made up."""

from dataclasses import dataclass, field

import pytest

from llmcli.runtime.memory_profile import measure_workspace

FREE, WEIGHTS, PACKING = 1000, 400, 30


@dataclass
class Cuda:
    """torch.cuda: what torch holds, what it held at most, and what is taken past it."""

    reserved: int = WEIGHTS + PACKING
    held_before: int = 0  # which was not free before, either
    uncounted: int = 0
    peak: int = 900  # of loading
    calls: list[str] = field(default_factory=list)

    def synchronize(self) -> None:
        self.calls.append("synchronize")

    def empty_cache(self) -> None:
        self.reserved -= PACKING

    def reset_peak_memory_stats(self) -> None:
        self.peak = self.reserved

    def memory_reserved(self) -> int:
        return self.reserved

    def max_memory_reserved(self) -> int:
        return self.peak

    def mem_get_info(self) -> tuple[int, int]:
        assert self.calls[-1] == "synchronize"
        return FREE + self.held_before - self.reserved - self.uncounted, 2 * FREE

    def take(self, count: int) -> None:
        self.reserved += count
        self.peak = max(self.peak, self.reserved)


@pytest.mark.parametrize(
    ("pieces", "uncounted", "workspace"),
    [
        ((), 0, 0),
        ((50,), 0, 50),
        ((50, -20, 10), 0, 50),  # the worst moment counts
        ((50, -20, 35), 0, 65),
        ((50, -50), 70, 120),  # kernels stay, whatever torch gives back
        ((50,), -40, 50),  # another program has ended: that is no room to count on
    ],
)
def test_the_worst_moment_counts_and_what_torch_does_not(
    pieces: tuple[int, ...], uncounted: int, workspace: int
) -> None:
    cuda = Cuda()

    def run() -> None:
        for piece in pieces:
            cuda.take(piece)
        cuda.uncounted = uncounted

    found = measure_workspace(run, free_before=FREE, held_before=0, weights=WEIGHTS, cuda=cuda)
    assert found == workspace


def test_what_other_models_of_the_process_hold_is_not_counted() -> None:
    cuda = Cuda(reserved=WEIGHTS + PACKING + 100, held_before=100, uncounted=7)
    found = measure_workspace(
        lambda: cuda.take(50), free_before=FREE, held_before=100, weights=WEIGHTS, cuda=cuda
    )
    assert found == 57


def test_weights_that_take_more_than_planned_are_workspace() -> None:
    found = measure_workspace(
        lambda: None, free_before=FREE, held_before=0, weights=WEIGHTS - 25, cuda=Cuda()
    )
    assert found == 25
