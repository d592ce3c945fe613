"""`resolve`: every auto becomes a value that fits, and what can not fit is refused with both numbers and a way out."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcli.config import (
    BLOCK_SIZES,
    DTYPES,
    GIB,
    MIB,
    EngineConfig,
    HardwareFacts,
    ModelFacts,
    ResolvedConfig,
    parse_number,
)
from llmcli.errors import DoesNotFitError, UsageError
from llmcli.gpu_facts import NoGpu
from llmcli.plan import kv_bytes_per_token, resolve

LLAMA_7B_AWQ = ModelFacts(
    num_layers=32,
    num_kv_heads=32,
    head_dim=128,
    max_position=4096,
    dense_parameters=2 * 32000 * 4096 + 65 * 4096,
    quantized_bytes=3_500_000_000,
    checkpoint_dtype="float16",
    hidden_size=4096,
    vocab_size=32000,
)
TINY = ModelFacts(
    num_layers=2,
    num_kv_heads=2,
    head_dim=16,
    max_position=100,
    dense_parameters=10_000,
    quantized_bytes=0,
    checkpoint_dtype="float32",
    hidden_size=64,
    vocab_size=300,
)


def machine(
    free: int, *, cores: int = 4, fast_bfloat16: bool = True, native_kernels: bool = False
) -> HardwareFacts:
    return HardwareFacts(
        total_memory=2 * free,
        free_memory=free,
        num_cores=cores,
        fast_bfloat16=fast_bfloat16,
        native_kernels=native_kernels,
        gpu=NoGpu("no NVIDIA driver was found"),
    )


def total(plan: ResolvedConfig) -> int:
    return plan.weight_bytes + plan.workspace_bytes + plan.kv_bytes


DTYPE_RULES: list[tuple[str, str, bool, str, str]] = [
    ("auto", "float32", True, "float32", "the checkpoint's"),
    ("auto", "float16", True, "bfloat16", "fast in bfloat16"),
    ("auto", "bfloat16", True, "bfloat16", "fast in bfloat16"),
    ("auto", "bfloat16", False, "float32", "no fast 16-bit arithmetic"),
    ("float16", "float32", False, "float16", "option"),
    ("bfloat16", "float16", False, "bfloat16", "option"),
]


@pytest.mark.parametrize(("asked", "stored", "fast", "expected", "reason"), DTYPE_RULES)
def test_the_dtype_follows_from_checkpoint_and_machine(
    asked: Any, stored: str, fast: bool, expected: str, reason: str
) -> None:
    facts = replace(TINY, checkpoint_dtype=stored)
    plan = resolve(EngineConfig(dtype=asked), facts, machine(GIB, fast_bfloat16=fast))
    assert plan.dtype == expected
    assert reason in plan.reasons["dtype"]


def test_the_cache_of_a_token_is_keys_and_values_of_all_layers() -> None:
    assert kv_bytes_per_token(LLAMA_7B_AWQ, "float16") == 512 * 1024


@pytest.mark.parametrize("dtype", ["int8", "fp8"])
def test_a_cache_of_8_bits_is_half_of_one_of_16_and_a_scale_for_every_token_and_head(dtype: Any) -> None:
    heads = 2 * 32 * 32  # keys and values, layers, heads
    assert kv_bytes_per_token(LLAMA_7B_AWQ, dtype) == heads * (128 + 4)
    config = EngineConfig(dtype="float16", kv_cache_memory=GIB)
    plain = resolve(config, LLAMA_7B_AWQ, machine(16 * GIB))
    plan = resolve(replace(config, kv_cache_dtype=dtype), LLAMA_7B_AWQ, machine(16 * GIB))
    assert (plan.dtype, plan.kv_cache_dtype, plan.reasons["kv_cache_dtype"]) == ("float16", dtype, "option")
    assert plan.kv_bytes <= GIB
    assert plan.kv_tokens / plain.kv_tokens == pytest.approx(256 / 132, rel=0.01)
    assert f" in {dtype} (" in plan.memory_sum()


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_the_cache_is_kept_in_the_dtype_of_the_activations_unless_told_otherwise(dtype: Any) -> None:
    plan = resolve(EngineConfig(dtype=dtype), TINY, machine(GIB))
    assert (plan.kv_cache_dtype, plan.reasons["kv_cache_dtype"]) == (dtype, "that of the activations")


def test_a_tiny_model_runs_on_one_thread() -> None:
    assert resolve(EngineConfig(), TINY, machine(4 * GIB)).num_threads == 1
    assert resolve(EngineConfig(num_threads=3), TINY, machine(4 * GIB)).num_threads == 3


def test_threads_are_those_asked_for_or_all_cores() -> None:
    assert resolve(EngineConfig(), LLAMA_7B_AWQ, machine(16 * GIB, cores=3)).num_threads == 3
    assert resolve(EngineConfig(num_threads=2), LLAMA_7B_AWQ, machine(16 * GIB, cores=3)).num_threads == 2


def test_the_memory_sum_adds_up() -> None:
    plan = resolve(EngineConfig(), LLAMA_7B_AWQ, machine(16 * GIB))
    assert plan.kv_bytes == plan.num_blocks * plan.block_size * plan.kv_bytes_per_token
    match = re.fullmatch(
        r"weights ([\d.]+) GiB \+ workspace ([\d.]+) MiB \+ KV cache ([\d.]+) GiB"
        r" \(([\d,]+) tokens\) = ([\d.]+) GiB",
        plan.memory_sum(),
    )
    assert match is not None
    weights, workspace, cache, tokens, whole = (float(part.replace(",", "")) for part in match.groups())
    assert tokens == plan.kv_tokens
    assert whole == pytest.approx(weights + workspace / 1024 + cache, abs=0.16)
    assert whole == pytest.approx(total(plan) / GIB, abs=0.06)


def test_the_context_is_the_models_where_that_fits() -> None:
    plan = resolve(EngineConfig(), LLAMA_7B_AWQ, machine(32 * GIB))
    assert (plan.max_model_len, plan.reasons["max_model_len"]) == (4096, "the model's")


def test_the_context_shrinks_to_what_fits() -> None:
    plan = resolve(EngineConfig(), LLAMA_7B_AWQ, machine(6 * GIB))
    assert plan.reasons["max_model_len"] == "the longest that fits"
    assert 32 <= plan.max_model_len < 4096
    assert plan.max_model_len == plan.kv_tokens - plan.block_size
    assert total(plan) <= 6 * GIB


@pytest.mark.parametrize("max_num_seqs", [1, 2, 64])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 99, 100])
def test_one_sequence_of_any_length_fits_where_memory_is_plenty(length: int, max_num_seqs: int) -> None:
    plan = resolve(EngineConfig(max_model_len=length, max_num_seqs=max_num_seqs), TINY, machine(GIB))
    assert plan.max_model_len == length
    auto = resolve(EngineConfig(max_num_seqs=max_num_seqs), TINY, machine(GIB))
    assert (auto.max_model_len, auto.reasons["max_model_len"]) == (100, "the model's")


def test_the_cache_takes_no_more_than_its_sequences_can_use() -> None:
    plan = resolve(EngineConfig(max_num_seqs=2), TINY, machine(64 * GIB))
    assert plan.kv_tokens <= 2 * (100 + 2 * plan.block_size)


def refused(config: EngineConfig, model: ModelFacts, hardware: HardwareFacts) -> DoesNotFitError:
    with pytest.raises(DoesNotFitError) as caught:
        resolve(config, model, hardware)
    assert caught.value.exit_code == 5
    assert caught.value.fix
    return caught.value


def test_a_huge_model_on_a_small_machine_is_refused_with_both_numbers() -> None:
    error = refused(EngineConfig(), replace(LLAMA_7B_AWQ, quantized_bytes=140 * GIB), machine(4 * GIB))
    assert re.search(r"needs 14\d GiB, free memory is 4\.0 GiB", error.what)
    assert "weights 14" in error.why


def test_a_model_of_exactly_all_free_memory_is_refused() -> None:
    plan = resolve(EngineConfig(), TINY, machine(GIB))
    refused(EngineConfig(), TINY, machine(plan.weight_bytes + plan.workspace_bytes))


def test_a_cache_too_small_for_one_sequence_says_need_and_have() -> None:
    config = EngineConfig(kv_cache_memory=10 * MIB)
    error = refused(config, LLAMA_7B_AWQ, machine(16 * GIB))
    assert "32 tokens need 24.0 MiB, there is room for 8.0 MiB" in error.what
    assert "512 KiB per token" in error.why
    assert error.fix == "use --kv-cache-memory 24MiB"
    larger = replace(config, kv_cache_memory=24 * MIB)
    assert resolve(larger, LLAMA_7B_AWQ, machine(16 * GIB)).max_model_len == 32


def test_a_length_that_the_cache_can_not_hold_says_which_would_fit() -> None:
    config = EngineConfig(max_model_len=4096, kv_cache_memory=GIB)
    error = refused(config, LLAMA_7B_AWQ, machine(16 * GIB))
    assert error.what == "the KV cache does not fit: 4,096 tokens need 2.0 GiB, there is room for 1.0 GiB"
    assert error.fix == "use --max-model-len 2032 or less, or use --kv-cache-memory 2056MiB"


def test_a_cache_larger_than_what_is_left_is_refused_with_both_numbers() -> None:
    error = refused(EngineConfig(kv_cache_memory=20 * GIB), LLAMA_7B_AWQ, machine(16 * GIB))
    assert re.search(r"--kv-cache-memory 20\.0 GiB is more than the 1\d\.\d GiB that are left", error.what)
    assert "16.0 GiB free" in error.why


def test_a_context_beyond_the_models_is_a_usage_error() -> None:
    with pytest.raises(
        UsageError, match="--max-model-len 5000 is beyond the model's 4096 positions"
    ) as caught:
        resolve(EngineConfig(max_model_len=5000), LLAMA_7B_AWQ, machine(64 * GIB))
    assert caught.value.exit_code == 2
    assert caught.value.fix == "use --max-model-len 4096 or less"


def options_of(fix: str) -> list[dict[str, int]]:
    """What an error's fix tells to type, each alternative as engine options."""
    found = re.findall(r"--(max-model-len|kv-cache-memory) (\w+)", fix)
    return [{name.replace("-", "_"): parse_number(value)} for name, value in found]


