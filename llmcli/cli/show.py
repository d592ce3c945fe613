"""`llmcli show`: what a model is, and what of it fits here. Reads headers and JSON files; loads nothing."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from llmcli.cli.options import Json, ModelArgument, Revision
from llmcli.config import EngineConfig, ModelFacts, human_bytes
from llmcli.errors import CheckpointError, DoesNotFitError, ModelNotFoundError, quote
from llmcli.gpu_facts import NoGpu
from llmcli.hardware import read_hardware_facts
from llmcli.hub.models import LocalModel, find_local
from llmcli.model.checkpoint import read_checkpoint
from llmcli.model.facts import read_model_facts
from llmcli.model.spec import ModelSpec, read_json_object, read_model_spec
from llmcli.plan import resolve
from llmcli.runtime.gpu import find_gpu

AWQ_PER_WORD = 8  # int4 weights in one int32 of a qweight tensor
SAMPLING_KEYS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "max_new_tokens",
    "do_sample",
)
MAX_TOKENIZER_CONFIG = 16 << 20


def show(model: ModelArgument = None, *, revision: Revision = None, as_json: Json = False) -> None:
    """Show what a model is, and what of it fits on this machine. Fetches nothing.

    Examples:
        llmcli show
        llmcli show TheBloke/Llama-2-7B-Chat-AWQ
        llmcli show ./my-model --json
    """
    local = find_local(model, revision=revision)
    if local is None:
        raise ModelNotFoundError(
            f"{quote(model)} is not on this machine, or not complete",
            fix=f"run `llmcli pull {quote(model)}` first",
        )
    facts = describe(local)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        typer.echo("\n".join(_lines(facts)))


def describe(local: LocalModel) -> dict[str, Any]:
    """Everything that `show` tells, as plain values.

    Raises:
        CheckpointError, UnsupportedModelError: the files can not be read or are not supported.
    """
    spec = read_model_spec(local.path)
    facts = read_model_facts(local.path, spec)
    return {
        "name": local.name,
        "source": local.source,
        "revision": local.revision,
        "path": str(local.path),
        "size": sum(path.stat().st_size for path in local.path.iterdir() if path.is_file()),
        "architecture": spec.architecture,
        "parameters": _num_parameters(local.path, spec),
        "quantization": asdict(spec.quantization) if spec.quantization else None,
        "dtype": facts.checkpoint_dtype,
        "context": spec.max_position,
        "sliding_window": next((window for window in spec.sliding_windows if window), None),
        "layers": spec.num_layers,
        "hidden_size": spec.hidden_size,
        "heads": spec.num_heads,
        "kv_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
        "vocabulary": spec.vocab_size,
        "chat_template": _has_template(local.path),
        "generation_defaults": _generation_defaults(local.path),
        "here": _fit(facts),
    }


def _fit(facts: ModelFacts) -> dict[str, Any]:
    """What the engine would settle on with no options, on this machine now."""
    gpu = find_gpu()
    hardware = read_hardware_facts(gpu)
    machine = {
        "free_memory": hardware.free_memory,
        "gpu": None if isinstance(gpu, NoGpu) else asdict(gpu),
        "no_gpu_reason": gpu.reason if isinstance(gpu, NoGpu) else None,
    }
    try:
        plan = resolve(EngineConfig(), facts, hardware)
    except DoesNotFitError as error:
        return {"fits": False, "memory": error.what, **machine}
    return {
        "fits": True,
        "memory": plan.memory_sum(),
        **machine,
        "device": plan.device,
        "device_reason": plan.reasons["device"],
        "dtype": plan.dtype,
        "dtype_reason": plan.reasons["dtype"],
        "lm_head": plan.lm_head,
        "lm_head_reason": plan.reasons["lm_head"],
        "max_model_len": plan.max_model_len,
        "max_model_len_reason": plan.reasons["max_model_len"],
        "full_length_sequences": plan.kv_tokens // plan.max_model_len,
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    here, awq = facts["here"], facts["quantization"]
    window = f", sliding window {facts['sliding_window']:,}" if facts["sliding_window"] else ""
    defaults = ", ".join(f"{key} {value}" for key, value in facts["generation_defaults"].items())
    rows = [
        ("model", quote(facts["name"]) + (f" at {facts['revision'][:7]}" if facts["revision"] else "")),
        ("folder", f"{quote(facts['path'], 1000)} ({human_bytes(facts['size'])})"),
        ("architecture", facts["architecture"]),
        ("parameters", _count(facts["parameters"])),
        ("quantization", _awq_line(awq) if awq else f"none ({facts['dtype']})"),
        ("context", f"{facts['context']:,} tokens{window}"),
        (
            "shape",
            f"{facts['layers']} layers of {facts['hidden_size']:,}; {facts['heads']} query and"
            f" {facts['kv_heads']} key-value heads of {facts['head_dim']}; {facts['vocabulary']:,} tokens",
        ),
        ("chat template", "yes" if facts["chat_template"] else "no: prompts go in as they are"),
        ("sampling", defaults or "the model sets no defaults"),
        ("memory here", here["memory"]),
        ("free memory", human_bytes(here["free_memory"])),
        ("GPU", _gpu_line(here)),
    ]
    if here["fits"]:
        rows += [
            ("device here", f"{here['device']} ({here['device_reason']})"),
            ("dtype here", f"{here['dtype']} ({here['dtype_reason']})"),
            ("head here", f"{here['lm_head']} ({here['lm_head_reason']})"),
            ("context here", f"{here['max_model_len']:,} tokens ({here['max_model_len_reason']})"),
            ("at once", f"{here['full_length_sequences']:,} sequences of full length; more of shorter ones"),
        ]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


def _gpu_line(here: dict[str, Any]) -> str:
    gpu = here["gpu"]
    if gpu is None:
        return f"none to use: {here['no_gpu_reason']}"
    return f"{gpu['name']}, {human_bytes(gpu['free_memory'])} of {human_bytes(gpu['total_memory'])} free"


def _awq_line(awq: dict[str, Any]) -> str:
    group = "one group per row" if awq["group_size"] == -1 else f"groups of {awq['group_size']}"
    zero = "with zero points" if awq["zero_point"] else "no zero points"
    skipped = ", ".join(quote(name, 60) for name in awq["modules_to_not_convert"])
    return f"awq, 4 bits, {group}, {zero}, {awq['version']}" + (f"; dense: {skipped}" if skipped else "")


def _count(parameters: int) -> str:
    for unit, size in (("billion", 10**9), ("million", 10**6)):
        if parameters >= size:
            return f"{parameters / size:.2f} {unit}"
    return f"{parameters:,}"


def _num_parameters(folder: Path, spec: ModelSpec) -> int:
    """Weights of the network: packed int4 ones counted singly, scales and zero points not at all."""
    total = 0
    for name, tensor in read_checkpoint(folder).items():
        if name.endswith(".qweight"):
            total += math.prod(tensor.shape) * AWQ_PER_WORD
        elif not name.endswith((".qzeros", ".scales")) and not (
            spec.tie_word_embeddings and name == "lm_head.weight"
        ):
            total += math.prod(tensor.shape)
    return total


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    return bool(_optional_json(folder / "tokenizer_config.json").get("chat_template"))


def _generation_defaults(folder: Path) -> dict[str, Any]:
    values = _optional_json(folder / "generation_config.json")
    return {key: values[key] for key in SAMPLING_KEYS if isinstance(values.get(key), int | float)}


def _optional_json(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path, MAX_TOKENIZER_CONFIG) if path.is_file() else {}
    except CheckpointError:
        return {}  # told by whoever needs the file to run; `show` goes on with the rest
