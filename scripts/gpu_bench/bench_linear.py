"""The int4 linear layers of real models beside other ways to multiply the same weights.

Owns the cases and what is computed from their times. The output of few rows is `Partials`, which the next kernel
adds up: that share of the work is in the figures of the stage "small". The stage runs with cuBLAS and torch's
own int4 operator as peers, and once more with those that are there only when somebody brought them.
"""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from llmcli_kernels import Int4Weight, KernelSet, select
from llmcli_kernels.activations import Partials, as_tensor
from scripts.gpu_bench.linear_peers import OTHERS, TORCH_PEERS, Calls, Peer
from scripts.gpu_bench.session import Row, Session
from scripts.gpu_bench.shapes import Layer, layers, random_weight, row_counts
from scripts.gpu_bench.targets import BANDWIDTH
from scripts.gpu_bench.timing import measure, rotation

OTHERS_LAYERS = 3
OTHERS_ROWS = (1, 8, 16, 64, 128, 256, 1024, 4096)  # other kernels tune themselves for each shape, for long
SLOW_PEER_S = 0.3


def run(session: Session, which: str = "torch") -> None:
    kernels = select("cuda", "triton")
    peers, chosen, rows = TORCH_PEERS, layers(session.dry), row_counts(session.dry)
    if which == "others":
        peers = tuple(peer for peer in OTHERS if _there(session, peer))
        chosen, rows = chosen[:OTHERS_LAYERS], tuple(m for m in rows if session.dry or m in OTHERS_ROWS)
        if not peers:
            return
    with torch.device(session.device), torch.inference_mode():
        for layer in chosen:
            bench = _LayerBench(session, kernels, layer, peers)
            for m in rows:
                session.case(f"int4_linear {layer} M={m}", partial(bench.case, m))


def _there(session: Session, peer: Peer) -> bool:
    """Whether a peer can be used here; says why not."""
    try:
        peer.look()
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        session.case(peer.name, lambda: {"kind": "note", "note": f"not compared: {why}"[:300]})
        return False
    return True


class _LayerBench:
    """One layer: its weights in as many copies as the cache needs, in every form, made when first used."""

    def __init__(self, session: Session, kernels: KernelSet, layer: Layer, peers: Sequence[Peer]) -> None:
        self._session = session
        self._kernels = kernels
        self._layer = layer
        self._peers = peers
        self._prepared: dict[str, Calls] = {}

    @cached_property
    def _weights(self) -> list[Int4Weight]:
        size = self._layer.n * self._layer.k // 2
        return [random_weight(self._layer) for _ in range(rotation(size, self._session.dry))]

    @cached_property
    def _packed(self) -> list[Any]:
        return [self._kernels.pack_int4(weight, torch.float16) for weight in self._weights]

    def case(self, m: int) -> Row:
        """Time of our kernel, then of each peer, with the same rows."""
        session, layer, packed = self._session, self._layer, self._packed
        ceilings = session.ceilings
        x = torch.randn(m, layer.k).half()
        calls = [partial(self._kernels.int4_linear, x, weight, None) for weight in packed]
        timing = measure(calls, session.dry)
        y = calls[0]()
        moved = packed[0].nbytes + 2 * m * (layer.k + layer.n)
        work = 2.0 * m * layer.n * layer.k
        seconds = timing.median_us / 1e6
        figures = {
            BANDWIDTH: moved / seconds / ceilings.read,
            "share of cuBLAS peak": work / seconds / ceilings.flops,
            "share of roofline": max(moved / ceilings.read, work / ceilings.flops) / seconds,
        }
        peers = {peer.name: self._peer(peer, x, as_tensor(y)) for peer in self._peers}
        for name, found in peers.items():
            if "time" in found:
                figures[f"x {name}"] = found["time"]["median_us"] / timing.median_us
        return {
            "kind": "benchmark",
            "operation": "int4_linear",
            "sizes": {"m": m, "n": layer.n, "k": layer.k, "weight_bytes": packed[0].nbytes},
            "copies": len(packed),
            "partial_sums": y.parts.shape[0] if isinstance(y, Partials) else 0,
            "time": timing.as_row(),
            "figures": figures,
            "peers": peers,
        }

    def _peer(self, peer: Peer, x: Tensor, ours: Tensor) -> Row:
        """Time of a peer, and how far its result is from ours; what it raises is its own business."""
        try:
            if peer.name not in self._prepared:
                self._prepared[peer.name] = peer.prepare(self._weights)
            prepared = self._prepared[peer.name]
            x = x.to(peer.dtype)
            timing = measure([partial(call, x) for call in prepared], self._session.dry, SLOW_PEER_S)
            return {"time": timing.as_row(), "differs_by": _distance(prepared[0](x), ours)}
        except Exception as error:
            if "CUDA error" in str(error):
                raise
            return {"error": f"{type(error).__name__}: {error}"[:500]}


def _distance(theirs: Tensor, ours: Tensor) -> float:
    """Norm over norm."""
    difference = torch.linalg.vector_norm(theirs.float() - ours.float())
    return round((difference / torch.linalg.vector_norm(ours.float())).item(), 5)
