"""`resolve`: from what was asked for, a model and a machine to a plan with every value in force.

It is pure: it turns every "auto" into a value and keeps the reason for each, so that `show`, `bench` and an error
about memory all print the same sum. Knows no torch and reads no file; `engine/build.py` and `show` gather the facts.
"""

from dataclasses import dataclass, replace

from llmcli.config import (
    DTYPES,
    GIB,
    KV_DTYPES,
    MIB,
    NATIVE_KERNELS,
    EngineConfig,
    HardwareFacts,
    ModelFacts,
    ResolvedConfig,
    human_bytes,
)
from llmcli.errors import DeviceUnavailableError, DoesNotFitError, UsageError
from llmcli.gpu_facts import GpuFacts, NoGpu

KV_SCALE_BYTES = 4
AUTO_CPU_KV_SHARE = 0.5  # of the memory that is free once the weights are in: a laptop has other work to do
AUTO_KV_SEQUENCES = 16  # auto takes no more than this many sequences of the full length ...
AUTO_KV_BYTES = 4 * GIB  # ... or this much, whichever is more
USEFUL_GPU_CONTEXT = 2048  # tokens; a GPU with room for less is not chosen by auto
GPU_LIBRARY_BYTES = 256 * MIB  # cuBLAS, compiled kernels, and what the allocator rounds up
GPU_PANEL_BYTES = 128 * MIB  # int4 weights that the kernels dequantise at once, for long prompts
ONE_THREAD_WEIGHTS = 32 * MIB  # below this, threads wait for each other longer than they work
FULL_LENGTH_MARGIN_BLOCKS = 1


def kv_bytes_per_token(model: ModelFacts, dtype: str) -> int:
    """Bytes of keys and values of one position over all layers, scales included.

    Args:
        dtype: of the cache: one of DTYPES or KV_DTYPES.
    """
    entry = model.head_dim + KV_SCALE_BYTES if dtype in KV_DTYPES else model.head_dim * DTYPES[dtype]
    return 2 * model.num_layers * model.num_kv_heads * entry


def free_memory(config: EngineConfig, hardware: HardwareFacts) -> int:
    """Bytes that the engine may take on the device of `config`, which is "cuda" or "cpu"."""
    if config.wanted_device == "cuda" and isinstance(hardware.gpu, GpuFacts):
        return _cuda(config, hardware.gpu).free
    return _cpu(config, hardware).free


def resolve(
    config: EngineConfig, model: ModelFacts, hardware: HardwareFacts, workspace: int | None = None
) -> ResolvedConfig:
    """Turn every auto into a value.

    Args:
        workspace: bytes that steps were measured to take on the device that was chosen, in the place of an estimate:
            that device it is then.

    Raises:
        DoesNotFitError: weights, workspace and the KV cache of one sequence need more memory than there is.
        DeviceUnavailableError: the GPU was asked for and can not be used.
        UsageError: max_model_len is beyond what the model was made for; or an int8 output head is asked for on a GPU.
    """
    if config.max_model_len is not None and config.max_model_len > model.max_position:
        raise UsageError(
            f"--max-model-len {config.max_model_len} is beyond the model's {model.max_position} positions",
            fix=f"use --max-model-len {model.max_position} or less",
        )
    gpu, wanted = hardware.gpu, config.wanted_device
    option = "--device" if config.device == wanted else "--kernels"
    if wanted == "cpu":
        return _plan(config, model, hardware, _cpu(config, hardware), option, workspace)
    if isinstance(gpu, NoGpu):
        if wanted == "cuda":
            instead = "use --device cpu" if option == "--device" else "leave out --kernels"
            raise DeviceUnavailableError(
                f"{option} {getattr(config, option[2:])}: {gpu.reason}",
                fix="; or ".join(filter(None, (gpu.fix, instead))),
            )
        return _plan(config, model, hardware, _cpu(config, hardware), gpu.reason)
    place = _cuda(config, gpu)
    if wanted == "auto":
        place = replace(place, least_len=USEFUL_GPU_CONTEXT)
    if wanted == "cuda" or workspace is not None:
        return _plan(config, model, hardware, place, gpu.describe(), workspace)
    try:
        return _plan(config, model, hardware, place, gpu.describe())
    except DoesNotFitError as on_gpu:
        return _plan_instead(config, model, hardware, on_gpu)


def _plan_instead(
    config: EngineConfig, model: ModelFacts, hardware: HardwareFacts, on_gpu: DoesNotFitError
) -> ResolvedConfig:
    """On the CPU, because of an error."""
    try:
        return _plan(config, model, hardware, _cpu(config, hardware), on_gpu.what)
    except DoesNotFitError as on_cpu:
        raise DoesNotFitError(on_cpu.what, why=f"{on_cpu.why}; {on_gpu.what}", fix=on_cpu.fix) from None


@dataclass(frozen=True, slots=True)
class _Place:
    """A device as a plan sees it.

    Attributes:
        free: bytes to use at most, before the model comes.
        kv_share: of what is left then, for the KV cache.
        least_len: the shortest context, in tokens, that is worth running with.
        shown: " on the GPU", or nothing: for messages.
    """

    device: str
    free: int
    kv_share: float
    least_len: int
    shown: str
    gpu: GpuFacts | None = None


def _cpu(config: EngineConfig, hardware: HardwareFacts) -> _Place:
    free = min(hardware.free_memory, int(hardware.total_memory * config.gpu_memory_utilization))
    return _Place("cpu", free, AUTO_CPU_KV_SHARE, 2 * config.block_size, "")


def _cuda(config: EngineConfig, gpu: GpuFacts) -> _Place:
    # The share that stays free is kept off what other programs leave, too: nothing swaps on a GPU.
    spared = int(gpu.total_memory * (1 - config.gpu_memory_utilization))
    free = max(gpu.free_memory - spared, 0)
    return _Place("cuda", free, 1.0, 2 * config.block_size, " on the GPU", gpu)


def _plan(
    config: EngineConfig,
    model: ModelFacts,
    hardware: HardwareFacts,
    place: _Place,
    why_there: str,
    workspace: int | None = None,
) -> ResolvedConfig:
    """All values for running in one place.

    Raises:
        DoesNotFitError: see `resolve`.
    """
    reasons = {"device": why_there}
    dtype = _resolve_dtype(config, model, hardware, place, reasons)
    kv_cache_dtype = dtype if config.kv_cache_dtype == "auto" else config.kv_cache_dtype
    reasons["kv_cache_dtype"] = "that of the activations" if config.kv_cache_dtype == "auto" else "option"
    own_kernels = {"cuda": "triton", "cpu": "cpu"}[place.device]
    kernels = own_kernels if config.kernels == "auto" else config.kernels
    lm_head = _resolve_lm_head(config, model, hardware, place, dtype, reasons)
    per_token = kv_bytes_per_token(model, kv_cache_dtype)
    memory = _Memory(
        place=place,
        weights=model.weight_bytes(dtype, lm_head),
        workspace=_workspace_bytes(config, model, place, dtype) if workspace is None else workspace,
        block=config.block_size * per_token,
    )
    num_blocks = _kv_budget(config, model, memory, reasons) // memory.block
    max_model_len = _resolve_max_model_len(config, model, memory, num_blocks, reasons)
    num_threads = _resolve_threads(config, memory.weights, hardware, reasons)
    return ResolvedConfig(
        dtype=dtype,
        device=place.device,
        kernels=kernels,
        kv_cache_dtype=kv_cache_dtype,
        lm_head=lm_head,
        max_model_len=max_model_len,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        block_size=config.block_size,
        num_blocks=num_blocks,
        enable_prefix_caching=config.enable_prefix_caching,
        num_threads=num_threads,
        seed=config.seed,
        weight_bytes=memory.weights,
        workspace_bytes=memory.workspace,
        kv_bytes_per_token=per_token,
        reasons=reasons,
        gpu=place.gpu,
        async_scheduling=place.device == "cuda" and config.async_scheduling,
        cuda_graphs=kernels == "triton" and not config.enforce_eager,
    )


