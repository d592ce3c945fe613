"""`resolve` on machines with a GPU: what runs there, what does not and why, and what an error tells to do."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcli.config import GIB, MIB, EngineConfig, HardwareFacts, ModelFacts
from llmcli.errors import DeviceUnavailableError, DoesNotFitError, UsageError
from llmcli.gpu_facts import GpuFacts, NoGpu
from llmcli.plan import GPU_LIBRARY_BYTES, resolve
from tests.test_plan import LLAMA_7B_AWQ, MODELS, OPTIONS, TINY, options_of, total

H200 = GpuFacts(
    name="NVIDIA H200", capability=(9, 0), total_memory=140 * GIB, free_memory=139 * GIB, num_sms=132
)
NOT_BUILT = NoGpu("torch 2.9.0+cpu is built without CUDA", "install a build with CUDA", present=True)
ABSENT = NoGpu("no NVIDIA driver was found")
LLAMA_7B = replace(LLAMA_7B_AWQ, dense_parameters=7_000_000_000, quantized_bytes=0)


def machine(gpu: GpuFacts | NoGpu, free: int = 64 * GIB) -> HardwareFacts:
    return HardwareFacts(
        total_memory=2 * free,
        free_memory=free,
        num_cores=8,
        fast_bfloat16=False,
        native_kernels=False,
        gpu=gpu,
    )


def gpu_with(free: int) -> GpuFacts:
    """One with so much to give: the 8% that stay free come on top."""
    return replace(H200, total_memory=2 * free, free_memory=free + int(2 * free * (1 - 0.92)))


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_model_that_fits_runs_on_the_gpu_with_the_triton_kernels(device: Any) -> None:
    plan = resolve(EngineConfig(device=device), LLAMA_7B_AWQ, machine(H200))
    assert (plan.device, plan.kernels, plan.dtype) == ("cuda", "triton", "float16")
    assert plan.reasons["device"] == "NVIDIA H200"


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("eager", [True, False])
def test_on_a_gpu_steps_go_ahead_and_run_as_graphs_unless_told_otherwise(ahead: bool, eager: bool) -> None:
    config = EngineConfig(async_scheduling=ahead, enforce_eager=eager)
    plan = resolve(config, LLAMA_7B_AWQ, machine(H200))
    assert (plan.async_scheduling, plan.cuda_graphs) == (ahead, not eager)
    on_cpu = resolve(replace(config, device="cpu"), LLAMA_7B_AWQ, machine(H200))
    assert (on_cpu.async_scheduling, on_cpu.cuda_graphs) == (False, False)


def test_graphs_take_memory_of_their_own() -> None:
    with_graphs, eager = (
        resolve(EngineConfig(enforce_eager=eager), LLAMA_7B_AWQ, machine(H200)) for eager in (False, True)
    )
    assert with_graphs.workspace_bytes > eager.workspace_bytes


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_measured_workspace_takes_the_place_of_the_estimate(device: Any) -> None:
    config = EngineConfig(device=device, max_num_seqs=10_000, kv_cache_memory=None)
    hardware = machine(gpu_with(10 * GIB), free=10 * GIB)
    estimated = resolve(config, LLAMA_7B_AWQ, hardware)
    smaller = resolve(config, LLAMA_7B_AWQ, hardware, estimated.workspace_bytes - 100 * MIB)
    assert smaller.workspace_bytes == estimated.workspace_bytes - 100 * MIB
    assert smaller.num_blocks > estimated.num_blocks
    assert resolve(config, LLAMA_7B_AWQ, hardware, estimated.workspace_bytes) == estimated
    with pytest.raises(DoesNotFitError, match=r"workspace 10\.0 GiB of 10\.0 GiB free"):
        resolve(config, LLAMA_7B_AWQ, hardware, 10 * GIB)


def test_a_workspace_that_leaves_too_little_context_is_refused_where_auto_chose_the_gpu() -> None:
    hardware = machine(gpu_with(10 * GIB))
    plan = resolve(EngineConfig(), LLAMA_7B_AWQ, hardware)
    for tokens, fits in ((3000, True), (1000, False)):
        workspace = 10 * GIB - plan.weight_bytes - tokens * plan.kv_bytes_per_token
        if fits:
            assert resolve(EngineConfig(), LLAMA_7B_AWQ, hardware, workspace).max_model_len > 2048
        else:
            with pytest.raises(DoesNotFitError, match="2,048 tokens need"):
                resolve(EngineConfig(), LLAMA_7B_AWQ, hardware, workspace)


def test_only_the_triton_kernels_are_captured() -> None:
    assert not resolve(EngineConfig(kernels="reference"), LLAMA_7B_AWQ, machine(H200)).cuda_graphs


def test_the_first_of_several_gpus_is_taken_and_named() -> None:
    plan = resolve(EngineConfig(), LLAMA_7B_AWQ, machine(replace(H200, count=4)))
    assert plan.reasons["device"] == "NVIDIA H200, the first of 4 GPUs"


def test_the_cpu_can_be_asked_for() -> None:
    plan = resolve(EngineConfig(device="cpu"), LLAMA_7B_AWQ, machine(H200))
    assert (plan.device, plan.kernels, plan.reasons["device"]) == ("cpu", "cpu", "--device")


@pytest.mark.parametrize(
    ("kernels", "device"), [("cpu", "cpu"), ("torch", "cpu"), ("triton", "cuda"), ("reference", "cuda")]
)
def test_a_kernel_set_goes_where_it_runs(kernels: str, device: str) -> None:
    plan = resolve(EngineConfig(kernels=kernels), LLAMA_7B_AWQ, machine(H200))
    assert (plan.device, plan.kernels) == (device, kernels)


@pytest.mark.parametrize("gpu", [NOT_BUILT, ABSENT], ids=["not usable", "absent"])
def test_without_a_gpu_auto_is_the_cpu_and_says_why(gpu: NoGpu) -> None:
    plan = resolve(EngineConfig(), LLAMA_7B_AWQ, machine(gpu))
    assert (plan.device, plan.reasons["device"]) == ("cpu", gpu.reason)


def test_a_gpu_asked_for_that_can_not_be_used_is_an_error_with_reason_and_fix() -> None:
    with pytest.raises(DeviceUnavailableError) as caught:
        resolve(EngineConfig(device="cuda"), LLAMA_7B_AWQ, machine(NOT_BUILT))
    assert caught.value.what == "--device cuda: torch 2.9.0+cpu is built without CUDA"
    assert caught.value.fix == "install a build with CUDA; or use --device cpu"
    with pytest.raises(DeviceUnavailableError, match="--device cuda: no NVIDIA driver was found") as caught:
        resolve(EngineConfig(device="cuda"), LLAMA_7B_AWQ, machine(ABSENT))
    assert (caught.value.fix, caught.value.exit_code) == ("use --device cpu", 2)


def test_the_triton_kernels_asked_for_without_a_gpu_are_an_error() -> None:
    with pytest.raises(
        DeviceUnavailableError, match="--kernels triton: no NVIDIA driver was found"
    ) as caught:
        resolve(EngineConfig(kernels="triton"), LLAMA_7B_AWQ, machine(ABSENT))
    assert caught.value.fix.endswith("leave out --kernels")


def test_kernels_of_another_device_are_refused() -> None:
    with pytest.raises(UsageError, match="--kernels torch run on the device cpu, not on --device cuda"):
        EngineConfig(device="cuda", kernels="torch")


def test_what_other_programs_take_of_a_gpu_is_not_taken_from_what_stays_free() -> None:
    gpu = replace(H200, total_memory=8 * GIB, free_memory=7 * GIB)
    plan = resolve(EngineConfig(device="cuda"), TINY, machine(gpu))
    assert plan.weight_bytes + plan.workspace_bytes + plan.kv_bytes <= 7 * GIB - int(8 * GIB * 0.08)


def test_a_model_too_large_for_the_gpu_runs_on_the_cpu_and_says_both_numbers() -> None:
    plan = resolve(EngineConfig(), LLAMA_7B, machine(gpu_with(8 * GIB)))
    assert plan.device == "cpu"
    assert re.fullmatch(r"the GPU has 8\.0 GiB free, the model needs 13\.\d GiB", plan.reasons["device"])


def test_a_model_too_large_for_the_gpu_that_was_asked_for_is_an_error() -> None:
    with pytest.raises(
        DoesNotFitError, match=r"the GPU has 8\.0 GiB free, the model needs 13\.\d GiB"
    ) as caught:
        resolve(EngineConfig(device="cuda"), LLAMA_7B, machine(gpu_with(8 * GIB)))
    assert caught.value.exit_code == 5
    assert "--device cpu" in caught.value.fix


def test_auto_leaves_a_gpu_that_has_room_for_no_useful_context() -> None:
    hardware = machine(gpu_with(5 * GIB))
    plan = resolve(EngineConfig(), LLAMA_7B_AWQ, hardware)
    assert plan.device == "cpu"
    assert "the KV cache does not fit on the GPU: 2,048 tokens need 1.0 GiB" in plan.reasons["device"]
    assert resolve(EngineConfig(device="cuda"), LLAMA_7B_AWQ, hardware).max_model_len >= 512
    assert resolve(EngineConfig(max_model_len=512), LLAMA_7B_AWQ, hardware).device == "cuda"


def test_a_model_that_fits_nowhere_is_refused_with_both_reasons() -> None:
    with pytest.raises(DoesNotFitError, match="the model does not fit: it needs") as caught:
        resolve(EngineConfig(), LLAMA_7B, machine(gpu_with(8 * GIB), free=4 * GIB))
    assert "the GPU has 8.0 GiB free" in caught.value.why


def test_a_context_beyond_the_models_is_a_usage_error_on_a_gpu_too() -> None:
    with pytest.raises(UsageError, match="beyond the model's 4096 positions"):
        resolve(EngineConfig(max_model_len=5000), LLAMA_7B_AWQ, machine(H200))


@pytest.mark.parametrize(
    ("stored", "dtype", "reason"),
    [
        ("float16", "float16", "the checkpoint's"),
        ("bfloat16", "bfloat16", "the checkpoint's"),
        ("float32", "bfloat16", "16 bits with the range of the checkpoint's float32"),
    ],
)
def test_the_dtype_on_a_gpu_is_the_checkpoints_in_16_bits(stored: str, dtype: str, reason: str) -> None:
    plan = resolve(EngineConfig(), replace(TINY, checkpoint_dtype=stored), machine(H200))
    assert (plan.dtype, plan.reasons["dtype"]) == (dtype, reason)


def test_float32_can_be_asked_for_on_a_gpu() -> None:
    assert resolve(EngineConfig(dtype="float32"), TINY, machine(H200)).dtype == "float32"


def test_the_cache_takes_all_that_a_gpu_has_left_within_the_share() -> None:
    plan = resolve(EngineConfig(gpu_memory_utilization=0.5), LLAMA_7B_AWQ, machine(H200))
    block = plan.block_size * plan.kv_bytes_per_token
    assert 69 * GIB - block < total(plan) <= 69 * GIB  # half of 140 stays free, of the 139 that are


def test_the_cache_takes_no_more_of_a_gpu_than_its_sequences_can_use() -> None:
    plan = resolve(EngineConfig(max_num_seqs=2), LLAMA_7B_AWQ, machine(H200))
    assert plan.kv_tokens == 2 * (4096 + plan.block_size)


@pytest.mark.parametrize(("largest", "panel"), [(0, 0), (4096 * 4096, 32 * MIB), (22016 * 4096, 128 * MIB)])
def test_the_workspace_of_a_gpu_holds_dequantised_weights_and_the_libraries(largest: int, panel: int) -> None:
    model = replace(LLAMA_7B_AWQ, largest_int4=largest)
    on_gpu = resolve(EngineConfig(enforce_eager=True), model, machine(H200)).workspace_bytes
    on_cpu = resolve(EngineConfig(device="cpu"), model, machine(H200)).workspace_bytes
    assert on_gpu - on_cpu == panel + GPU_LIBRARY_BYTES


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_an_int8_head_is_refused_on_a_gpu_with_the_reason_and_what_to_type(device: Any) -> None:
    with pytest.raises(UsageError, match=r"--lm-head int8 is for CPUs: .* expand the whole head") as caught:
        resolve(EngineConfig(device=device, lm_head="int8"), LLAMA_7B_AWQ, machine(H200))
    assert caught.value.fix == "leave out --lm-head, or use --device cpu"
    on_cpu = EngineConfig(device="cpu", lm_head="int8")
    assert resolve(on_cpu, LLAMA_7B_AWQ, machine(H200)).lm_head == "int8"


@given(options=OPTIONS, model=MODELS, free=st.integers(0, 1 << 38))
def test_a_plan_for_a_gpu_fits_it_or_the_error_tells_what_would(
    options: dict[str, Any], model: ModelFacts, free: int
) -> None:
    options = options | {"lm_head": "auto"}  # an int8 one is refused
    if "max_model_len" in options:
        options["max_model_len"] = min(options["max_model_len"], model.max_position)
    try:
        plan = resolve(EngineConfig(device="cuda", **options), model, machine(gpu_with(free)))
    except DoesNotFitError as error:
        for change in options_of(error.fix):
            resolve(EngineConfig(device="cuda", **options | change), model, machine(gpu_with(free)))
        return
    assert plan.device == "cuda"
    assert total(plan) <= free
    assert 1 <= plan.max_model_len <= min(model.max_position, plan.kv_tokens)


@pytest.mark.parametrize(
    ("value", "fix"),
    [
        ("gpu", "did you mean cuda?"),
        ("cudda", "did you mean cuda?"),
        ("CPU", "did you mean cpu?"),
        ("cuda:1", "use --device cuda; CUDA_VISIBLE_DEVICES=1 chooses the GPU"),
        ("tpu!!!!!!", ""),
        (None, ""),
    ],
)
def test_a_wrong_device_is_refused_with_the_nearest(value: Any, fix: str) -> None:
    with pytest.raises(UsageError, match="--device must be auto, cuda or cpu, got ") as caught:
        EngineConfig(device=value)
    assert caught.value.fix == fix
