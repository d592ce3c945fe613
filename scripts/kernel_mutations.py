"""The ways in which mutate_kernels.py breaks the Triton kernels: data only.

Each is a mistake that someone could make: a bound off by one, a mask left out, the wrong index. `text` occurs once in
its file, so a change of the kernel that moves it is noticed; a test checks that.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One mistake.

    Attributes:
        name: what is wrong, in words.
        file: of the kernel, from the root of the repository.
        text: a piece of its code, there once; `instead` takes its place.
        tests: arguments for pytest; these tests must fail.
    """

    name: str
    file: str
    text: str
    instead: str
    tests: tuple[str, ...]

    def applied_to(self, source: str) -> str:
        """The broken source.

        Raises:
            ValueError: the text is not there, or more than once.
        """
        if source.count(self.text) != 1:
            raise ValueError(
                f"{self.name}: {self.file} has the text {source.count(self.text)} times, not once: {self.text!r}"
            )
        return source.replace(self.text, self.instead)


KERNELS = "kernels/llmcli_kernels"
SKINNY = f"{KERNELS}/int4_linear/triton_skinny.py"
WIDE = f"{KERNELS}/int4_linear/triton_wide.py"
DEQUANTIZE = f"{KERNELS}/int4_linear/triton_dequantize.py"
UNPACK = f"{KERNELS}/int4_linear/triton_unpack.py"
DECODE = f"{KERNELS}/paged_attention/triton_decode.py"
PREFILL = f"{KERNELS}/paged_attention/triton_prefill.py"
TILES = f"{KERNELS}/paged_attention/triton_tiles.py"
PARTIALS = f"{KERNELS}/triton_activations.py"
RMS_NORM = f"{KERNELS}/rms_norm/triton_rms_norm.py"
SILU_MUL = f"{KERNELS}/silu_mul/triton_silu_mul.py"
ROPE = f"{KERNELS}/rope_kv_write/triton_rope_kv_write.py"
DRAW = f"{KERNELS}/sampling/triton_draw.py"
SAMPLING_NUMBERS = f"{KERNELS}/sampling/triton_numbers.py"


def _tests(name: str, only: str) -> tuple[str, ...]:
    """Those of one file that run Triton kernels and have one of some words in their name."""
    return (f"tests/kernels/test_{name}.py", "-k", f"triton and ({only})")


FEW_ROWS = _tests("int4_linear_triton", "few_rows_equal or large_zeros")
MANY_ROWS = _tests("int4_linear_triton", "many_rows")
DEQUANTIZED = _tests("int4_tiles_triton", "dequantized_weights")
ONE_QUERY = _tests("paged_attention_kernel", "one_query")
MIXED_STEP = _tests("paged_attention_kernel", "mixed_step")
BLOCKS = _tests("paged_attention_kernel", "block_and_head_sizes")
SOFT_CAP = _tests("paged_attention_kernel", "soft_cap")
LONG = _tests("paged_attention_kernel", "one_query or mixed_step")
EIGHT_BITS = _tests("paged_attention_kernel", "8_bit_keys")
SUMMANDS = _tests("rms_norm_triton", "summands_are_added")
NORM = _tests("rms_norm_kernel", "equals_that_of_transformers")
ROTATED = _tests("rope_kv_write_kernel", "quarter_turn")
SLOTS = _tests("rope_kv_write_kernel", "land_in_their_slots")
ATTEND = _tests("attend_triton", "summands_are_added_up")
ATTEND_SPLITS = _tests("attend_triton", "any_number_of_splits")
GATES = _tests("silu_mul_kernel", "gate_comes_first")
TOP_P = _tests("sampling_kernel", "top_p_keeps")
MIN_P = _tests("sampling_triton", "rows_of_every_kind and 5-90")
TIED = _tests("sampling_triton", "tied_tokens")

MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        "few rows: the zero point of the upper nibbles is not scaled as they are",
        SKINNY,
        "return z * FACTOR + 1024.0",
        "return z + 1024.0",
        FEW_ROWS,
    ),
    Mutation(
        "few rows: the scale is left out",
        SKINNY,
        "return tl.fma(s, part, total)",
        "return part + total",
        FEW_ROWS,
    ),
    Mutation(
        "few rows: the last group of 32 takes its neighbour's scale",
        SKINNY,
        "load_scale_zero(pairs_at + 384, BN)",
        "load_scale_zero(pairs_at + 256, BN)",
        FEW_ROWS,
    ),
    Mutation(
        "few rows: a split drops the tiles that do not divide",
        SKINNY,
        "end = ((share + 1) * num_tiles) // tl.num_programs(1)",
        "end = first + num_tiles // tl.num_programs(1)",
        FEW_ROWS,
    ),
    Mutation(
        "few rows: the mask leaves the last row out",
        SKINNY,
        "mask=(row[None, :] < M) & (n[:, None] < N)",
        "mask=(row[None, :] < M - 1) & (n[:, None] < N)",
        FEW_ROWS,
    ),
    Mutation(
        "unpacking: the wrong nibble of the last plane",
        UNPACK,
        "_number(words >> 8, 0x00F0, exponent, dtype)",
        "_number(words, 0x00F0, exponent, dtype)",
        FEW_ROWS,
    ),
    Mutation(
        "many rows: the second group of 64 takes the first one's scale",
        WIDE,
        "p2 = load_pairs(pairs_at + 128, BN)",
        "p2 = p0",
        MANY_ROWS,
    ),
    Mutation(
        "many rows: the last, lower band of blocks is taken for a full one",
        WIDE,
        "height = tl.minimum(num_m - first, GM)",
        "height = GM",
        MANY_ROWS,
    ),
    Mutation(
        "dequantize: the runs of k are in the order of the nibbles",
        DEQUANTIZE,
        "(run % 2 * 2 + run // 2) * 4",
        "run * 4",
        DEQUANTIZED,
    ),
    Mutation(
        "decode: the causal edge is off by one",
        DECODE,
        "seen = key[:, None] <= last_seen",
        "seen = key[:, None] < last_seen",
        ONE_QUERY,
    ),
    Mutation(
        "decode: the window is one key too long",
        DECODE,
        "seen &= key[:, None] > last_seen - window",
        "seen &= key[:, None] >= last_seen - window",
        MIXED_STEP,
    ),
    Mutation(
        "decode: splits are combined without their weights",
        DECODE,
        "tl.sum(part * share[:, None], axis=0)",
        "tl.sum(part, axis=0)",
        LONG,
    ),
    Mutation(
        "prefill: the causal edge is off by one",
        PREFILL,
        "seen = key[None, :] <= position[:, None]",
        "seen = key[None, :] < position[:, None]",
        MIXED_STEP,
    ),
    Mutation(
        "prefill: the window is one key too short",
        PREFILL,
        "seen &= key[None, :] > (position - window)[:, None]",
        "seen &= key[None, :] > (position - window + 1)[:, None]",
        MIXED_STEP,
    ),
    Mutation(
        "attention: every key of a tile is looked for in the tile's first block",
        TILES,
        "tl.load(table_ptr + at // BLOCK)",
        "tl.load(table_ptr + (at * 0 + key.to(tl.uint32)) // BLOCK)",
        BLOCKS,
    ),
    Mutation(
        "attention: the soft cap is a straight line",
        TILES,
        "scores = _capped(scores, cap, dtype == tl.float32)",
        "scores = scores * cap",
        SOFT_CAP,
    ),
    Mutation(
        "attention: of value scales only the power of two counts",
        TILES,
        "return exponent, inverse, scales * inverse",
        "return exponent, inverse, tl.where(scales > 0.0, 1.0, 0.0)",
        EIGHT_BITS,
    ),
    Mutation(
        "summands: the second one is left out",
        PARTIALS,
        "tl.static_range(1, SPLIT)",
        "tl.static_range(2, SPLIT)",
        SUMMANDS,
    ),
    Mutation(
        "norm: the mean is taken over the padded row",
        RMS_NORM,
        "squares * (1.0 / D)",
        "squares * (1.0 / BLOCK)",
        NORM,
    ),
    Mutation(
        "silu_mul: the gate is left out", SILU_MUL, "y = (silu * up).to(dtype)", "y = up.to(dtype)", GATES
    ),
    Mutation(
        "rope: neighbours are paired, not halves",
        ROPE,
        "return tl.where(element < R // 2, element + R // 2, element - R // 2)",
        "return element ^ 1",
        ROTATED,
    ),
    Mutation(
        "rope within attention: the position is that of the next token",
        DECODE,
        "tl.maximum(length - 1, 0).to(tl.int64) * R",
        "length.to(tl.int64) * R",
        ATTEND,
    ),
    Mutation(
        "rope within attention: values are rotated, too",
        DECODE,
        "turns = (element < R) & ~is_value",
        "turns = (element < R) & (is_value == is_value)",
        ATTEND,
    ),
    Mutation(
        "KV write within attention: a last tile that is not full is no split's",
        DECODE,
        "((split + 1) * per_split >= num_tiles):",
        "((split + 1) * per_split == num_tiles):",
        ATTEND_SPLITS,
    ),
    Mutation(
        "KV write: the place in the block is lost",
        ROPE,
        "* BLOCK_SIZE + slot % BLOCK_SIZE",
        "* BLOCK_SIZE + slot % 1",
        SLOTS,
    ),
    Mutation(
        "sampling: the border of top-p is not rounded up",
        DRAW,
        "tl.maximum(goal + tl.where(goal.to(tl.float64) < share, 1, 0), 1)",
        "tl.maximum(goal - (goal >> 3), 1)",
        TOP_P,
    ),
    Mutation(
        "sampling: all tokens tied at the border of top-p are kept",
        DRAW,
        "quota = ((goal - mass + each - 1) // each).to(tl.int32)",
        "quota = tl.full([], LARGEST_INT, tl.int32)",
        TIED,
    ),
    Mutation(
        "sampling: min-p forgets the temperature",
        SAMPLING_NUMBERS,
        "wide + temperature.to(tl.float64) * tl.log(min_p.to(tl.float64))",
        "wide + tl.log(min_p.to(tl.float64))",
        MIN_P,
    ),
)