MODELS = st.builds(
    ModelFacts,
    num_layers=st.integers(1, 80),
    num_kv_heads=st.integers(1, 64),
    head_dim=st.sampled_from([2, 64, 128]),
    max_position=st.integers(1, 200_000),
    dense_parameters=st.integers(1, 10**9),
    quantized_bytes=st.integers(0, 10**10),
    checkpoint_dtype=st.sampled_from(sorted(DTYPES)),
    hidden_size=st.integers(2, 8192),
    vocab_size=st.integers(1, 200_000),
)
OPTIONS = st.fixed_dictionaries(
    {"block_size": st.sampled_from(BLOCK_SIZES), "max_num_seqs": st.integers(1, 300)},
    optional={
        "max_model_len": st.integers(1, 100_000),
        "kv_cache_memory": st.integers(1, 1 << 38),
        "dtype": st.sampled_from(["float32", "bfloat16"]),
        "kv_cache_dtype": st.sampled_from(["auto", "int8", "fp8"]),
        "lm_head": st.sampled_from(["auto", "int8", "full"]),
    },
)


@given(options=OPTIONS, model=MODELS, free=st.integers(0, 1 << 38))
def test_a_plan_fits_its_memory_and_one_full_sequence_or_the_error_tells_what_would(
    options: dict[str, Any], model: ModelFacts, free: int
) -> None:
    if "max_model_len" in options:
        options["max_model_len"] = min(options["max_model_len"], model.max_position)
    try:
        plan = resolve(EngineConfig(**options), model, machine(free))
    except DoesNotFitError as error:
        for change in options_of(error.fix):
            resolve(EngineConfig(**options | change), model, machine(free))
        return
    assert total(plan) <= free
    assert 1 <= plan.max_model_len <= model.max_position
    assert plan.kv_tokens >= plan.max_model_len
    assert {"dtype", "num_blocks", "max_model_len", "num_threads"} <= plan.reasons.keys()


