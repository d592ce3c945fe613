"""Memory for what is large and stays: what it is made of is the system's business, what it looks like is not."""

import mmap
from pathlib import Path

import pytest
import torch

from llmcli_kernels import huge_pages
from llmcli_kernels.huge_pages import HUGE

STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    return int(STATM.read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.parametrize("rows", [1, HUGE // 64, HUGE // 64 + 1, 3 * HUGE // 64 + 7])
def test_it_is_a_tensor_like_any_other(rows: int):
    tensor = huge_pages.empty((rows, 32), torch.bfloat16)
    assert tensor.shape == (rows, 32)
    assert tensor.dtype == torch.bfloat16
    assert tensor.is_contiguous()
    tensor.fill_(2.0)
    assert tensor.float().sum() == 64 * rows


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system has no advice for huge pages")
def test_what_fills_a_huge_page_starts_at_one():
    assert huge_pages.empty((HUGE + 1,), torch.uint8).data_ptr() % HUGE == 0


@pytest.mark.skipif(not STATM.exists(), reason="no /proc here")
def test_memory_is_taken_when_it_is_written():
    """A cache of many gigabytes costs what is used of it."""
    before = resident_bytes()
    data = huge_pages.empty((100, HUGE), torch.uint8)
    assert resident_bytes() - before < 10 * HUGE
    data[:50] = 1
    assert 50 * HUGE <= resident_bytes() - before < 60 * HUGE


def test_views_keep_the_memory():
    row = huge_pages.empty((2, HUGE), torch.uint8)[1]
    row.fill_(3)
    assert row.sum() == 3 * HUGE


def test_a_system_that_refuses_is_an_error():
    with pytest.raises((OSError, RuntimeError)):
        huge_pages.empty((1 << 60,), torch.uint8)
