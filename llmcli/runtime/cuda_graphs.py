"""Captures CUDA graphs, all of them in one pool of memory.

Knows nothing of what is captured. Called by `runtime/decode_graphs.py`, through its `Capture`.
"""

import torch
from torch import Tensor

from llmcli.runtime.decode_graphs import Run


class CudaGraphs:
    """Captures functions that launch kernels on one device, and never wait for it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> Run:
        """Run it once, which compiles and loads its kernels, then capture it; captured work is not run."""
        with torch.cuda.device(self._device):
            run()
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the GPU meanwhile, such as one that loads another model.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                output = run()

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay
