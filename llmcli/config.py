"""The engine's configuration: what the user asked for, the facts that decide, and the values in force.

Plain values; `plan.py` leads from the first two to the third. Knows no torch and reads no file.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from llmcli.errors import UsageError, quote
from llmcli.gpu_facts import GpuFacts, NoGpu
from llmcli.nearest import did_you_mean, nearest
from llmcli.sampling import MAX_SEED

GIB = 1 << 30
MIB = 1 << 20
BLOCK_SIZES = (4, 8, 16, 32, 64, 128)
DEVICES = ("auto", "cuda", "cpu")
DEVICE_OF_KERNELS = {
    "triton": "cuda",
    "cpu": "cpu",
    "avx2": "cpu",
    "torch": "cpu",
}  # those that run on one only
NATIVE_KERNELS = ("auto", "cpu", "avx2")  # on a CPU: those with integer products
DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2}
LM_HEADS = ("auto", "int8", "full")
KV_DTYPES = ("int8", "fp8")  # of the KV cache alone, with a scale for every token and head
DEFAULT_GPU_MEMORY_UTILIZATION = 0.92
OPTIONAL_COUNTS = ("max_model_len", "num_threads", "kv_cache_memory")
INT8_SCALE_BYTES = 4  # of a row of an int8 output head
MAX_THREADS = 1024  # OpenMP dies where the system has no more
COUNTS = (*OPTIONAL_COUNTS, "max_num_seqs", "max_num_batched_tokens")
SWITCHES = ("enable_prefix_caching", "enforce_eager", "async_scheduling")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What the user asked for. None, or "auto", leaves a choice to `resolve`.

    Args:
        dtype: "auto", "float32", "bfloat16" or "float16": activations, dense weights, and the KV cache unless
            kv_cache_dtype says otherwise.
        device: "auto" (a GPU that the model fits on, else the CPU), "cuda" or "cpu".
        kernels: name of the kernel set, or "auto".
        max_model_len: most tokens of one sequence, prompt and output together.
        max_num_seqs: most sequences that run at once.
        max_num_batched_tokens: token budget of one step (chunked prefill).
        block_size: tokens per block of the KV cache.
        kv_cache_memory: bytes of the KV cache.
        kv_cache_dtype: "auto" (that of the activations), "int8" or "fp8" (float8 e4m3): a cache of 8 bits holds
            about twice as many tokens, and answers change a little.
        lm_head: form of the output head's weights: "full" (the dtype), "int8" (a scale for each row: half the bytes
            that a step reads for it; CPUs only), or "auto": int8 beside 4-bit layers on a CPU that multiplies
            integers fast.
        gpu_memory_utilization: share of the device's memory, a GPU's or the machine's, that the engine may take.
        enable_prefix_caching: keep and reuse the blocks of finished prompts.
        enforce_eager: run every step operation by operation, without CUDA graphs.
        async_scheduling: on a GPU, prepare the next step while the present one runs. A CPU would gain nothing: it is
            one step at a time there.
        num_threads: CPU threads; None is one per core that the process may use, or one for a tiny model.
        seed: root of the seeds drawn for requests that give none; None draws from the system.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cuda", "cpu"] = "auto"
    kernels: str = "auto"
    max_model_len: int | None = None
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 512
    block_size: int = 16
    kv_cache_memory: int | None = None
    kv_cache_dtype: Literal["auto", "int8", "fp8"] = "auto"
    lm_head: Literal["auto", "int8", "full"] = "auto"
    gpu_memory_utilization: float = DEFAULT_GPU_MEMORY_UTILIZATION
    enable_prefix_caching: bool = True
    enforce_eager: bool = False
    async_scheduling: bool = True
    num_threads: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in ("auto", *DTYPES):  # a tuple: the value may be of any type
            raise UsageError(f"--dtype must be auto, {', '.join(DTYPES)}, got {quote(self.dtype)}")
        if self.device not in DEVICES:
            raise UsageError(
                f"--device must be auto, cuda or cpu, got {quote(self.device)}",
                fix=_nearest_device(self.device),
            )
        if not isinstance(self.kernels, str):
            raise UsageError(f"--kernels must be the name of a kernel set, got {quote(self.kernels)}")
        if not isinstance(self.block_size, int) or self.block_size not in BLOCK_SIZES:
            sizes = ", ".join(map(str, BLOCK_SIZES))
            raise UsageError(f"--block-size must be one of {sizes}, got {quote(self.block_size)}")
        if self.kv_cache_dtype not in ("auto", *KV_DTYPES):
            raise UsageError(
                f"--kv-cache-dtype must be auto, {' or '.join(KV_DTYPES)}, got {quote(self.kv_cache_dtype)}"
            )
        if self.lm_head not in LM_HEADS:
            raise UsageError(f"--lm-head must be auto, int8 or full, got {quote(self.lm_head)}")
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
        for name in SWITCHES:
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise UsageError(f"{name} must be true or false, got {quote(value)}")
        seed = 0 if self.seed is None else self.seed
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
            raise UsageError(f"seed must be an integer in 0..{MAX_SEED}, got {quote(seed)}")

        own = DEVICE_OF_KERNELS.get(self.kernels, self.device)
        if self.device != "auto" and own != self.device:
            raise UsageError(
                f"--kernels {self.kernels} run on the device {own}, not on --device {self.device}",
                fix="leave out one of the two",
            )

    @property
    def wanted_device(self) -> str:
        """ "auto", "cuda" or "cpu": as asked for, or as the kernel set that was asked for implies."""
        return DEVICE_OF_KERNELS.get(self.kernels, "auto") if self.device == "auto" else self.device

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> "EngineConfig":
        """Build from keyword options; an unknown name is a UsageError with the nearest one."""
        names = [f.name for f in dataclasses.fields(cls)]
        for name in options:
            if name not in names:
                fix = did_you_mean(name, names) or f"known options: {', '.join(names)}"
                raise UsageError(f"unknown engine option {quote(name)}", fix=fix)
        return cls(**options)


def _nearest_device(value: object) -> str:
    text = str(value).lower()
    if re.fullmatch(r"(cuda|gpu):\d+", text):
        return f"use --device cuda; CUDA_VISIBLE_DEVICES={text.split(':')[1]} chooses the GPU"
    names = {"gpu": "cuda", "nvidia": "cuda"} | {name: name for name in DEVICES}
    near = nearest(text, names)
    return f"did you mean {names[near[0]]}?" if near else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What `resolve` needs to know of a model: sizes from config.json and the safetensors headers.

    Attributes:
        num_layers, num_kv_heads, head_dim: of the KV cache.
        max_position: the context the model was made for, in tokens (rope scaling included).
        dense_parameters: number of weights that are kept in the engine's dtype (embeddings, norms, dense
            layers).
        quantized_bytes: bytes of the packed int4 layers, scales and zeros included.
        checkpoint_dtype: dtype that most of the checkpoint's dense weights have.
        hidden_size, vocab_size: for the workspace of a step.
        tied: whether the output head shares the embedding's weights.
        largest_int4: weights of the largest quantized layer, 0 without one: a GPU dequantises it for long prompts.
        dense_head: whether the output head is not quantized.
        integer_layers: whether the CPU's integer kernels take every quantized layer, by its shape.
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
    tied: bool = False
    largest_int4: int = 0
    dense_head: bool = True
    integer_layers: bool = True

    def weight_bytes(self, dtype: str, lm_head: str = "full") -> int:
        """Bytes of all weights in memory: dense ones in `dtype`, a dense output head as "int8" or "full"."""
        full = self.dense_parameters * DTYPES[dtype] + self.quantized_bytes
        if lm_head == "full" or not self.dense_head:
            return full
        replaced = 0 if self.tied else self.vocab_size * self.hidden_size * DTYPES[dtype]
        return full - replaced + self.vocab_size * (self.hidden_size + INT8_SCALE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareFacts:
    """What `resolve` needs to know of the machine.

    Attributes:
        total_memory, free_memory: bytes, cgroup limit considered; free before the weights are loaded.
        num_cores: cores that this process may use.
        fast_bfloat16: whether the CPU's bfloat16 matmul is faster than float32.
        native_kernels: whether the CPU kernels that are compiled here can run: integer products for 4-bit layers.
        gpu: what it offers, or why it can not be used.
    """

    total_memory: int
    free_memory: int
    num_cores: int
    fast_bfloat16: bool
    native_kernels: bool
    gpu: GpuFacts | NoGpu


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedConfig:
    """Every value in force, and why. Bytes are bytes; lengths are tokens; `gpu` is None on a CPU.

    Attributes:
        async_scheduling: whether the next step is prepared while the present one runs.
        cuda_graphs: whether steps in which every sequence decodes run as captured graphs.
    """

    dtype: str
    device: str
    kernels: str
    kv_cache_dtype: str
    lm_head: str
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
    gpu: GpuFacts | None = None
    async_scheduling: bool = False
    cuda_graphs: bool = False

    @property
    def kv_bytes(self) -> int:
        return self.num_blocks * self.block_size * self.kv_bytes_per_token

    @property
    def kv_tokens(self) -> int:
        return self.num_blocks * self.block_size

    def memory_sum(self) -> str:
        """The plan in one line: weights + workspace + KV cache = total."""
        total = self.weight_bytes + self.workspace_bytes + self.kv_bytes
        stored = f" in {self.kv_cache_dtype}" if self.kv_cache_dtype in KV_DTYPES else ""
        return (
            f"weights {human_bytes(self.weight_bytes)} + workspace {human_bytes(self.workspace_bytes)}"
            f" + KV cache {human_bytes(self.kv_bytes)}{stored} ({self.kv_tokens:,} tokens) = {human_bytes(total)}"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Substitutes:
    """What is used in place of a model's own files.

    Attributes:
        chat_template: the source of a template; None for the model's.
        template_kwargs: variables for it.
        generation_defaults: sampling fields; None for those of the model's generation_config.json.
    """

    chat_template: str | None = None
    template_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    generation_defaults: Mapping[str, Any] | None = None


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