@dataclass(frozen=True, slots=True)
class _Memory:
    """Where a model goes, and the bytes that it takes; `block` is one block of the KV cache."""

    place: _Place
    weights: int
    workspace: int
    block: int

    @property
    def left(self) -> int:
        """For the KV cache."""
        return self.place.free - self.weights - self.workspace

    def taken(self) -> str:
        weights, workspace = human_bytes(self.weights), human_bytes(self.workspace)
        return f"weights {weights} + workspace {workspace} of {human_bytes(self.place.free)} free{self.place.shown}"


def _resolve_dtype(
    config: EngineConfig, model: ModelFacts, hardware: HardwareFacts, place: _Place, reasons: dict[str, str]
) -> str:
    if config.dtype != "auto":
        reasons["dtype"] = "option"
        return config.dtype
    if place.device == "cuda":
        # float16 is finer, but what was trained in float32 may be beyond its range
        narrowed = model.checkpoint_dtype == "float32"
        reasons["dtype"] = (
            "16 bits with the range of the checkpoint's float32" if narrowed else "the checkpoint's"
        )
        return "bfloat16" if narrowed else model.checkpoint_dtype
    if model.checkpoint_dtype == "float32":
        reasons["dtype"] = "the checkpoint's"
        return "float32"
    if _multiplies_in_integers(config, model, hardware):
        reasons["dtype"] = f"checkpoint is {model.checkpoint_dtype}; 4-bit layers multiply in integers here"
        return "bfloat16"
    if hardware.fast_bfloat16:
        reasons["dtype"] = f"checkpoint is {model.checkpoint_dtype}; this CPU is fast in bfloat16"
        return "bfloat16"
    reasons["dtype"] = f"checkpoint is {model.checkpoint_dtype}; this CPU has no fast 16-bit arithmetic"
    return "float32"


def _multiplies_in_integers(config: EngineConfig, model: ModelFacts, hardware: HardwareFacts) -> bool:
    """Whether the quantized layers run in integers, on the CPU and with bfloat16 activations."""
    here = hardware.native_kernels and config.kernels in NATIVE_KERNELS
    return here and model.quantized_bytes > 0 and model.integer_layers


def _resolve_lm_head(
    config: EngineConfig,
    model: ModelFacts,
    hardware: HardwareFacts,
    place: _Place,
    dtype: str,
    reasons: dict[str, str],
) -> str:
    """ "int8" or "full".

    Raises:
        UsageError: int8 was asked for on a GPU.
    """
    on_cpu = place.device == "cpu"
    if config.lm_head == "int8" and not on_cpu:
        raise UsageError(
            "--lm-head int8 is for CPUs: on a GPU every step would expand the whole head, which takes more memory",
            fix="leave out --lm-head, or use --device cpu",
        )
    if not model.dense_head:
        reasons["lm_head"] = "it is 4-bit already"
        return "full"
    if config.lm_head != "auto":
        reasons["lm_head"] = "option"
        return config.lm_head
    if on_cpu and dtype == "bfloat16" and _multiplies_in_integers(config, model, hardware):
        reasons["lm_head"] = "half the bytes that a step reads for it; --lm-head full is more exact"
        return "int8"
    reasons["lm_head"] = "as in the checkpoint"
    return "full"


def _resolve_threads(
    config: EngineConfig, weights: int, hardware: HardwareFacts, reasons: dict[str, str]
) -> int:
    if config.num_threads is not None:
        reasons["num_threads"] = "option"
        return config.num_threads
    if weights < ONE_THREAD_WEIGHTS:
        reasons["num_threads"] = "the model is too small for more to pay"
        return 1
    reasons["num_threads"] = "cores that the process may use"
    return hardware.num_cores


def _workspace_bytes(config: EngineConfig, model: ModelFacts, place: _Place, dtype: str) -> int:
    """Activations of the largest step: a few hidden-size rows per token, and fp32 logits per sequence.

    On a GPU also int4 weights as the activations' dtype, and what the libraries take.
    """
    rows = config.max_num_batched_tokens
    sequences = min(rows, config.max_num_seqs)
    per_token, per_sequence = model.hidden_size * 4 * 16, model.vocab_size * 4 * 3
    step = rows * per_token + sequences * per_sequence
    if place.device == "cpu":
        return step
    if not config.enforce_eager:  # memory of the graphs' own, and the logits that all of them write
        step += sequences * (per_token + per_sequence + model.vocab_size * 4)
    panel = min(model.largest_int4 * DTYPES[dtype], GPU_PANEL_BYTES)
    return step + panel + GPU_LIBRARY_BYTES


