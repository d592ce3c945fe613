"""The verdict: what fits as it is, what would make it fit; every promise is kept by `resolve` itself."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcli.config import GIB, EngineConfig, HardwareFacts, ModelFacts
from llmcli.errors import DeviceUnavailableError, DoesNotFitError, UsageError
from llmcli.fit import Fit, judge, remedies, resolve_or_explain, verdict
from llmcli.gpu_facts import GpuFacts, NoGpu
from llmcli.plan import resolve
from tests.test_plan import LLAMA_7B_AWQ, MODELS, TINY

LLAMA_7B = replace(LLAMA_7B_AWQ, dense_parameters=6_700_000_000, quantized_bytes=0)
NO_GPU = NoGpu("no NVIDIA driver was found")


def machine(free: int, gpu: GpuFacts | NoGpu = NO_GPU, *, fast_bfloat16: bool = True) -> HardwareFacts:
    return HardwareFacts(
        total_memory=2 * free,
        free_memory=free,
        num_cores=4,
        fast_bfloat16=fast_bfloat16,
        native_kernels=False,
        gpu=gpu,
    )


def gpu_of(free: int) -> GpuFacts:
    return GpuFacts(name="GPU", capability=(9, 0), total_memory=2 * free, free_memory=free, num_sms=100)


def options_of(typed: str) -> dict[str, Any]:
    """`--kv-cache-dtype int8 --max-model-len 96` as engine options."""
    pairs = re.findall(r"--([a-z-]+) (\S+)", typed)
    values = {name.replace("-", "_"): int(value) if value.isdigit() else value for name, value in pairs}
    assert typed.split() == [word for name, value in pairs for word in (f"--{name}", value)]
    return values


def test_a_model_that_fits_whole_takes_one_line_and_needs_no_help() -> None:
    fit = judge(EngineConfig(), LLAMA_7B_AWQ, machine(32 * GIB))
    [line] = verdict(fit)
    assert line.startswith("fits here on the CPU: weights ")
    assert " of 32.0 GiB free; context 4,096 tokens, " in line
    assert remedies(fit) == []
    assert [way.options for way in fit.ways] == [""]


def test_a_context_cut_short_is_told_with_what_would_hold_more() -> None:
    fit = judge(EngineConfig(), LLAMA_7B_AWQ, machine(6 * GIB))
    plan = resolve(EngineConfig(), LLAMA_7B_AWQ, machine(6 * GIB))
    first, second = verdict(fit)
    assert first.startswith("fits here on the CPU, with a shorter context: ")
    assert f"context {plan.max_model_len:,} of 4,096 tokens, 1 such sequence at once" in first
    more = resolve(EngineConfig(kv_cache_dtype="int8"), LLAMA_7B_AWQ, machine(6 * GIB)).max_model_len
    assert more > plan.max_model_len
    assert second == f"what would help: --kv-cache-dtype int8 gives {more:,} tokens"


def test_where_16_bits_are_slow_but_would_fit_the_dtype_is_named() -> None:
    fit = judge(EngineConfig(), LLAMA_7B, machine(20 * GIB, fast_bfloat16=False))
    assert fit.plan is None
    assert "does not fit here: the model does not fit: it needs " in verdict(fit)[0]
    assert remedies(fit)[0] == "--dtype bfloat16 gives 4,096 tokens"


def test_where_only_a_quantized_copy_fits_its_size_is_told() -> None:
    fit = judge(EngineConfig(), LLAMA_7B, machine(8 * GIB))
    assert fit.plan is None
    assert fit.awq_bytes == pytest.approx(LLAMA_7B_AWQ.weight_bytes("bfloat16"), rel=0.1)
    assert remedies(fit) == ["an AWQ (4-bit) copy would fit, with weights of about 3.6 GiB"]


def test_where_nothing_fits_no_help_is_promised() -> None:
    fit = judge(EngineConfig(), LLAMA_7B, machine(GIB))
    assert verdict(fit)[1:] == []
    assert all(way.error is not None for way in fit.ways)
    assert fit.ways[0].plan.weight_bytes == LLAMA_7B.weight_bytes("bfloat16")


def test_a_length_that_was_asked_for_and_does_not_fit_names_the_one_that_does() -> None:
    config = EngineConfig(max_model_len=4096)
    fit = judge(config, LLAMA_7B_AWQ, machine(6 * GIB))
    assert fit.plan is None
    found = re.match(r"--max-model-len (\d+) gives ([\d,]+) tokens", remedies(fit)[0])
    assert found is not None
    longest = resolve(EngineConfig(), LLAMA_7B_AWQ, machine(6 * GIB)).max_model_len
    assert int(found[1]) == longest


def test_an_error_about_memory_names_the_options_that_do_fit() -> None:
    hardware = machine(20 * GIB, fast_bfloat16=False)
    with pytest.raises(DoesNotFitError, match="the model does not fit: it needs ") as caught:
        resolve_or_explain(EngineConfig(), LLAMA_7B, hardware)
    assert caught.value.fix.startswith("--dtype bfloat16 gives 4,096 tokens; an AWQ (4-bit) copy would fit")
    assert resolve_or_explain(EngineConfig(dtype="bfloat16"), LLAMA_7B, hardware).max_model_len == 4096


def test_both_devices_are_told_where_there_is_a_gpu() -> None:
    fit = judge(EngineConfig(), LLAMA_7B_AWQ, machine(32 * GIB, gpu_of(40 * GIB)))
    assert [(way.plan.device, way.options) for way in fit.ways] == [("cuda", ""), ("cpu", "--device cpu")]
    assert verdict(fit)[0].startswith("fits here on the GPU: ")


def test_a_gpu_that_is_too_small_leaves_the_cpu_as_it_is_and_names_what_it_could_do() -> None:
    fit = judge(EngineConfig(), LLAMA_7B_AWQ, machine(32 * GIB, gpu_of(5 * GIB)))
    assert fit.plan is not None
    assert fit.plan.device == "cpu"
    by_device = {way.plan.device: way.options for way in reversed(fit.ways)}
    assert by_device["cpu"] == ""
    assert by_device["cuda"].startswith("--device cuda")


def test_only_the_device_that_was_asked_for_is_told() -> None:
    fit = judge(EngineConfig(device="cpu"), LLAMA_7B_AWQ, machine(32 * GIB, gpu_of(40 * GIB)))
    assert {way.plan.device for way in fit.ways} == {"cpu"}
    with pytest.raises(DeviceUnavailableError):
        judge(EngineConfig(device="cuda"), LLAMA_7B_AWQ, machine(32 * GIB))


def test_a_context_beyond_the_models_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="beyond the model's 100 positions"):
        judge(EngineConfig(max_model_len=101), TINY, machine(GIB))


@given(
    model=MODELS,
    free=st.integers(1, 1 << 37),
    gpu=st.one_of(st.none(), st.integers(1, 1 << 37)),
    length=st.one_of(st.none(), st.integers(1, 100_000)),
    fast=st.booleans(),
)
def test_every_way_that_is_offered_holds_the_tokens_that_it_promises(
    model: ModelFacts, free: int, gpu: int | None, length: int | None, fast: bool
) -> None:
    config = EngineConfig(max_model_len=None if length is None else min(length, model.max_position))
    hardware = machine(free, NO_GPU if gpu is None else gpu_of(gpu), fast_bfloat16=fast)
    fit: Fit = judge(config, model, hardware)
    for way in fit.better:
        plan = resolve(replace(config, **options_of(way.options)), model, hardware)
        assert plan.max_model_len == way.context
        assert plan.device == way.plan.device
        assert way.context > (fit.plan.max_model_len if fit.plan else 0)
    assert verdict(fit)