def test_the_share_of_memory_bounds_the_plan() -> None:
    half = resolve(EngineConfig(gpu_memory_utilization=0.25), LLAMA_7B_AWQ, machine(32 * GIB))
    assert total(half) <= 16 * GIB
    with pytest.raises(DoesNotFitError, match=r"free memory is .* MiB"):
        resolve(EngineConfig(gpu_memory_utilization=0.01), LLAMA_7B_AWQ, machine(8 * GIB))


AWQ_HEADS: list[tuple[dict[str, Any], bool, str, str]] = [
    ({}, True, "bfloat16", "int8"),
    ({"kernels": "avx2"}, True, "bfloat16", "int8"),
    ({"kernels": "torch"}, True, "float32", "full"),
    ({"dtype": "float32"}, True, "float32", "full"),
    ({"lm_head": "full"}, True, "bfloat16", "full"),
    ({"lm_head": "int8"}, False, "float32", "int8"),
    ({}, False, "float32", "full"),
]
INTEGER_MACHINE = machine(16 * GIB, fast_bfloat16=False, native_kernels=True)


@pytest.mark.parametrize(("options", "native", "dtype", "lm_head"), AWQ_HEADS)
def test_integer_kernels_bring_bfloat16_and_an_int8_head_to_4_bit_models(
    options: dict[str, Any], native: bool, dtype: str, lm_head: str
) -> None:
    hardware = machine(16 * GIB, fast_bfloat16=False, native_kernels=native)
    plan = resolve(EngineConfig(**options), LLAMA_7B_AWQ, hardware)
    assert (plan.dtype, plan.lm_head) == (dtype, lm_head)
    assert plan.reasons["lm_head"]


