"""The configuration's values: human numbers, ranges, and the nearest name for what is unknown."""

import re
from typing import Any

import pytest

from llmcli.config import GIB, MIB, EngineConfig, human_bytes, parse_number
from llmcli.errors import UsageError

NUMBERS: list[tuple[str, int]] = [
    ("4096", 4096),
    ("0", 0),
    ("8k", 8000),
    ("8K", 8192),
    ("1.5G", 3 << 29),
    ("1.5g", 1_500_000_000),
    ("512MiB", 512 << 20),
    ("2GB", 2_000_000_000),
    ("2GiB", 2 << 30),
    ("64KB", 64_000),
    ("64kB", 64_000),
    ("3m", 3_000_000),
    ("1.001k", 1001),
    ("1.1G", 1_181_116_006),
    (" 10_000 ", 10_000),
    ("1,024", 1024),
    ("4.0", 4),
    ("9007199254740993", 9007199254740993),
    ("9223372036854775807", 2**63 - 1),
]


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_a_human_number_is_exact(text: str, value: int) -> None:
    assert parse_number(text) == value


NO_WHOLE = [
    "",
    " ",
    "k",
    "B",
    "abc",
    "-1",
    "+1",
    "1.5",
    ".5",
    "1.",
    "1.2.3",
    "1/2",
    "1e3",
    "nan",
    "inf",
    "0x10",
]
NO_UNIT = ["8kk", "8 k", "8T", "8Ki", "8iB", "٣", "1\n2"]
TOO_LARGE = ["9223372036854775808", "9" * 5000, "9" * 30 + "G"]


@pytest.mark.parametrize("text", NO_WHOLE + NO_UNIT + TOO_LARGE)
def test_garbage_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_number(text)


SIZES: list[tuple[float, str]] = [
    (0, "0 B"),
    (1023, "1023 B"),
    (1024, "1.0 KiB"),
    (1536, "1.5 KiB"),
    (100 * 1024, "100 KiB"),
    (770 * MIB, "770 MiB"),
    (3.5 * GIB, "3.5 GiB"),
    (140 * GIB, "140 GiB"),
    (5000 * GIB, "5000 GiB"),
    (-2048, "-2.0 KiB"),
]


@pytest.mark.parametrize(("count", "text"), SIZES)
def test_bytes_are_shown_in_binary_units(count: float, text: str) -> None:
    assert human_bytes(count) == text


WRONG: list[tuple[str, Any, str]] = [
    ("dtype", "int8", "auto, float32, bfloat16, float16, got int8"),
    ("dtype", ["float32"], "--dtype must be"),
    ("dtype", None, "--dtype must be"),
    ("device", "tpu", "--device must be auto, cuda or cpu, got tpu"),
    ("kernels", ["triton"], "--kernels must be the name of a kernel set"),
    ("block_size", 0, "--block-size must be one of 4, 8, 16, 32, 64, 128, got 0"),
    ("block_size", 7, "got 7"),
    ("block_size", 16.0, "got 16.0"),
    ("block_size", "16", "--block-size"),
    ("max_model_len", 0, "--max-model-len must be a positive integer, got 0"),
    ("max_model_len", -1, "got -1"),
    ("max_model_len", True, "got True"),
    ("max_model_len", 1e9, "got 1000000000.0"),
    ("max_num_seqs", 0, "--max-num-seqs"),
    ("max_num_seqs", None, "--max-num-seqs"),
    ("max_num_batched_tokens", 0, "--max-num-batched-tokens"),
    ("num_threads", 0, "--threads must be a positive integer, got 0"),
    ("num_threads", 1025, "--threads must be in 1..1024, got 1025"),
    ("kv_cache_dtype", "int4", "--kv-cache-dtype must be auto, int8 or fp8, got int4"),
    ("kv_cache_dtype", "float16", "got float16"),
    ("kv_cache_dtype", ["int8"], "--kv-cache-dtype must be"),
    ("lm_head", "int4", "--lm-head must be auto, int8 or full, got int4"),
    ("kv_cache_memory", "1G", "--kv-cache-memory must be a positive integer, got 1G"),
    ("gpu_memory_utilization", 0, "above 0 and at most 1, got 0"),
    ("gpu_memory_utilization", 1.01, "got 1.01"),
    ("gpu_memory_utilization", float("nan"), "got nan"),
    ("gpu_memory_utilization", "0.9", "--gpu-memory-utilization"),
    ("enable_prefix_caching", "no", "enable_prefix_caching must be true or false, got no"),
    ("seed", -1, "seed must be an integer in 0..9223372036854775807, got -1"),
    ("seed", 2**64, "seed must be"),
    ("seed", 1.5, "seed must be"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_an_option_out_of_range_is_refused_with_value_and_range(name: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        EngineConfig(**{name: value})
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("max_model_length", "did you mean max_model_len?"),
        ("dtyp", "did you mean dtype?"),
        ("zzz", "known options: "),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_name(name: str, fix: str) -> None:
    with pytest.raises(UsageError, match=f"unknown engine option {name}") as caught:
        EngineConfig.from_mapping({"block_size": 16, name: 1})
    assert fix in caught.value.fix
