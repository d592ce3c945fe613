"""Every kernel at the sizes of real models, against the plain PyTorch reference on the same device.

Owns which sizes and operands. The bounds are those of the project's tests, tests/kernels/bounds.py; the reference
computes in float32. Memory that results will lie in is filled with NaN first, so that an element which is never
written shows. The project's own tests cover awkward sizes; this is for large ones.
"""

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from llmcli_kernels import KernelSet, SamplingBatch, select
from llmcli_kernels.activations import Partials, as_tensor
from llmcli_kernels.paged_kv import PagedKV
from llmcli_kernels.rope_kv_write import QKNorm
from scripts.gpu_bench.session import Row, Session
from scripts.gpu_bench.shapes import (
    DRY_HEADS,
    LLAMA2,
    LLAMA3,
    QWEN,
    Heads,
    Layer,
    layers,
    poison,
    random_cache,
    random_pages,
    random_weight,
    row_counts,
)
from tests.kernels.bounds import RELATIVE_ERROR, relative_error

FLOAT16, BFLOAT16 = torch.float16, torch.bfloat16
EPS = 1e-5
ONE_SIGN_ROWS = (8, 17, 64)  # sums of one sign lose most where an offset is taken off after the product
# A value on the edge of two steps of 8-bit storage may fall on either; a step as a share of the largest value.
STORED_STEP = {torch.int8: 1.05 / 127, torch.float8_e4m3fn: 1.05 * 32 / 448}


def run(session: Session) -> None:
    kernels, truth = select("cuda", "triton"), select("cuda", "reference")
    with torch.device(session.device), torch.inference_mode():
        _linear(session, kernels)
        _attention(session, kernels, truth)
        _cache_write(session, kernels, truth)
        _elementwise(session, kernels, truth)
        _sampling(session, kernels, truth)


def compared(operation: str, actual: Tensor, expected: Tensor) -> Row:
    """A check of one result against the bound of its operation and dtype.

    `relative_error` is of the largest element, as the bound is; `norm_error` of the whole.
    """
    bound = RELATIVE_ERROR[operation][actual.dtype]
    error = relative_error(actual, expected)
    whole = torch.linalg.vector_norm(actual.float() - expected.float())
    whole /= torch.linalg.vector_norm(expected.float())
    alike = actual.shape == expected.shape
    return {
        "kind": "check",
        "correct": alike and error <= bound,  # NaN is not
        "relative_error": error,
        "bound": bound,
        "norm_error": whole.item(),
    }


def _linear(session: Session, kernels: KernelSet) -> None:
    """Every layer and row count in float16; bfloat16 for one layer."""
    for index, layer in enumerate(layers(session.dry)):
        for dtype in (FLOAT16, BFLOAT16) if index == 1 else (FLOAT16,):
            # Packed when a case needs it, so that nothing is packed again after a crash.
            packed = cache(partial(_packed, kernels, layer, dtype))
            for rows in row_counts(session.dry):
                name = f"int4_linear {layer} M={rows} {str(dtype).removeprefix('torch.')}"
                work = partial(_linear_case, kernels, layer, packed, rows, dtype)
                session.case(name, work)
                if rows in ONE_SIGN_ROWS:
                    session.case(f"{name} activations of one sign", partial(work, one_sign=True))


def _packed(kernels: KernelSet, layer: Layer, dtype: torch.dtype) -> tuple[object, Tensor]:
    weight = random_weight(layer)
    return kernels.pack_int4(weight, dtype), weight.dequantize(torch.float32)


def _linear_case(
    kernels: KernelSet,
    layer: Layer,
    packed: Callable[[], tuple[object, Tensor]],
    rows: int,
    dtype: torch.dtype,
    one_sign: bool = False,
) -> Row:
    weight, plain = packed()
    x = torch.randn(rows, layer.k).to(dtype)
    x = x.abs() if one_sign else x
    bias = torch.randn(layer.n).to(dtype)
    poison(rows * layer.n * dtype.itemsize)
    actual = as_tensor(kernels.int4_linear(x, weight, bias))
    expected = (x.float() @ plain.T + bias.float()).to(dtype)
    return compared("int4_linear", actual, expected)


