"""From a dense model to a folder with a 4-bit one: layer by layer, each on the disk before the next begins.

Owns the order of things: checks that need no weights, calibration text, stages, perplexity, the files around the
weights. How a layer is quantized is in `quantize/`, how the folder comes about in `jobs/quantize/folder.py`. Shows
nothing; `cli/quantize.py` calls it and is told what happens.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmcli.config import human_bytes
from llmcli.errors import DeviceUnavailableError, DoesNotFitError, UnsupportedModelError, quote
from llmcli.gpu_facts import NoGpu
from llmcli.hardware import read_hardware_facts
from llmcli.hub.models import LocalModel
from llmcli.jobs.quantize.folder import (
    OutputFolder,
    State,
    check_place,
    copy_files,
    digest,
    weight_bytes,
    write_card,
    write_config,
)
from llmcli.jobs.quantize.plan import QuantizePlan
from llmcli.jobs.quantize.text import CALIBRATION_TEXT, HELD_OUT_TEXT, cut, read_texts
from llmcli.model.checkpoint import read_checkpoint
from llmcli.model.spec import ModelSpec, read_model_spec
from llmcli.quantize.autoawq import quantize_with_autoawq, require_autoawq
from llmcli.quantize.awq import MomentCounter, Moments
from llmcli.quantize.forward import CHUNK_TOKENS, advance
from llmcli.quantize.layer import narrowed, quantize_layer
from llmcli.quantize.output import Shard, ShardWriter, entries_of, plan_shards
from llmcli.quantize.perplexity import perplexity
from llmcli.quantize.reader import EMBEDDING, HEAD, NORM, LayerReader, LayerTensors, check_dense
from llmcli.quantize.shape import Recipe, check_sizes, matrices, shared_inputs
from llmcli.runtime.gpu import find_gpu
from llmcli.runtime.gpu_errors import gpu_error
from llmcli.text.tokenizer import load_tokenizer

Say = Callable[[str], None]
EVALUATED_TEXTS, EVALUATED_TOKENS = 16, 512


@dataclass(frozen=True, slots=True)
class LayerDone:
    """A layer that is on the disk; `error` as in `QuantizedLayer`."""

    number: int
    total: int
    error: float
    seconds: float


@dataclass(frozen=True, slots=True)
class QuantizeResult:
    """Bytes of all weights and perplexity of the dense and of the quantized model; None where it was not asked for."""

    out: Path
    bytes_before: int
    bytes_after: int
    perplexity_before: float | None
    perplexity_after: float | None
    errors: tuple[float, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Work:
    """A model and all that was decided before its weights are read."""

    model: LocalModel
    plan: QuantizePlan
    spec: ModelSpec
    recipe: Recipe
    reader: LayerReader
    shards: tuple[Shard, ...]
    calibration: Tensor | None
    held_out: Tensor | None
    say: Say


def quantize(
    model: LocalModel, plan: QuantizePlan, say: Say, on_layer: Callable[[LayerDone], None]
) -> QuantizeResult:
    """Quantize a model into `plan.out`, which appears when it is whole.

    Args:
        say: told, one line at a time, what goes on.
        on_layer: told of each layer that is on the disk.

    Raises:
        UsageError, MissingExtraError, DeviceUnavailableError: what was asked for can not be done.
        ModelNotRunnableError: the model is unsupported, damaged or too large for this machine.
        OutputError: the disk is full or can not be written; what is done stays, for --resume.
    """
    started = time.monotonic()
    work = _prepare(model, plan, say)
    state = State(digest(model.path, work.reader.tensors), _parameters(work))
    with OutputFolder(plan.out, state, resume=plan.resume, overwrite=plan.overwrite) as folder:
        try:
            if plan.method == "autoawq":
                assert work.calibration is not None
                folder.save()
                quantize_with_autoawq(model.path, folder.path, work.calibration, work.recipe)
            else:
                _run_stages(work, folder, on_layer)
            before, after = _evaluate(work, folder.path)
        except Exception as error:
            failure = gpu_error(error, loading=True) if work.reader.device == "cuda" else None
            if failure is None:
                raise
            raise failure from error
        sizes = weight_bytes(model.path), weight_bytes(folder.path)
        write_config(model.path, folder.path, work.recipe)
        copy_files(model.path, folder.path)
        base = model.name if model.source == "hub" else None
        write_card(model.path, folder.path, base, _card(work, sizes, before, after))
        folder.finish()
    seconds = time.monotonic() - started
    return QuantizeResult(plan.out, *sizes, before, after, tuple(state.errors), seconds)


def check_model(name: str, folder: Path, plan: QuantizePlan) -> ModelSpec:
    """Refuse what can not be quantized, by its settings and headers alone: the folder may be an outline.

    Raises:
        UnsupportedModelError, CheckpointError: it can not; says why.
        UsageError: nothing of it would be quantized.
    """
    spec = read_model_spec(folder)
    if spec.quantization is not None:
        raise UnsupportedModelError(
            f"{quote(name)} is quantized already: AWQ in groups of {spec.quantization.group_size}",
            fix="start from the dense model that it was made from",
        )
    check_sizes(spec, plan.recipe())
    check_dense(read_checkpoint(folder), spec, folder)
    return spec


def _prepare(model: LocalModel, plan: QuantizePlan, say: Say) -> _Work:
    """Everything that can be refused without reading a weight."""
    check_place(plan.out, model.path)
    spec, recipe = check_model(model.name, model.path, plan), plan.recipe()
    if plan.method == "autoawq":
        require_autoawq(recipe)
    reader = LayerReader(model.path, spec, _device(plan.device))
    hardware = read_hardware_facts()
    torch.set_num_threads(plan.threads or hardware.num_cores)
    say(f"{model.name}: {spec.architecture}, {spec.num_layers} layers, on {reader.device}")
    calibration, held_out = _read_texts(model, plan, spec, say)
    work = _Work(
        model,
        plan,
        spec,
        recipe,
        reader,
        plan_shards(entries_of(spec, recipe), plan.shard_bytes),
        calibration,
        held_out,
        say,
    )
    _check_memory(work, hardware.free_memory)
    return work


def _device(wanted: str) -> str:
    found = NoGpu("not looked for") if wanted == "cpu" else find_gpu()
    if not isinstance(found, NoGpu):
        return "cuda"
    if wanted == "cuda":
        raise DeviceUnavailableError(f"--device cuda: {found.reason}", fix=found.fix or "use --device cpu")
    return "cpu"


def _read_texts(
    model: LocalModel, plan: QuantizePlan, spec: ModelSpec, say: Say
) -> tuple[Tensor | None, Tensor | None]:
    """Texts to calibrate on and to measure with, as token ids; None for those that are not needed."""
    calibrates = plan.method != "rtn"
    if not (calibrates or plan.evaluate):
        return None, None
    tokenizer = load_tokenizer(model.path)

    def read(option: str, name: str, built_in: Path, count: int, length: int) -> Tensor:
        length = min(length, spec.max_position)
        texts = read_texts(option, name, built_in, tokenizer, count * length)
        return cut(texts, tokenizer, count=count, length=length, seed=plan.seed, vocab=spec.vocab_size)

    calibration = held_out = None
    if calibrates:
        calibration = read(
            "--calib-dataset", plan.calib_dataset, CALIBRATION_TEXT, plan.calib_samples, plan.calib_seqlen
        )
        number, length = calibration.shape
        fewer = f", all there is of the {plan.calib_samples} asked for" if number < plan.calib_samples else ""
        say(f"calibrating on {number} texts of {length} tokens{fewer}")
    if plan.evaluate:
        held_out = read("--eval-dataset", plan.eval_dataset, HELD_OUT_TEXT, EVALUATED_TEXTS, EVALUATED_TOKENS)
    return calibration, held_out


def _check_memory(work: _Work, free: int) -> None:
    """Refuse what would end in swapping: on a CPU all of it, on a GPU the texts' activations, are in this memory."""
    needed = peak_bytes(work.spec, work.recipe, 0 if work.calibration is None else work.calibration.numel())
    if work.reader.device == "cpu" and needed > free:
        raise DoesNotFitError(
            f"quantizing needs about {human_bytes(needed)} of memory, {human_bytes(free)} are free",
            why="one layer in float32, the moments of its inputs and the texts' activations",
            fix="close other programs"
            + (", use fewer --calib-samples, or --method rtn" if work.calibration is not None else ""),
        )


