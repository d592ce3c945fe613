"""Runs a compiled function on all of torch's threads at once.

torch computes on the threads of an OpenMP library, which wait for work after each operation. The same threads do ours:
they are awake when a program follows an operation of torch, and nothing competes with them for the cores. Knows
nothing of what runs.
"""

import ctypes
import os

import torch

FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_int64)


class Team:
    """The calling thread and those that OpenMP keeps for it. Python's lock is free meanwhile.

    Raises:
        AttributeError: torch has no OpenMP library with GNU's entry point (LLVM's and Intel's have it too).
    """

    def __init__(self) -> None:
        # torch loads its OpenMP library for all to see.
        self._parallel = ctypes.CDLL(None).GOMP_parallel
        self._parallel.argtypes = (ctypes.c_int64, ctypes.c_int64, ctypes.c_uint, ctypes.c_uint)
        self._parallel.restype = None
        self._process = os.getpid()

    def num_threads(self) -> int:
        """torch's number; 1 after a fork, where OpenMP's threads are the parent's and waiting for them never ends."""
        return torch.get_num_threads() if self._process == os.getpid() else 1

    def call(self, address: int, argument: int, threads: int) -> None:
        """Call the function at `address` with `argument` on each of some threads; returns when all are back."""
        if threads == 1:
            FUNCTION(address)(argument)
        else:
            self._parallel(address, argument, threads, 0)