def _attention(session: Session, kernels: KernelSet, truth: KernelSet) -> None:
    """Decode and prefill, each with a window, a cap and an 8-bit cache."""
    models = (DRY_HEADS,) if session.dry else (LLAMA3, LLAMA2, QWEN)
    batches = {
        "decode": ([40, 3], [1, 1]) if session.dry else ([2048, 1, 777, 4096, 15, 33, 1024, 2000], [1] * 8),
        "long decode": ([70], [1]) if session.dry else ([32768], [1]),
        "prefill": ([20], [20]) if session.dry else ([1500, 300], [1500, 300]),
        "chunk behind a prefix": ([40, 9], [7, 1]) if session.dry else ([3000, 700, 512], [512, 1, 37]),
    }
    for heads in models:
        for name, (lens, queries) in batches.items():
            for dtype in (FLOAT16, BFLOAT16) if heads is models[0] else (FLOAT16,):
                case = f"paged_attention {heads.name} {name} {str(dtype).removeprefix('torch.')}"
                work = partial(_attention_case, kernels, truth, heads, lens, queries, dtype)
                session.case(case, work)
                if dtype is FLOAT16 and name in ("decode", "chunk behind a prefix"):
                    session.case(f"{case} window", partial(work, window=19 if session.dry else 900))
                    session.case(f"{case} softcap", partial(work, softcap=30.0))
                    session.case(f"{case} int8 cache", partial(work, stored=torch.int8))
                    session.case(f"{case} fp8 cache", partial(work, stored=torch.float8_e4m3fn))


def _attention_case(
    kernels: KernelSet,
    truth: KernelSet,
    heads: Heads,
    lens: list[int],
    queries: list[int],
    dtype: torch.dtype,
    window: int | None = None,
    softcap: float | None = None,
    stored: torch.dtype | None = None,
) -> Row:
    batch, pages = random_pages(lens, queries)
    kv = random_cache(pages, heads, dtype, stored)
    q = torch.randn(sum(queries), heads.q, heads.size).to(dtype)
    poison(q.nbytes)
    arguments = (kv, batch, heads.size**-0.5, window, softcap)
    actual = kernels.paged_attention(q, *arguments)
    return compared("paged_attention", actual, truth.paged_attention(q, *arguments))


def _cache_write(session: Session, kernels: KernelSet, truth: KernelSet) -> None:
    """Rotation and cache write, from partial sums too; the cache is compared as attention would read it."""
    heads = DRY_HEADS if session.dry else LLAMA3
    for rows in (3,) if session.dry else (1, 16, 64, 2048):
        for stored in (None, torch.int8, torch.float8_e4m3fn):
            for norm in (False, True):
                shown = "16-bit" if stored is None else str(stored).removeprefix("torch.")
                case = f"rope_kv_write M={rows} {shown} cache{' with head norms' if norm else ''}"
                session.case(case, partial(_cache_write_case, kernels, truth, heads, rows, stored, norm))


