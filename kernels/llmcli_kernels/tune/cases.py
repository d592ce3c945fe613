"""What is tuned: the operations whose tuning table leaves a choice, on the shapes of models.

Owns the shapes, how much work an operation is timed with, and the values worth a try for each setting; the data
itself is made in `int4_data.py` and `attention_data.py`. A row that is found for some sizes is for all up to them,
so an int4 layer is timed with the most rows that its row of the table is for.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch

from llmcli_kernels.tune.attention_data import AttentionShape, Step, prepare_attention
from llmcli_kernels.tune.int4_data import Adapt, prepare_linear
from llmcli_kernels.tune.search import Space
from llmcli_kernels.tune.tuner import Case, Prepared, with_config
from llmcli_kernels.tuning import TuningTable

# Of the narrow operand of the decode kernel.
NARROWEST_COLUMNS = 8
MANY_ROWS = 1 << 30
CHECKED_DECODE = ((1, 1), (1, 16), (1, 17), (1, 333))
CHECKED_PREFILL = ((17, 17), (40, 333))

SPACES: Mapping[str, Space] = {
    "int4_skinny": {
        "BN": (64, 128),
        "num_warps": (1, 2, 4),
        "num_stages": (2, 3, 4, 5),
        "programs_per_sm": (2, 4, 8, 16),
    },
    "int4_wide": {
        "BM": (32, 64, 128, 256),
        "num_warps": (4, 8),
        "num_stages": (2, 3, 4),
        "GM": (1, 8),
        "programs_per_sm": (1, 2, 4),
    },
    "int4_linear": {"skinny_rows": (8, 16, 32), "wide_rows": (32, 64, 128, 256, 512, 1024, 2048)},
    "attention_decode": {
        "T": (32, 64, 128),
        "num_warps": (2, 4, 8),
        "num_stages": (2, 3, 4),
        "programs_per_sm": (1, 2, 4, 8),
    },
    "attention_prefill": {
        "BM": (32, 64, 128, 256),
        "T": (32, 64, 128),
        "num_warps": (4, 8),
        "num_stages": (2, 3, 4),
    },
}


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The parts of a model that tile sizes depend on.

    Attributes:
        linears: (n, k) of each int4 matrix; none in a model that is not quantized.
        group_size: of the matrices; -1 is one group per row.
    """

    linears: tuple[tuple[int, int], ...]
    group_size: int
    attention: AttentionShape


@dataclass(frozen=True, kw_only=True)
class Load:
    """How much work the operations are timed with.

    Attributes:
        skinny_rows, wide_rows: rows of x, ascending; each is a case.
        crossover_rows: rows of x of one case, fewer more often, so that all have a say.
        decodes, prefills: steps; (queries, tokens in the cache) of each sequence.
    """

    skinny_rows: tuple[int, ...] = (8, 16, 32)
    wide_rows: tuple[int, ...] = (32, 64, 128, 256, 1024)
    crossover_rows: tuple[int, ...] = (
        *[16, 32, 64] * 16,
        *[128] * 12,
        *[256] * 8,
        *[512] * 4,
        1024,
        1024,
        2048,
    )
    decodes: tuple[Step, ...] = (((1, 2048),) * 32, ((1, 16384),))
    prefills: tuple[Step, ...] = (((2048, 2048),), ((512, 8192),))


LLAMA_3_8B = ModelShape(
    linears=((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)),
    group_size=128,
    attention=AttentionShape(num_heads=32, num_kv_heads=8, head_size=128),
)
LLAMA_2_7B = ModelShape(
    linears=((12288, 4096), (4096, 4096), (22016, 4096), (4096, 11008)),
    group_size=128,
    attention=AttentionShape(num_heads=32, num_kv_heads=32, head_size=128),
)
FULL_LOAD = Load()
STANDARD_SHAPES = (LLAMA_3_8B, LLAMA_2_7B)


def cases_for(shapes: Iterable[ModelShape], device: str, load: Load = FULL_LOAD) -> list[Case]:
    """The cases of some models, those that two of them share once."""
    found: dict[tuple[object, ...], Case] = {}
    for shape in shapes:
        for case in (*_linear_cases(shape, device, load), *_attention_cases(shape, device, load)):
            found.setdefault((case.operation, *case.sizes.items()), case)
    return list(found.values())


def _linear_cases(shape: ModelShape, device: str, load: Load) -> Iterator[Case]:
    """Both kernels at the rows that they are for, then from how many rows on dequantizing is faster than either."""
    for n, k in shape.linears:
        group = k if shape.group_size == -1 else shape.group_size

        def prepare(
            rows: tuple[int, ...], adapt: Adapt, n: int = n, k: int = k, group: int = group
        ) -> Prepared:
            return prepare_linear(n, k, group, rows, device, adapt)

        for operation, all_rows in (("int4_skinny", load.skinny_rows), ("int4_wide", load.wide_rows)):
            for rows in all_rows:
                yield Case(
                    operation=operation,
                    title=f"int4 {n} x {k}, {rows} rows",
                    sizes={"m": rows, "n": n, "k": k},
                    space=SPACES[operation],
                    prepare=partial(prepare, (rows,), partial(_by_kernel, operation)),
                )
        yield Case(
            operation="int4_linear",
            title=f"int4 {n} x {k}, which kernel for how many rows",
            sizes={"n": n, "k": k},
            space=SPACES["int4_linear"],
            prepare=partial(prepare, load.crossover_rows, _as_it_is),
        )


def _by_kernel(operation: str, table: TuningTable) -> TuningTable:
    """A table with which one of the kernels does any number of rows."""
    skinny_rows = MANY_ROWS if operation == "int4_skinny" else 0
    return with_config(table, "int4_linear", {"skinny_rows": skinny_rows, "wide_rows": MANY_ROWS})


def _as_it_is(table: TuningTable) -> TuningTable:
    return table


def _attention_cases(shape: ModelShape, device: str, load: Load) -> Iterator[Case]:
    """Decode and prefill with both widths of storage; 8 bits first, whose row is for fewer bytes."""
    for storage in (torch.int8, torch.float16):
        heads = replace(shape.attention, storage=storage)
        group = heads.num_heads // heads.num_kv_heads
        sizes = {"head_size": heads.head_size, "kv_bytes": storage.itemsize}
        shown = (
            f"{heads.num_heads}/{heads.num_kv_heads} heads of {heads.head_size}, {8 * storage.itemsize} bits"
        )
        yield Case(
            operation="attention_decode",
            title=f"attention, decode, {shown}",
            sizes={**sizes, "columns": max(NARROWEST_COLUMNS, 1 << (group - 1).bit_length())},
            space=SPACES["attention_decode"],
            prepare=partial(prepare_attention, heads, CHECKED_DECODE, load.decodes, device),
        )
        yield Case(
            operation="attention_prefill",
            title=f"attention, prefill, {shown}",
            sizes={**sizes, "capped": 0},
            space=SPACES["attention_prefill"],
            prepare=partial(prepare_attention, heads, CHECKED_PREFILL, load.prefills, device),
        )