def peak_bytes(spec: ModelSpec, recipe: Recipe, num_tokens: int) -> int:
    """About how much memory the largest stage takes, besides torch itself.

    Args:
        num_tokens: of the calibration text; 0 without one.
    """
    sizes = matrices(spec)
    layer = sum(n * k for n, k in sizes.values())
    largest = max(n * k for n, k in sizes.values())
    moments = sum(sizes[shared.matrices[0]][1] ** 2 for shared in shared_inputs(spec)) if num_tokens else 0
    texts = num_tokens * spec.hidden_size
    chunk = min(CHUNK_TOKENS, num_tokens) * (3 * spec.intermediate_size + 8 * spec.hidden_size)
    table = spec.vocab_size * spec.hidden_size
    whole = 2 * layer + 3 * largest + 2 * moments + texts + chunk
    if recipe.method == "autoawq":  # has all of the model at once
        whole = 2 * (spec.num_layers * layer + 2 * table) + texts + chunk
    return 4 * max(whole, 2 * table)


def _parameters(work: _Work) -> dict[str, Any]:
    """What the result depends on, besides the model; by names that the user knows."""
    recipe = work.recipe
    parameters: dict[str, Any] = {
        "--method": recipe.method,
        "--group-size": recipe.grid.group_size,
        "--zero-point": recipe.grid.zero_point,
        "--skip": ",".join(recipe.skip),
        "--dtype": recipe.dtype,
        "the size of files": work.plan.shard_bytes,
    }
    if work.calibration is not None:
        ids = json.dumps(work.calibration.tolist()).encode()
        parameters["the calibration text"] = hashlib.sha256(ids).hexdigest()[:16]
    return parameters