def test_layers_that_integer_kernels_do_not_take_bring_neither() -> None:
    odd = replace(LLAMA_7B_AWQ, integer_layers=False)
    plan = resolve(EngineConfig(), odd, INTEGER_MACHINE)
    assert (plan.dtype, plan.lm_head) == ("float32", "full")
    assert resolve(EngineConfig(dtype="bfloat16"), odd, INTEGER_MACHINE).lm_head == "full"


def test_the_reason_of_an_int8_head_names_what_it_saves_and_the_exact_way() -> None:
    reason = resolve(EngineConfig(), LLAMA_7B_AWQ, INTEGER_MACHINE).reasons["lm_head"]
    assert reason == "half the bytes that a step reads for it; --lm-head full is more exact"


@pytest.mark.parametrize("asked", ["auto", "int8", "full"])
def test_a_head_that_is_4_bit_already_stays_so_and_counts_once(asked: Any) -> None:
    plan = resolve(EngineConfig(lm_head=asked), replace(LLAMA_7B_AWQ, dense_head=False), INTEGER_MACHINE)
    assert (plan.lm_head, plan.reasons["lm_head"]) == ("full", "it is 4-bit already")
    assert plan.weight_bytes == LLAMA_7B_AWQ.weight_bytes("bfloat16")


def test_a_4_bit_head_has_no_int8_form_to_count() -> None:
    model = replace(LLAMA_7B_AWQ, dense_head=False)
    assert model.weight_bytes("bfloat16", "int8") == model.weight_bytes("bfloat16")


def test_dense_models_keep_their_head() -> None:
    plan = resolve(EngineConfig(dtype="bfloat16"), TINY, machine(GIB, native_kernels=True))
    assert plan.lm_head == "full"


@pytest.mark.parametrize(
    ("tied", "saved"), [(False, 32000 * (4096 * 2 - 4096 - 4)), (True, -32000 * (4096 + 4))]
)
def test_the_bytes_of_an_int8_head_are_counted(tied: bool, saved: int) -> None:
    """A tied one is a copy beside the embedding."""
    model = replace(LLAMA_7B_AWQ, tied=tied)
    assert model.weight_bytes("bfloat16") - model.weight_bytes("bfloat16", "int8") == saved