def _cache_write_case(
    kernels: KernelSet, truth: KernelSet, heads: Heads, rows: int, stored: torch.dtype | None, norm: bool
) -> Row:
    width = (heads.q + 2 * heads.kv) * heads.size
    parts = torch.randn(3, rows, width)
    qkv = Partials(parts, FLOAT16)
    slots = torch.randperm(4 * rows)[:rows]
    positions = torch.randint(0, 4096, (rows,))
    angles = torch.arange(4096).unsqueeze(1) * 10000.0 ** (-torch.arange(heads.size // 2) / (heads.size // 2))
    cos_sin = torch.cat((angles.cos(), angles.sin()), dim=1)
    weight = torch.randn(heads.size).to(FLOAT16)
    norms = QKNorm(weight, weight.flip(0).contiguous(), EPS) if norm else None
    blocks = -(-4 * rows // 16)
    ours, theirs = (_empty_cache(blocks, heads, stored) for _ in range(2))
    actual = kernels.rope_kv_write(qkv, positions, slots, cos_sin, ours, heads.q, norms)
    expected = truth.rope_kv_write(qkv.add_up(), positions, slots, cos_sin, theirs, heads.q, norms)
    row = compared("rope_kv_write", actual, expected)
    error = relative_error(_read(ours, slots), _read(theirs, slots))
    bound = row["bound"] if stored is None else STORED_STEP[stored]
    return row | {"cache_error": error, "correct": row["correct"] and error <= bound}


def _empty_cache(blocks: int, heads: Heads, stored: torch.dtype | None) -> PagedKV:
    shape = (blocks, heads.kv, 16, heads.size)
    keys, values = (torch.zeros(shape, dtype=stored or FLOAT16) for _ in range(2))
    scales = [None, None] if stored is None else [torch.full(shape[:3], torch.nan) for _ in range(2)]
    return PagedKV(keys, values, *scales)


def _read(kv: PagedKV, slots: Tensor) -> Tensor:
    """Keys and values of some slots as the numbers that they stand for, float32."""
    blocks, offsets = slots // kv.block_size, slots % kv.block_size
    found = []
    for stored, scales in ((kv.keys, kv.key_scales), (kv.values, kv.value_scales)):
        numbers = stored.to(torch.float32)[blocks, :, offsets]
        found.append(numbers if scales is None else numbers * scales[blocks, :, offsets].unsqueeze(-1))
    return torch.stack(found)


def _elementwise(session: Session, kernels: KernelSet, truth: KernelSet) -> None:
    """Norms and the activation, from plain tensors and from partial sums."""
    width, inner = (256, 384) if session.dry else (4096, 14336)
    for rows in (1, 5) if session.dry else (1, 17, 64, 4096):
        for split in (0, 4):
            given = f"M={rows} {'from 4 partial sums' if split else 'from a tensor'}"
            session.case(f"add_rms_norm {given}", partial(_norm_case, kernels, truth, rows, width, split))
            session.case(f"silu_mul {given}", partial(_silu_case, kernels, truth, rows, inner, split))


def _linear_output(rows: int, width: int, split: int) -> Tensor | Partials:
    if split == 0:
        return torch.randn(rows, width).to(FLOAT16)
    return Partials(torch.randn(split, rows, width), FLOAT16)


def _norm_case(kernels: KernelSet, truth: KernelSet, rows: int, width: int, split: int) -> Row:
    x, weight = _linear_output(rows, width, split), torch.randn(width).to(FLOAT16)
    ours = torch.randn(rows, width).to(FLOAT16)
    theirs = ours.clone()
    poison(ours.nbytes)
    actual = as_tensor(kernels.add_rms_norm(x, ours, weight, EPS))
    row = compared("rms_norm", actual, as_tensor(truth.add_rms_norm(as_tensor(x), theirs, weight, EPS)))
    return row | {"correct": row["correct"] and compared("rms_norm", ours, theirs)["correct"]}


def _silu_case(kernels: KernelSet, truth: KernelSet, rows: int, inner: int, split: int) -> Row:
    x = _linear_output(rows, 2 * inner, split)
    poison(rows * inner * 2)
    return compared("silu_mul", as_tensor(kernels.silu_mul(x)), as_tensor(truth.silu_mul(as_tensor(x))))


def _sampling(session: Session, kernels: KernelSet, truth: KernelSet) -> None:
    """Rows of a large vocabulary, each with its own parameters."""
    vocabulary = 300 if session.dry else 128256
    for rows in (3,) if session.dry else (1, 8, 64):
        for spread in (1.0, 4.0):
            case = f"sampling {rows} rows, logits spread by {spread:g}"
            session.case(case, partial(_sampling_case, kernels, truth, rows, vocabulary, spread))


def _sampling_case(kernels: KernelSet, truth: KernelSet, rows: int, vocabulary: int, spread: float) -> Row:
    logits = torch.randn(rows, vocabulary) * spread
    if rows > 2:
        logits[2, 5] = torch.nan
    number = torch.arange(rows)
    params = SamplingBatch(
        temperature=torch.where(number % 4 == 1, 0.0, 0.8),
        top_k=torch.where(number % 3 == 0, 50, 0),
        top_p=torch.where(number % 2 == 0, 0.9, 1.0),
        min_p=torch.where(number % 5 == 4, 0.05, 0.0),
        uniforms=torch.rand(rows, dtype=torch.float64),
    )
    ids, finite = kernels.sample(logits, params)
    expected, expected_finite = truth.sample(logits, params)
    other = (ids != expected).nonzero()[:, 0].tolist()
    # Sums of a hundred thousand weights differ in their last bits, so a draw on an edge may go either way.
    greedy_same = all(params.temperature[row] != 0 for row in other)
    return {
        "kind": "check",
        "correct": bool((finite == expected_finite).all()) and greedy_same and len(other) <= rows // 50,
        "note": f"{len(other)} of {rows} rows drew another token",
        "rows_differing": other,
    }
