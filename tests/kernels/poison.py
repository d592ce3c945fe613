"""Fills memory that nobody has written yet, so that reading it shows."""

import pytest
import torch
from torch import Tensor


def poison_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on torch.empty returns NaN, -1 and True."""
    plain = torch.empty

    def poisoned(*args, **kwargs) -> Tensor:
        memory = plain(*args, **kwargs)
        if memory.dtype == torch.bool:
            return memory.fill_(True)
        memory.view(torch.uint8).fill_(0xFF)
        return memory

    monkeypatch.setattr(torch, "empty", poisoned)