@torch.inference_mode()
def _run_stages(work: _Work, folder: OutputFolder, on_layer: Callable[[LayerDone], None]) -> None:
    """The embedding, each layer, then the last norm and the head; the state is saved after each of them."""
    reader, state, total = work.reader, folder.state, work.spec.num_layers
    writer = ShardWriter(folder.path, work.shards)
    if state.done == 0:
        folder.save()
        writer.create()
        table = reader.finite(reader.embedding_name())
        writer.write({EMBEDDING: narrowed(EMBEDDING, table, getattr(torch, work.recipe.dtype))})
        _finish_stage(folder)
    elif state.done <= total:
        work.say(f"going on after {state.done - 1} of {total} layers")
    if state.done <= total:
        hidden = None if work.calibration is None else reader.embed(work.calibration)
        for index in range(total):
            layer_done = _quantize_stage(work, folder, writer, index, hidden)
            if layer_done is not None:
                on_layer(layer_done)
    if state.done == total + 1:
        names = [NORM] if work.spec.tie_word_embeddings else [NORM, HEAD]
        for name in names:
            tensor = reader.finite(name)
            writer.write({name: narrowed(name, tensor, getattr(torch, work.recipe.dtype))})
        _finish_stage(folder)


def _quantize_stage(
    work: _Work, folder: OutputFolder, writer: ShardWriter, index: int, hidden: Tensor | None
) -> LayerDone | None:
    """One layer; of a layer that is done only its activations are computed again, for the next one."""
    started = time.monotonic()
    is_done = folder.state.done > index + 1
    if is_done and hidden is None:
        return None
    layer = work.reader.layer(index)
    if is_done:
        assert hidden is not None
        advance(hidden, layer, work.spec, index)
        return None
    moments = None if hidden is None else _calibrate(work.spec, layer, index, hidden)
    result = quantize_layer(layer, work.spec, work.recipe, index, moments)
    writer.write(result.tensors)
    folder.state.errors.append(result.error)
    _finish_stage(folder)
    return LayerDone(index + 1, work.spec.num_layers, result.error, time.monotonic() - started)


def _calibrate(spec: ModelSpec, layer: LayerTensors, index: int, hidden: Tensor) -> dict[str, Moments]:
    """The moments of the inputs of a layer's matrices; the texts go through the layer."""
    counters = {shared.matrices[0]: MomentCounter() for shared in shared_inputs(spec)}
    advance(hidden, layer, spec, index, lambda name, inputs: counters[name].add(inputs))
    return {name: counter.moments() for name, counter in counters.items()}


def _finish_stage(folder: OutputFolder) -> None:
    folder.state.done += 1
    folder.save()


def _evaluate(work: _Work, quantized: Path) -> tuple[float | None, float | None]:
    if work.held_out is None:
        return None, None
    number, length = work.held_out.shape
    work.say(f"perplexity of both models on {number} held-out texts of {length} tokens")
    before = perplexity(work.reader, work.held_out)
    return before, perplexity(LayerReader(quantized, work.spec, work.reader.device), work.held_out)


def _card(work: _Work, sizes: tuple[int, int], before: float | None, after: float | None) -> tuple[str, ...]:
    grid, model = work.recipe.grid, work.model
    zeros = "with zero points" if grid.zero_point else "symmetric"
    revision = f" at {model.revision}" if model.revision else ""
    named = model.name if model.source == "hub" else Path(model.name).name
    lines = (
        f"# {named}, 4 bits",
        "",
        f"Quantized from {named}{revision} with `llmcli quantize --method {work.recipe.method}`: AWQ, 4 bits in"
        f" groups of {grid.group_size}, {zeros}, gemm form; the rest in {work.recipe.dtype}.",
        "",
        f"{human_bytes(sizes[0])} of weights became {human_bytes(sizes[1])}.",
    )
    if before is None or after is None:
        return lines
    return (*lines, f"Perplexity on held-out text: {before:.3f} before, {after:.3f} after.")