def _blocks_for(length: int, block_size: int) -> int:
    """Blocks that make sure of one sequence of `length` tokens."""
    return -(-length // block_size) + FULL_LENGTH_MARGIN_BLOCKS


def _least_len(config: EngineConfig, model: ModelFacts, place: _Place) -> int:
    """Tokens of the shortest context that will do."""
    return config.max_model_len or min(place.least_len, model.max_position)


def _kv_budget(config: EngineConfig, model: ModelFacts, memory: _Memory, reasons: dict[str, str]) -> int:
    """Bytes that the KV cache may take; never more than are left beside weights and workspace."""
    if memory.left <= 0:
        raise _too_large(memory)
    if config.kv_cache_memory is not None:
        reasons["num_blocks"] = "--kv-cache-memory"
        if config.kv_cache_memory > memory.left:
            most = memory.left // MIB
            least = _blocks_for(_least_len(config, model, memory.place), config.block_size) * memory.block
            raise DoesNotFitError(
                f"--kv-cache-memory {human_bytes(config.kv_cache_memory)} is more than the"
                f" {human_bytes(memory.left)} that are left",
                why=memory.taken(),
                fix=f"use at most --kv-cache-memory {most}MiB, or leave it out"
                if most * MIB >= least
                else "choose a smaller or a quantized (AWQ) model",
            )
        return config.kv_cache_memory
    sequence = _blocks_for(config.max_model_len or model.max_position, config.block_size) * memory.block
    reasons["num_blocks"] = f"from {human_bytes(memory.left)} free after the weights"
    room = min(int(memory.left * memory.place.kv_share), config.max_num_seqs * sequence)
    if memory.place.device == "cuda":
        return room
    return min(room, max(AUTO_KV_BYTES, AUTO_KV_SEQUENCES * sequence))


def _too_large(memory: _Memory) -> DoesNotFitError:
    need, free = human_bytes(memory.weights + memory.workspace), human_bytes(memory.place.free)
    if memory.place.device == "cuda":
        return DoesNotFitError(
            f"the GPU has {free} free, the model needs {need}",
            why=memory.taken(),
            fix="close what else uses the GPU, choose a smaller or a quantized (AWQ) model, or use --device cpu",
        )
    return DoesNotFitError(
        f"the model does not fit: it needs {need}, free memory is {free}",
        why=memory.taken(),
        fix="close other programs, or choose a smaller or a quantized (AWQ) model",
    )


def _resolve_max_model_len(
    config: EngineConfig, model: ModelFacts, memory: _Memory, num_blocks: int, reasons: dict[str, str]
) -> int:
    fits = max(0, num_blocks - FULL_LENGTH_MARGIN_BLOCKS) * config.block_size
    least = _least_len(config, model, memory.place)
    if config.max_model_len is None:
        wanted = min(model.max_position, fits)
        reasons["max_model_len"] = "the model's" if wanted == model.max_position else "the longest that fits"
    else:
        wanted = config.max_model_len
        reasons["max_model_len"] = "option"
    if fits >= least:
        return wanted
    need = _blocks_for(least, config.block_size) * memory.block
    shorter = f"use --max-model-len {fits} or less" if fits >= 2 * config.block_size else ""
    more = f"use --kv-cache-memory {-(-need // MIB)}MiB" if -(-need // MIB) * MIB <= memory.left else ""
    raise DoesNotFitError(
        f"the KV cache does not fit{memory.place.shown}: {least:,} tokens need {human_bytes(need)},"
        f" there is room for {human_bytes(num_blocks * memory.block)}",
        why=f"{memory.taken()}; {human_bytes(memory.block / config.block_size)} per token",
        fix=", or ".join(filter(None, (shorter, more))) or "close other programs, or choose a smaller model",
    )
