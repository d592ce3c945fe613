"""The one wiring place: from a model's folder and a config to an engine that runs."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from llmcli.config import EngineConfig, ResolvedConfig, Substitutes, human_bytes
from llmcli.engine.engine import Engine
from llmcli.engine.first_use import compile_kernels, from_home
from llmcli.errors import CheckpointError, UsageError, quote
from llmcli.fit import resolve_or_explain
from llmcli.gpu_facts import GpuFacts, NoGpu
from llmcli.hardware import read_hardware_facts
from llmcli.hub.models import LocalModel
from llmcli.model.facts import read_model_facts
from llmcli.model.generation_config import read_generation_config
from llmcli.model.spec import ModelSpec, read_model_spec
from llmcli.plan import resolve
from llmcli.runtime.gpu import find_gpu
from llmcli.runtime.memory_profile import ALLOCATION_BYTES, held_memory, measure_workspace
from llmcli.runtime.warm_up import NUM_BLOCKS, decode_steps, warm_up_steps
from llmcli.scheduler.scheduler import Scheduler, SchedulerConfig
from llmcli.text.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from llmcli.model.decoder import Decoder
    from llmcli.model.forward_batch import KVCache
    from llmcli.model.weights import DecoderWeights
    from llmcli.runtime.decode_graphs import DecodeGraphs
    from llmcli.runtime.runner import Runner
    from llmcli_kernels import KernelSet

Report = Callable[[str], None]
PROGRESS_S = 2.0


def build_engine(
    model: LocalModel,
    config: EngineConfig,
    *,
    substitutes: Substitutes | None = None,
    on_phase: Report | None = None,
    on_warning: Report | None = None,
) -> Engine:
    """Load a model.

    Args:
        substitutes: what is used in place of the model's own files; its `template_kwargs` are for the callers.
        on_phase: called with one line for each phase that is done, and every few seconds of a long one.
        on_warning: called with one line for each thing that was ignored.

    Raises:
        ModelNotRunnableError: a file is damaged, something is unsupported, or it does not fit: on a GPU this may turn
            out when the weights are there already.
        UsageError: a value of the config does not suit the model; or the GPU asked for can not be used.
        EngineError: the GPU failed.
    """
    report, substitutes = on_phase or _silent, substitutes or Substitutes()
    started = time.monotonic()
    spec = read_model_spec(model.path)
    gpu = None if config.wanted_device == "cpu" else find_gpu()
    facts, hardware = read_model_facts(model.path, spec), read_hardware_facts(gpu)
    resolved = resolve_or_explain(config, facts, hardware)
    tokenizer = load_tokenizer(model.path, substitutes.chat_template)
    defaults, eos_ids, warnings = read_generation_config(model.path, spec)
    for warning in (*_unused_gpu(config, resolved, gpu), *warnings):
        (on_warning or _silent)(warning)
    eos_ids = eos_ids or (() if tokenizer.eos_id is None else (tokenizer.eos_id,))
    _check_vocabulary(model, spec, tokenizer, eos_ids)
    report(f"read {model.name}: {_describe(spec)} in {time.monotonic() - started:.1f} s")
    if resolved.gpu is not None:
        free, total = human_bytes(resolved.gpu.free_memory), human_bytes(resolved.gpu.total_memory)
        report(f"GPU: {resolved.gpu.describe()}, {free} of {total} free")

    with _told_of_the_gpu(resolved):
        held_before = 0 if resolved.gpu is None else held_memory()
        kernels, weights = _load_weights(model, spec, resolved, report, on_warning or _silent)
        make_runner = partial(_make_runner, spec, weights, kernels)
        if resolved.gpu is not None and resolved.kernels == "triton":
            workspace = _warm_up(make_runner, resolved, held_before, report)
            resolved = resolve(config, facts, hardware, workspace)
        runner = make_runner(resolved)
        if resolved.cuda_graphs:
            for step in decode_steps(resolved):  # of those that were made for the measurement nothing is left
                runner.run(step)
    scheduler = Scheduler(
        SchedulerConfig(
            num_blocks=resolved.num_blocks,
            block_size=resolved.block_size,
            max_num_seqs=resolved.max_num_seqs,
            max_num_batched_tokens=resolved.max_num_batched_tokens,
            max_model_len=resolved.max_model_len,
            enable_prefix_caching=resolved.enable_prefix_caching,
        )
    )
    report(f"memory: {resolved.memory_sum()}; context {resolved.max_model_len:,} tokens")
    return Engine(
        model=model,
        spec=spec,
        config=resolved,
        tokenizer=tokenizer,
        scheduler=scheduler,
        runner=runner,
        generation_defaults=defaults
        if substitutes.generation_defaults is None
        else substitutes.generation_defaults,
        eos_ids=frozenset(eos_ids),
    )


def _unused_gpu(
    config: EngineConfig, resolved: ResolvedConfig, gpu: GpuFacts | NoGpu | None
) -> Iterator[str]:
    """A warning where there is a GPU and auto did not take it."""
    if config.wanted_device == "auto" and resolved.device == "cpu":
        if isinstance(gpu, GpuFacts):
            yield f"the GPU is not used: {resolved.reasons['device']}"
        elif gpu is not None and gpu.present:
            yield f"the GPU is not used: {'; '.join(filter(None, (gpu.reason, gpu.fix)))}"


@contextmanager
def _told_of_the_gpu(config: ResolvedConfig) -> Iterator[None]:
    """What a GPU raises while a model is loaded, in words for people."""
    try:
        yield
    except Exception as error:
        from llmcli.runtime.gpu_errors import gpu_error

        failure = gpu_error(error, loading=True) if config.device == "cuda" else None
        if failure is None:
            raise
        raise failure from error


def _load_weights(
    model: LocalModel, spec: ModelSpec, config: ResolvedConfig, report: Report, warn: Report
) -> "tuple[KernelSet, DecoderWeights]":
    started = time.monotonic()
    import torch

    from llmcli.model.weights import load_weights
    from llmcli.runtime.tuning_file import user_tuning_file
    from llmcli_kernels import select
    from llmcli_kernels.tuning import TuningTableError

    torch.set_num_threads(config.num_threads)
    tuning_file = user_tuning_file(config.gpu.name) if config.gpu else None
    try:
        try:
            kernels = select(config.device, config.kernels, tuning_file=tuning_file)
        except TuningTableError as error:  # such as one that an older version wrote
            warn(f"{tuning_file} is not used: {error}; llmcli tune writes it anew")
            kernels = select(config.device, config.kernels)
    except ValueError as error:
        raise UsageError(str(error)) from None
    imported = time.monotonic()
    weights = load_weights(
        model.path,
        spec,
        kernels,
        getattr(torch, config.dtype),
        on_layer=_now_and_then(report),
        device=config.device,
        lm_head=config.lm_head,
    )
    if trouble := kernels.trouble():
        warn(
            f"PyTorch's own kernels are used, which are slower: {quote(trouble)};"
            " to mend it: pip install --force-reinstall llvmlite"
        )
    if config.device == "cuda":
        torch.cuda.synchronize()  # it packs while files are read
        torch.cuda.empty_cache()  # what packing took and the KV cache is to have
        torch.accelerator.empty_host_cache()  # what was locked for the copies
    elapsed = time.monotonic() - imported
    report(
        f"loaded {human_bytes(config.weight_bytes)} of weights as {config.dtype} for the {kernels.name} kernels"
        f" in {elapsed:.1f} s ({human_bytes(config.weight_bytes / elapsed)}/s; torch {imported - started:.1f} s)"
    )
    return kernels, weights


def _make_runner(
    spec: ModelSpec, weights: "DecoderWeights", kernels: "KernelSet", config: ResolvedConfig
) -> "Runner":
    from llmcli.model.decoder import Decoder
    from llmcli.model.rope import build_cos_sin
    from llmcli.runtime.kv_memory import allocate_kv_cache
    from llmcli.runtime.runner import Runner

    cos_sin = build_cos_sin(spec.rope, config.max_model_len).to(config.device)
    decoder, cache = Decoder(spec, weights, kernels, cos_sin), allocate_kv_cache(config, spec)
    graphs = _decode_graphs(decoder, cache, config) if config.cuda_graphs and kernels.reads_lengths else None
    return Runner(decoder, cache, config.block_size, graphs)


def _warm_up(
    make_runner: Callable[[ResolvedConfig], "Runner"],
    config: ResolvedConfig,
    held_before: int,
    report: Report,
) -> int:
    """Compile all kernels; the bytes of the GPU that steps take beside weights and KV cache.

    Args:
        held_before: bytes of other models of this process, from before the weights came.
    """
    import torch

    workspace = _measure(make_runner(replace(config, num_blocks=NUM_BLOCKS)), config, held_before, report)
    gc.collect()  # lest a cycle keeps what the KV cache is to have
    torch.cuda.empty_cache()
    return workspace


def _measure(runner: "Runner", config: ResolvedConfig, held_before: int, report: Report) -> int:
    import torch

    from llmcli_kernels.triton_toolchain import cache_folder

    assert config.gpu is not None
    where = f"{config.gpu.name} (the first use compiles them; kept in {from_home(cache_folder())})"
    workspace = measure_workspace(
        partial(compile_kernels, runner.warm_up, warm_up_steps(config), where, report),
        free_before=config.gpu.free_memory,
        held_before=held_before,
        weights=config.weight_bytes,
        cuda=torch.cuda,
    )
    return workspace + ALLOCATION_BYTES * sum(4 if layer.quantized else 2 for layer in runner.cache.layers)


def _decode_graphs(decoder: "Decoder", cache: "KVCache", config: ResolvedConfig) -> "DecodeGraphs":
    from llmcli.runtime.cuda_graphs import CudaGraphs
    from llmcli.runtime.decode_graphs import DecodeGraphs

    return DecodeGraphs(
        decoder,
        cache,
        max_rows=min(config.max_num_seqs, config.max_num_batched_tokens),
        max_model_len=config.max_model_len,
        capture=CudaGraphs(decoder.cos_sin.device),
    )


def _now_and_then(report: Report) -> Callable[[int, int], None]:
    """Tell how far the weights are, at most once in PROGRESS_S."""
    told = time.monotonic()

    def on_layer(done: int, total: int) -> None:
        nonlocal told
        if done < total and time.monotonic() - told >= PROGRESS_S:
            told = time.monotonic()
            report(f"loading weights: {done} of {total} layers")

    return on_layer


def _check_vocabulary(
    model: LocalModel, spec: ModelSpec, tokenizer: Tokenizer, eos_ids: tuple[int, ...]
) -> None:
    if tokenizer.vocab_size > spec.vocab_size:
        raise CheckpointError(
            f"{model.path}: the tokenizer has {tokenizer.vocab_size} tokens, the model {spec.vocab_size} (vocab_size)"
        )
    if not eos_ids:
        raise CheckpointError(
            f"{model.path} names no end-of-sequence token",
            fix="set eos_token_id in config.json or generation_config.json",
        )


def _describe(spec: ModelSpec) -> str:
    kind = "dense" if spec.quantization is None else f"AWQ 4-bit, group {spec.quantization.group_size}"
    return f"{spec.architecture}, {spec.num_layers} layers, {kind}"


def _silent(_: str) -> None:
    pass
