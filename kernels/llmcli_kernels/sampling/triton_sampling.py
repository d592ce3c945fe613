"""Triton: sampling in four launches of fixed size, without a sort and without waiting for the device.

Owns the launches and what passes note for each other; the kernels are in `triton_passes` and `triton_draw`, the
numbers they compute with in `triton_numbers`. All parameters are read on the device, so a batch may mix all kinds of
rows and the launches can be captured in a CUDA graph. README.md says how it works and how exact it is.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from llmcli_kernels.aot import AotVariant
from llmcli_kernels.sampling import SamplingBatch
from llmcli_kernels.sampling.triton_draw import draw_tokens
from llmcli_kernels.sampling.triton_numbers import BINS, CHUNKS
from llmcli_kernels.sampling.triton_passes import count_depths, find_peaks, split_tokens

PROGRAMS = 1056  # wanted for a pass: eight for each of an H200's multiprocessors
BLOCK, NUM_WARPS = 1024, 4  # tokens and warps of a program of the passes
DRAW_BLOCK, DRAW_WARPS = 1024, 8


def sample(logits: Tensor, params: SamplingBatch) -> tuple[Tensor, Tensor]:
    rows, vocabulary = logits.shape
    tiles, chunks = cut(rows, vocabulary)

    def empty(dtype: torch.dtype, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=logits.device)

    # Noted of every chunk: its largest and smallest logit, the id of the former, the mass that is kept for sure;
    tops, bottoms = empty(torch.float32, 2, rows, CHUNKS.value)
    best = empty(torch.int32, rows, CHUNKS.value)
    sure_masses = empty(torch.int64, rows, CHUNKS.value)
    # of every row: tokens in each bin of depth, mass of all, tokens kept for sure,
    counts, totals = empty(torch.int32, rows, BINS.value), empty(torch.int64, rows)
    # tokens in doubt, and the key and the chunk of each.
    sure_counts, num_listed = empty(torch.int32, rows), empty(torch.int32, rows)
    listed_keys, listed_chunks = empty(torch.int32, rows, vocabulary), empty(torch.int8, rows, vocabulary)
    ids, finite = empty(torch.int64, rows), empty(torch.bool, rows)

    given = (params.temperature, params.top_k, params.top_p, params.min_p, params.uniforms.double())
    temperature, top_k, top_p, min_p, uniforms = (column.contiguous() for column in given)
    work = (logits, vocabulary, tiles)
    options = {"BLOCK": BLOCK, "num_warps": NUM_WARPS}
    peaks, depths = (tops, bottoms), (counts, totals)
    listed = (num_listed, listed_keys, listed_chunks)
    find_peaks[(rows, chunks)](*work, *peaks, best, *depths, num_listed, **options)
    count_depths[(rows, chunks)](*work, chunks, temperature, top_k, top_p, *peaks, *depths, **options)
    split_tokens[(rows, chunks)](
        *work,
        chunks,
        temperature,
        top_k,
        top_p,
        min_p,
        *peaks,
        *depths,
        sure_masses,
        sure_counts,
        *listed,
        **options,
    )
    draw_tokens[(rows,)](
        logits,
        vocabulary,
        tiles * BLOCK,
        chunks,
        temperature,
        top_k,
        top_p,
        min_p,
        uniforms,
        tops,
        best,
        totals,
        sure_masses,
        sure_counts,
        *listed,
        ids,
        finite,
        BLOCK=DRAW_BLOCK,
        num_warps=DRAW_WARPS,
    )
    return ids, finite


def cut(rows: int, vocabulary: int) -> tuple[int, int]:
    """Tiles in a chunk and chunks in a row; results do not depend on them."""
    all_tiles = triton.cdiv(vocabulary, BLOCK)
    wanted = min(max(PROGRAMS // max(rows, 1), 1), CHUNKS.value)
    tiles = triton.cdiv(all_tiles, wanted)
    return tiles, triton.cdiv(all_tiles, tiles)


def aot_variants(capability: tuple[int, int], table: object) -> list[AotVariant]:
    """The four kernels; tiles are not in the table."""
    params = dict.fromkeys(("temperature_ptr", "top_p_ptr", "min_p_ptr"), "*fp32")
    params |= {"top_k_ptr": "*i64", "uniforms_ptr": "*fp64"}
    floats = dict.fromkeys(("logits_ptr", "tops_ptr", "bottoms_ptr"), "*fp32")
    words = dict.fromkeys(
        ("best_ptr", "counts_ptr", "sure_counts_ptr", "num_listed_ptr", "listed_keys_ptr"), "*i32"
    )
    masses = dict.fromkeys(("totals_ptr", "sure_masses_ptr"), "*i64")
    sizes = dict.fromkeys(("vocabulary", "tiles", "chunk_size", "num_chunks"), "i32")
    results = {"ids_ptr": "*i64", "finite_ptr": "*i1", "listed_chunks_ptr": "*i8"}
    types = params | floats | words | masses | sizes | results
    passes = [
        _variant(kernel, types, BLOCK, NUM_WARPS) for kernel in (find_peaks, count_depths, split_tokens)
    ]
    return [*passes, _variant(draw_tokens, types, DRAW_BLOCK, DRAW_WARPS)]


def _variant(kernel: Any, types: dict[str, str], block: int, num_warps: int) -> AotVariant:
    return AotVariant(
        kernel=kernel,
        name=f"sampling {kernel.__name__}",
        signature={name: types[name] for name in kernel.arg_names if name != "BLOCK"},
        constants={"BLOCK": block},
        not_divisible=("tiles", "chunk_size", "num_chunks"),
        num_warps=num_warps,
        num_stages=1,
    )
