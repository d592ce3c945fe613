"""Paged attention: decode against the memory's bandwidth, prefill against torch's own attention.

Owns the cases. A decode case takes turns on as many layers' caches as the L2 cache demands; pages lie scattered, as
in a cache that has been in use. The peer of decode gathers a sequence's pages and calls SDPA, which is what torch
alone can do with a paged cache; that of prefill is SDPA's flash kernel on tensors that lie ready for it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from llmcli_kernels import AttentionBatch, KernelSet, select
from llmcli_kernels.activations import Partials
from llmcli_kernels.paged_kv import PagedKV
from scripts.gpu_bench.session import Row, Session
from scripts.gpu_bench.shapes import (
    BLOCK,
    DRY_HEADS,
    LLAMA2,
    LLAMA3,
    QWEN,
    Heads,
    gathered,
    random_cache,
    random_pages,
)
from scripts.gpu_bench.targets import BANDWIDTH, VS_FLOAT16_CACHE, VS_IN_TURN, VS_SDPA_PAGES
from scripts.gpu_bench.timing import Timing, measure, rotation

FLOAT16 = torch.float16
SLOW_PEER_S = 0.5
SDPA_BACKENDS = {"SDPA flash": SDPBackend.FLASH_ATTENTION, "SDPA cuDNN": SDPBackend.CUDNN_ATTENTION}


@dataclass(frozen=True)
class Decode:
    """`batch` sequences of the same context, one query each."""

    heads: Heads
    batch: int
    context: int
    stored: torch.dtype | None = None

    def __str__(self) -> str:
        kind = "" if self.stored is None else f" {str(self.stored).removeprefix('torch.')} cache"
        return f"attention_decode {self.heads.name} batch {self.batch} context {self.context}{kind}"

    @property
    def kv_bytes(self) -> int:
        """Of one layer, as attention reads them."""
        each = self.heads.size * (2 if self.stored is None else 1) + (0 if self.stored is None else 4)
        return 2 * self.batch * self.context * self.heads.kv * each


DECODES = (
    *(
        Decode(LLAMA3, *case)
        for case in ((64, 4096), (32, 2048), (1, 32768), (1, 2048), (8, 2048), (8, 8192))
    ),
    *(Decode(LLAMA3, *case) for case in ((64, 1024), (128, 2048), (16, 16384))),
    *(Decode(LLAMA3, 32, 8192, stored) for stored in (None, torch.int8, torch.float8_e4m3fn)),
    *(Decode(LLAMA2, *case) for case in ((1, 2048), (16, 2048))),
    *(Decode(QWEN, *case) for case in ((1, 2048), (128, 2048))),
)
DRY_DECODES = (Decode(DRY_HEADS, 2, 40), Decode(DRY_HEADS, 2, 40, torch.int8))
PREFILLS = ((LLAMA3, 2048), (LLAMA3, 4096), (LLAMA3, 8192), (LLAMA3, 16384), (LLAMA2, 4096), (QWEN, 4096))
ATTENDS = tuple(Decode(LLAMA3, *case) for case in ((1, 512), (1, 8192), (8, 2048), (64, 1024)))
SUMMANDS = 4  # of qkv, for few rows
FEW_ROWS = 32
CHUNKS = ((512, 4096), (512, 32768), (2048, 8192))  # new tokens, and all with the prefix before them


def run(session: Session) -> None:
    kernels = select("cuda", "triton")
    with torch.device(session.device), torch.inference_mode():
        for case in DRY_DECODES if session.dry else DECODES:
            session.case(str(case), partial(_decode, session, kernels, case))
        for case in DRY_DECODES if session.dry else ATTENDS:
            session.case(
                str(case).replace("attention_decode", "attend"), partial(_attend, session, kernels, case)
            )
        for heads, tokens in ((DRY_HEADS, 20),) if session.dry else PREFILLS:
            name = f"attention_prefill {heads.name} {tokens} tokens"
            session.case(name, partial(_prefill, session, kernels, heads, tokens))
        for new, total in ((7, 30),) if session.dry else CHUNKS:
            heads = DRY_HEADS if session.dry else LLAMA3
            name = f"attention_prefill {heads.name} {new} tokens behind {total - new}"
            session.case(name, partial(_chunk, session, kernels, heads, new, total))


def _decode(session: Session, kernels: KernelSet, case: Decode) -> Row:
    """Time of one step, each call a layer."""
    heads, scale = case.heads, case.heads.size**-0.5
    batch, pages = random_pages([case.context] * case.batch, [1] * case.batch)
    caches = _caches(session, case, pages)
    q = torch.randn(case.batch, heads.q, heads.size).half()
    ours = _decode_calls(kernels, q, caches, batch)
    timing = measure(ours, session.dry)
    figures = {BANDWIDTH: case.kv_bytes / (timing.median_us / 1e6) / session.ceilings.read}
    peers: Row = {}
    if case.stored is None:
        gather = [partial(_gather_and_attend, q, kv, batch, case.context, scale) for kv in caches]
        peers["SDPA with gathered pages"] = _peer(session, gather)
        _compare(figures, VS_SDPA_PAGES, peers["SDPA with gathered pages"], timing)
    else:
        plain = _caches(session, Decode(heads, case.batch, case.context), pages)
        peers["float16 cache"] = _peer(session, _decode_calls(kernels, q, plain, batch))
        _compare(figures, VS_FLOAT16_CACHE, peers["float16 cache"], timing)
    return {
        "kind": "benchmark",
        "operation": "attention_decode",
        "sizes": {
            "batch": case.batch,
            "context": case.context,
            "pairs": case.batch * heads.kv,
            "head_size": heads.size,
            "kv_bits": 16 if case.stored is None else 8,
            "kv_bytes": case.kv_bytes,
        },
        "time": timing.as_row(),
        "figures": figures,
        "peers": peers,
    }


def _caches(session: Session, case: Decode, pages: int) -> list[PagedKV]:
    copies = rotation(case.kv_bytes, session.dry)
    return [random_cache(pages, case.heads, FLOAT16, case.stored) for _ in range(copies)]


def _decode_calls(
    kernels: KernelSet, q: Tensor, caches: list[PagedKV], batch: AttentionBatch
) -> list[Callable[[], Tensor]]:
    return [partial(kernels.paged_attention, q, kv, batch, q.shape[2] ** -0.5, None, None) for kv in caches]


def _gather_and_attend(q: Tensor, kv: PagedKV, batch: AttentionBatch, context: int, scale: float) -> Tensor:
    keys, values = (gathered(part, batch.block_tables)[:, :, :context] for part in (kv.keys, kv.values))
    return F.scaled_dot_product_attention(q.unsqueeze(2), keys, values, scale=scale, enable_gqa=True)


def _compare(figures: dict[str, float], name: str, peer: Row, timing: Timing) -> None:
    """Add how many times as fast as a peer we are, where it could be measured."""
    if "median_us" in peer:
        figures[name] = peer["median_us"] / timing.median_us


def _attend(session: Session, kernels: KernelSet, case: Decode) -> Row:
    """Rotation, cache write and attention in one launch, against one after the other."""
    heads = case.heads
    batch, pages = random_pages([case.context] * case.batch, [1] * case.batch)
    parts = torch.randn(SUMMANDS, case.batch, (heads.q + 2 * heads.kv) * heads.size)
    qkv = Partials(parts, FLOAT16) if case.batch <= FEW_ROWS else parts[0].to(FLOAT16)
    positions = torch.full((case.batch,), case.context - 1)
    slots = batch.block_tables[:, -1].long() * BLOCK + (case.context - 1) % BLOCK
    cos_sin = torch.rand(case.context, heads.size)

    def in_turn(kv: PagedKV) -> Tensor:
        q = kernels.rope_kv_write(qkv, positions, slots, cos_sin, kv, heads.q, None)
        return kernels.paged_attention(q, kv, batch, heads.size**-0.5, None, None)

    def at_once(kv: PagedKV) -> Tensor:
        return kernels.attend(
            qkv, positions, slots, cos_sin, kv, heads.q, None, batch, heads.size**-0.5, None, None
        )

    caches = _caches(session, case, pages)
    timing = measure([partial(at_once, kv) for kv in caches], session.dry)
    figures: dict[str, float] = {}
    peer = _peer(session, [partial(in_turn, kv) for kv in caches])
    _compare(figures, VS_IN_TURN, peer, timing)
    return {
        "kind": "benchmark",
        "operation": "attend",
        "sizes": {"batch": case.batch, "context": case.context, "kv_bytes": case.kv_bytes},
        "time": timing.as_row(),
        "figures": figures,
        "peers": {"one after the other": peer},
    }


def _prefill(session: Session, kernels: KernelSet, heads: Heads, tokens: int) -> Row:
    """A whole prompt of one sequence."""
    scale = heads.size**-0.5
    batch, pages = random_pages([tokens], [tokens])
    kv = random_cache(pages, heads, FLOAT16)
    q = torch.randn(tokens, heads.q, heads.size).half()
    timing = measure([partial(kernels.paged_attention, q, kv, batch, scale, None, None)], session.dry)
    keys, values = (gathered(part, batch.block_tables)[:, :, :tokens] for part in (kv.keys, kv.values))
    queries = q.transpose(0, 1).unsqueeze(0)
    row = _prefill_row(session, heads, tokens, tokens, timing)
    for name, backend in SDPA_BACKENDS.items():
        peer = _peer(session, [partial(_sdpa, backend, queries, keys, values, scale)])
        row["peers"][name] = peer
        _compare(row["figures"], f"x {name}", peer, timing)
    return row


def _sdpa(backend: SDPBackend, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Causal attention by one backend, query heads sharing key heads."""
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(
            queries, keys, values, is_causal=True, scale=scale, enable_gqa=True
        )


