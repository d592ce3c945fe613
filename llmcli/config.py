"""The engine's configuration: what the user asked for, and what it resolves to on this model and machine.

`resolve` is pure: it turns every "auto" into a value and keeps the reason for each, so that `show`, `bench`
and an error about memory all print the same sum. Knows no torch and reads no file; `engine/build.py` gathers
the facts.
"""

import dataclasses
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from llmcli.errors import DoesNotFitError, UsageError, quote
from llmcli.sampling import MAX_SEED

GIB = 1 << 30
MIB = 1 << 20
BLOCK_SIZES = (4, 8, 16, 32, 64, 128)
DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2}
DEFAULT_GPU_MEMORY_UTILIZATION = 0.92
AUTO_CPU_KV_SHARE = 0.5  # of the memory that is free once the weights are in: a laptop has other work to do
AUTO_KV_SEQUENCES = 16  # auto takes no more than this many sequences of the full length ...
AUTO_KV_BYTES = 4 * GIB  # ... or this much, whichever is more
ONE_THREAD_WEIGHTS = 32 * MIB  # below this, threads wait for each other longer than they work
FULL_LENGTH_MARGIN_BLOCKS = 1
OPTIONAL_COUNTS = ("max_model_len", "num_threads", "kv_cache_memory")
MAX_THREADS = 1024  # OpenMP dies where the system has no more
COUNTS = (*OPTIONAL_COUNTS, "max_num_seqs", "max_num_batched_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What the user asked for. None, or "auto", leaves a choice to `resolve`.

    Args:
        dtype: "auto", "float32", "bfloat16" or "float16": activations, KV cache and dense weights.
        device: "auto" or "cpu".
        kernels: name of the kernel set, or "auto".
        max_model_len: most tokens of one sequence, prompt and output together.
        max_num_seqs: most sequences that run at once.
        max_num_batched_tokens: token budget of one step (chunked prefill).
        block_size: tokens per block of the KV cache.
        kv_cache_memory: bytes of the KV cache.
        gpu_memory_utilization: share of the device's memory, a GPU's or the machine's, that the engine may take.
        enable_prefix_caching: keep and reuse the blocks of finished prompts.
        num_threads: CPU threads; None is one per core that the process may use, or one for a tiny model.
        seed: root of the seeds drawn for requests that give none; None draws from the system.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu"] = "auto"
    kernels: str = "auto"
    max_model_len: int | None = None
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 512
    block_size: int = 16
    kv_cache_memory: int | None = None
    gpu_memory_utilization: float = DEFAULT_GPU_MEMORY_UTILIZATION
    enable_prefix_caching: bool = True
    num_threads: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in ("auto", *DTYPES):  # a tuple: the value may be of any type
            raise UsageError(f"--dtype must be auto, {', '.join(DTYPES)}, got {quote(self.dtype)}")
        if self.device not in ("auto", "cpu"):
            raise UsageError(f"--device must be auto or cpu, got {quote(self.device)}")
        if not isinstance(self.block_size, int) or self.block_size not in BLOCK_SIZES:
            sizes = ", ".join(map(str, BLOCK_SIZES))
            raise UsageError(f"--block-size must be one of {sizes}, got {quote(self.block_size)}")
        for name in COUNTS:
            value = getattr(self, name)
            if value is None and name in OPTIONAL_COUNTS:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                option = "threads" if name == "num_threads" else name.replace("_", "-")
                raise UsageError(f"--{option} must be a positive integer, got {quote(value)}")
        if self.num_threads is not None and self.num_threads > MAX_THREADS:
            raise UsageError(f"--threads must be in 1..{MAX_THREADS}, got {self.num_threads}")
        share = self.gpu_memory_utilization
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise UsageError(f"--gpu-memory-utilization must be above 0 and at most 1, got {quote(share)}")
        caching = self.enable_prefix_caching
        if not isinstance(caching, bool):
            raise UsageError(f"enable_prefix_caching must be true or false, got {quote(caching)}")
        seed = 0 if self.seed is None else self.seed
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
            raise UsageError(f"seed must be an integer in 0..{MAX_SEED}, got {quote(seed)}")

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> "EngineConfig":
        """Build from keyword options; an unknown name is a UsageError with the nearest one."""
        names = [f.name for f in dataclasses.fields(cls)]
        for name in options:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1)
                raise UsageError(
                    f"unknown engine option {quote(name)}",
                    fix=f"did you mean {near[0]}?" if near else f"known options: {', '.join(names)}",
                )
        return cls(**options)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What `resolve` needs to know of a model: sizes from config.json and the safetensors headers.

    Attributes:
        num_layers, num_kv_heads, head_dim: of the KV cache.
        max_position: the context the model was made for, in tokens (rope scaling included).
        dense_parameters: number of weights that are kept in the engine's dtype (embeddings, norms, dense
            layers).
        quantized_bytes: bytes of the packed int4 layers, scales and zeros included.
        checkpoint_dtype: dtype that the checkpoint's dense tensors have.
        hidden_size, vocab_size: for the workspace of a step.
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int
    max_position: int
    dense_parameters: int
    quantized_bytes: int
    checkpoint_dtype: str
    hidden_size: int
    vocab_size: int

    def weight_bytes(self, dtype: str) -> int:
        """Bytes of all weights in memory when dense ones are held in `dtype`."""
        return self.dense_parameters * DTYPES[dtype] + self.quantized_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareFacts:
    """What `resolve` needs to know of the machine.

    Attributes:
        device: "cpu".
        total_memory, free_memory: bytes, cgroup limit considered; free before the weights are loaded.
        num_cores: cores that this process may use.
        fast_bfloat16: whether bfloat16 matmul is faster than float32.
    """

    device: str
    total_memory: int
    free_memory: int
    num_cores: int
    fast_bfloat16: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedConfig:
    """Every value in force, and why. Bytes are bytes; lengths are tokens."""

    dtype: str
    device: str
    kernels: str
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    num_blocks: int
    enable_prefix_caching: bool
    num_threads: int
    seed: int | None
    weight_bytes: int
    workspace_bytes: int
    kv_bytes_per_token: int
    reasons: Mapping[str, str]

    @property
    def kv_bytes(self) -> int:
        return self.num_blocks * self.block_size * self.kv_bytes_per_token

    @property
    def kv_tokens(self) -> int:
        return self.num_blocks * self.block_size

    def memory_sum(self) -> str:
        """The plan in one line: weights + workspace + KV cache = total."""
        total = self.weight_bytes + self.workspace_bytes + self.kv_bytes
        return (
            f"weights {human_bytes(self.weight_bytes)} + workspace {human_bytes(self.workspace_bytes)}"
            f" + KV cache {human_bytes(self.kv_bytes)} ({self.kv_tokens:,} tokens) = {human_bytes(total)}"
        )


def human_bytes(count: float) -> str:
    """1536 -> '1.5 KiB'; binary units, one decimal below 100."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"


_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kmgKMG]|kB|[KMG]B|[KMG]iB)?")
_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_number(text: str) -> int:
    """A human number of tokens or bytes: 8k is 8000, 8K is 8192, 1.5G, 512MiB, 2GB (decimal), 4096.

    With a unit a fraction is rounded down: 1.1G is 1181116006.

    Raises:
        ValueError: not such a number, or not below 2**63.
    """
    match = _NUMBER.fullmatch(text.strip().replace("_", "").replace(",", ""))
    if match is None:
        raise ValueError(f"not a whole number: {text!r}")
    number, suffix = match[1], match[2] or ""
    unit = suffix[:1].lower() if suffix.endswith("B") and "i" not in suffix else suffix[:1]
    value = Fraction(number) * _UNITS.get(unit, 1)
    if value >= 2**63 or (not suffix and value.denominator != 1):
        raise ValueError(f"not a whole number: {text!r}")
    return int(value)


def kv_bytes_per_token(model: ModelFacts, dtype: str) -> int:
    """Bytes of keys and values of one position over all layers."""
    return 2 * model.num_layers * model.num_kv_heads * model.head_dim * DTYPES[dtype]


def resolve(config: EngineConfig, model: ModelFacts, hardware: HardwareFacts) -> ResolvedConfig:
    """Turn every auto into a value.

    Raises:
        DoesNotFitError: weights, workspace and the KV cache of one sequence need more memory than there is.
        UsageError: max_model_len is beyond what the model was made for.
    """
    reasons: dict[str, str] = {}
    dtype = _resolve_dtype(config, model, hardware, reasons)
    per_token = kv_bytes_per_token(model, dtype)
    if config.max_model_len is not None and config.max_model_len > model.max_position:
        raise UsageError(
            f"--max-model-len {config.max_model_len} is beyond the model's {model.max_position} positions",
            fix=f"use --max-model-len {model.max_position} or less",
        )
    memory = _Memory(
        free=min(hardware.free_memory, int(hardware.total_memory * config.gpu_memory_utilization)),
        weights=model.weight_bytes(dtype),
        workspace=_workspace_bytes(config, model),
        block=config.block_size * per_token,
    )
    num_blocks = _kv_budget(config, model, memory, reasons) // memory.block
    max_model_len = _resolve_max_model_len(config, model, memory, num_blocks, reasons)
    num_threads = _resolve_threads(config, memory.weights, hardware, reasons)
    return ResolvedConfig(
        dtype=dtype,
        device=hardware.device,
        kernels=hardware.device if config.kernels == "auto" else config.kernels,
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
    )


@dataclass(frozen=True, slots=True)
class _Memory:
    """Bytes: what is free before the model comes, what it takes, and one block of the KV cache."""

    free: int
    weights: int
    workspace: int
    block: int

    @property
    def left(self) -> int:
        """For the KV cache."""
        return self.free - self.weights - self.workspace

    def taken(self) -> str:
        weights, workspace = human_bytes(self.weights), human_bytes(self.workspace)
        return f"weights {weights} + workspace {workspace} of {human_bytes(self.free)} free"


def _resolve_dtype(
    config: EngineConfig, model: ModelFacts, hardware: HardwareFacts, reasons: dict[str, str]
) -> str:
    if config.dtype != "auto":
        reasons["dtype"] = "option"
        return config.dtype
    if model.checkpoint_dtype == "float32":
        reasons["dtype"] = "the checkpoint's"
        return "float32"
    if hardware.fast_bfloat16:
        reasons["dtype"] = f"checkpoint is {model.checkpoint_dtype}; this CPU is fast in bfloat16"
        return "bfloat16"
    reasons["dtype"] = f"checkpoint is {model.checkpoint_dtype}; this CPU has no fast 16-bit arithmetic"
    return "float32"


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


def _workspace_bytes(config: EngineConfig, model: ModelFacts) -> int:
    """Activations of the largest step: a few hidden-size rows per token, and fp32 logits per sequence."""
    rows = config.max_num_batched_tokens
    return rows * model.hidden_size * 4 * 16 + min(rows, config.max_num_seqs) * model.vocab_size * 4 * 3


def _blocks_for(length: int, block_size: int) -> int:
    """Blocks that make sure of one sequence of `length` tokens."""
    return -(-length // block_size) + FULL_LENGTH_MARGIN_BLOCKS


def _kv_budget(config: EngineConfig, model: ModelFacts, memory: _Memory, reasons: dict[str, str]) -> int:
    """Bytes that the KV cache may take; never more than are left beside weights and workspace."""
    if memory.left <= 0:
        need = human_bytes(memory.weights + memory.workspace)
        raise DoesNotFitError(
            f"the model does not fit: it needs {need}, free memory is {human_bytes(memory.free)}",
            why=memory.taken(),
            fix="close other programs, or choose a smaller or a quantized (AWQ) model",
        )
    if config.kv_cache_memory is not None:
        reasons["num_blocks"] = "--kv-cache-memory"
        if config.kv_cache_memory > memory.left:
            raise DoesNotFitError(
                f"--kv-cache-memory {human_bytes(config.kv_cache_memory)} is more than the"
                f" {human_bytes(memory.left)} that are left",
                why=memory.taken(),
                fix=f"use at most --kv-cache-memory {memory.left // MIB}MiB, or leave it out"
                if memory.left >= MIB
                else "choose a smaller or a quantized (AWQ) model",
            )
        return config.kv_cache_memory
    sequence = _blocks_for(config.max_model_len or model.max_position, config.block_size) * memory.block
    reasons["num_blocks"] = f"from {human_bytes(memory.left)} free after the weights"
    wanted = max(AUTO_KV_BYTES, AUTO_KV_SEQUENCES * sequence)
    return min(int(memory.left * AUTO_CPU_KV_SHARE), wanted, config.max_num_seqs * sequence)


def _resolve_max_model_len(
    config: EngineConfig, model: ModelFacts, memory: _Memory, num_blocks: int, reasons: dict[str, str]
) -> int:
    fits = max(0, num_blocks - FULL_LENGTH_MARGIN_BLOCKS) * config.block_size
    if config.max_model_len is None:
        least = min(2 * config.block_size, model.max_position)
        wanted = min(model.max_position, fits)
        reasons["max_model_len"] = "the model's" if wanted == model.max_position else "the longest that fits"
    else:
        least = wanted = config.max_model_len
        reasons["max_model_len"] = "option"
    if fits >= least:
        return wanted
    need = _blocks_for(least, config.block_size) * memory.block
    shorter = f"use --max-model-len {fits} or less" if fits >= 2 * config.block_size else ""
    more = f"use --kv-cache-memory {-(-need // MIB)}MiB" if -(-need // MIB) * MIB <= memory.left else ""
    raise DoesNotFitError(
        f"the KV cache does not fit: {least:,} tokens need {human_bytes(need)},"
        f" there is room for {human_bytes(num_blocks * memory.block)}",
        why=f"{memory.taken()}; {human_bytes(memory.block / config.block_size)} per token",
        fix=", or ".join(filter(None, (shorter, more))) or "close other programs, or choose a smaller model",
    )
