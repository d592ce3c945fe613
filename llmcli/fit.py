"""Does a model fit on this machine, how, and what would make it fit: `plan.resolve` tried in several ways.

Works on facts alone, so that it can be told before a model is fetched. Pure, like `plan.py`; the commands print it.
"""

from dataclasses import dataclass, replace
from typing import Any

from llmcli.config import EngineConfig, HardwareFacts, ModelFacts, ResolvedConfig, human_bytes
from llmcli.errors import DeviceUnavailableError, DoesNotFitError
from llmcli.gpu_facts import GpuFacts
from llmcli.plan import free_memory, resolve

PLENTY = 1 << 60
MAX_REMEDIES = 3
AWQ_BYTES_PER_WEIGHT = 0.5 + 2.5 / 128  # 4 bits; an fp16 scale and a 4-bit zero point for each group of 128


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run a model.

    Attributes:
        options: what to type beside the model; empty for nothing.
        free: bytes that the engine may take there.
        plan: the values in force; for a way that does not fit, those on a machine with plenty of memory.
        error: why it does not fit, or None.
    """

    options: str
    free: int
    plan: ResolvedConfig
    error: DoesNotFitError | None = None

    @property
    def context(self) -> int:
        """Tokens of the longest sequence; 0 where nothing fits."""
        return 0 if self.error else self.plan.max_model_len

    @property
    def sequences(self) -> int:
        """How many sequences of that length fit at once."""
        return 0 if self.error else self.plan.kv_tokens // self.plan.max_model_len


@dataclass(frozen=True, slots=True)
class Fit:
    """The verdict.

    Attributes:
        plan: what the engine would settle on with the options as they are; None when it does not fit.
        error: then, why not.
        ways: for each device first the options as they are, then those that do better.
        awq_bytes: estimated weights of an AWQ copy, if that would fit where the model itself does not.
        context: tokens that were asked for, or that the model is made for.
    """

    plan: ResolvedConfig | None
    error: DoesNotFitError | None
    ways: tuple[Way, ...]
    awq_bytes: int | None
    context: int

    @property
    def is_whole(self) -> bool:
        """Whether a sequence of the whole context fits."""
        return self.plan is not None and self.plan.max_model_len >= self.context

    @property
    def better(self) -> tuple[Way, ...]:
        """Ways with options that hold more tokens than what the engine would settle on."""
        now = 0 if self.plan is None else self.plan.max_model_len
        return tuple(way for way in self.ways if way.options and way.context > now)


def judge(config: EngineConfig, model: ModelFacts, hardware: HardwareFacts) -> Fit:
    """Try the options as they are, and what else could be typed.

    Raises:
        UsageError: see `plan.resolve`.
        DeviceUnavailableError: the GPU was asked for and can not be used.
    """
    plan, error = None, None
    try:
        plan = resolve(config, model, hardware)
    except DoesNotFitError as caught:
        error = caught
    devices = _devices(config, hardware)
    ways = []
    for device in devices:
        typed = f"--device {device}" if len(devices) > 1 and (plan is None or plan.device != device) else ""
        ways += _ways(replace(config, device=device), typed, model, hardware)  # type: ignore[arg-type]
    awq = _as_awq(model)
    awq_fits = plan is None and awq is not None and _fits(config, awq, hardware)
    return Fit(
        plan,
        error,
        tuple(ways),
        awq.weight_bytes("bfloat16") if awq is not None and awq_fits else None,
        config.max_model_len or model.max_position,
    )


def resolve_or_explain(config: EngineConfig, model: ModelFacts, hardware: HardwareFacts) -> ResolvedConfig:
    """As `plan.resolve`; an error about memory also names the options that do fit, with their numbers."""
    try:
        return resolve(config, model, hardware)
    except DoesNotFitError as error:
        raise explained(error, judge(config, model, hardware)) from None


def explained(error: DoesNotFitError, fit: Fit) -> DoesNotFitError:
    """The error, with what to type in its last line."""
    return DoesNotFitError(error.what, why=error.why, fix="; ".join([*remedies(fit), error.fix]))


def verdict(fit: Fit) -> list[str]:
    """The verdict in one line, or in two when something could be done about it."""
    if fit.plan is None:
        assert fit.error is not None
        why = f" ({fit.error.why})" if fit.error.why else ""
        lines = [f"does not fit here: {fit.error.what}{why}"]
    else:
        plan, whole = fit.plan, fit.is_whole
        at_once = plan.kv_tokens // plan.max_model_len
        free = next(way.free for way in fit.ways if way.plan.device == plan.device)
        lines = [
            f"fits here on the {'CPU' if plan.device == 'cpu' else 'GPU'}"
            f"{'' if whole else ', with a shorter context'}: {plan.memory_sum()} of {human_bytes(free)} free;"
            f" context {plan.max_model_len:,}{'' if whole else f' of {fit.context:,}'} tokens,"
            f" {at_once:,} such sequence{'' if at_once == 1 else 's'} at once"
        ]
    help_ = remedies(fit)
    return [*lines, f"what would help: {'; '.join(help_)}"] if help_ else lines


def remedies(fit: Fit) -> list[str]:
    """What to type, or to fetch, so that the whole context fits, or more of it; empty where it does."""
    if fit.is_whole:
        return []
    found = [f"{way.options} gives {way.context:,} tokens" for way in fit.better[:MAX_REMEDIES]]
    if fit.awq_bytes is not None:
        found.append(f"an AWQ (4-bit) copy would fit, with weights of about {human_bytes(fit.awq_bytes)}")
    return found


def _devices(config: EngineConfig, hardware: HardwareFacts) -> tuple[str, ...]:
    if config.wanted_device != "auto":
        return (config.wanted_device,)
    return ("cuda", "cpu") if isinstance(hardware.gpu, GpuFacts) else ("cpu",)


def _ways(config: EngineConfig, typed: str, model: ModelFacts, hardware: HardwareFacts) -> list[Way]:
    """On one device: the options as they are, then each change that holds more tokens than all before it."""
    ways = [_try(config, typed, model, hardware)]
    if config.device == "cpu" and isinstance(hardware.gpu, GpuFacts):
        typed = "--device cpu"  # with a change, auto might take the GPU
    wanted = config.max_model_len or model.max_position
    for changes in _changes(config, ways[0].plan):
        most = max(way.context for way in ways)
        if most >= wanted:
            break
        way = _try(replace(config, **changes), f"{typed} {_typed(changes)}".strip(), model, hardware)
        if way.error is None and "max_model_len" in changes:
            way = replace(way, options=f"{typed} --max-model-len {way.context}".strip())
        if way.context > most:
            ways.append(way)
    return ways


def _try(config: EngineConfig, options: str, model: ModelFacts, hardware: HardwareFacts) -> Way:
    free = free_memory(config, hardware)
    try:
        return Way(options, free, resolve(config, model, hardware))
    except DoesNotFitError as error:
        gpu = hardware.gpu
        if isinstance(gpu, GpuFacts):
            gpu = replace(gpu, free_memory=PLENTY, total_memory=PLENTY)
        endless = replace(hardware, free_memory=PLENTY, total_memory=PLENTY, gpu=gpu)
        return Way(options, free, resolve(replace(config, kv_cache_memory=None), model, endless), error)


def _changes(config: EngineConfig, plan: ResolvedConfig) -> list[dict[str, Any]]:
    """What else could be asked for, from what changes the answers least to what changes them most."""
    found: list[dict[str, Any]] = [{"max_model_len": None}] if config.max_model_len else []
    narrow = {"dtype": "bfloat16"} if config.dtype == "auto" and plan.dtype == "float32" else {}
    eight_bits = {"kv_cache_dtype": "fp8" if plan.device == "cuda" else "int8"}
    found += [narrow] if narrow else []
    if config.kv_cache_dtype == "auto":
        found += [eight_bits, {**narrow, **eight_bits}] if narrow else [eight_bits]
    return found


def _typed(changes: dict[str, Any]) -> str:
    return " ".join(
        f"--{name.replace('_', '-')} {value}" for name, value in changes.items() if value is not None
    )


def _as_awq(model: ModelFacts) -> ModelFacts | None:
    """About what an AWQ copy of a dense model would be: all but embeddings and head in 4 bits."""
    if model.quantized_bytes:
        return None
    kept = model.vocab_size * model.hidden_size * (1 if model.tied else 2)
    packed = int(max(0, model.dense_parameters - kept) * AWQ_BYTES_PER_WEIGHT)
    return replace(
        model, dense_parameters=kept, quantized_bytes=packed, checkpoint_dtype="float16", dense_head=True
    )


def _fits(config: EngineConfig, model: ModelFacts, hardware: HardwareFacts) -> bool:
    try:
        resolve(config, model, hardware)
    except (DoesNotFitError, DeviceUnavailableError):
        return False
    return True