def _peer(session: Session, calls: Sequence[Callable[[], Tensor]]) -> Row:
    """A peer's time; what it raises is its own business."""
    try:
        return measure(calls, session.dry, SLOW_PEER_S).as_row()
    except RuntimeError as error:
        if "CUDA error" in str(error):
            raise
        return {"error": str(error)[:300]}


def _chunk(session: Session, kernels: KernelSet, heads: Heads, new: int, total: int) -> Row:
    """The last tokens of a prompt whose beginning is in the cache."""
    batch, pages = random_pages([total], [new])
    kv = random_cache(pages, heads, FLOAT16)
    q = torch.randn(new, heads.q, heads.size).half()
    timing = measure(
        [partial(kernels.paged_attention, q, kv, batch, heads.size**-0.5, None, None)], session.dry
    )
    return _prefill_row(session, heads, new, total, timing)


def _prefill_row(session: Session, heads: Heads, new: int, total: int, timing: Timing) -> Row:
    seen = new * (total - new) + new * (new + 1) / 2
    flops = 4.0 * heads.q * heads.size * seen
    return {
        "kind": "benchmark",
        "operation": "attention_prefill" if new == total else "attention_chunk",
        "sizes": {"tokens": new, "context": total, "head_size": heads.size},
        "time": timing.as_row(),
        "figures": {"share of cuBLAS peak": flops / (timing.median_us / 1e6) / session.ceilings.flops},
        "peers": {},
    }
