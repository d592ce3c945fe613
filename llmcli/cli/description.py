"""What `llmcli show` tells of a model, as plain values and as lines for people. Reads headers and JSON files.

The folder may be a whole model or the outline of one that is still on the hub; it makes no difference here.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llmcli.cli.listing import Column
from llmcli.config import EngineConfig, HardwareFacts, human_bytes
from llmcli.errors import CheckpointError, LLMCliError, quote
from llmcli.fit import Fit, Way, judge, remedies
from llmcli.gpu_facts import GpuFacts, NoGpu
from llmcli.model.checkpoint import read_checkpoint
from llmcli.model.facts import read_model_facts
from llmcli.model.parameters import count_parameters, short_count
from llmcli.model.spec import read_json_object, read_model_spec

SAMPLING_KEYS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "max_new_tokens",
    "do_sample",
)


def describe(folder: Path, config: EngineConfig, hardware: HardwareFacts) -> tuple[dict[str, Any], Fit]:
    """What the files tell, as plain values, and what of the model fits on this machine.

    Raises:
        CheckpointError, UnsupportedModelError: the files can not be read or are not supported.
        UsageError: the config does not suit the model or the machine.
    """
    spec = read_model_spec(folder)
    tensors = read_checkpoint(folder)
    facts = read_model_facts(folder, spec, tensors)
    fit = judge(config, facts, hardware)
    described = {
        "architecture": spec.architecture,
        "parameters": count_parameters(tensors, spec),
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
        "chat_template": _template(folder),
        "generation_defaults": generation_defaults(folder),
        "here": _here(fit, hardware),
    }
    return described, fit


def generation_defaults(folder: Path) -> dict[str, Any]:
    """The sampling values that the model's makers suggest."""
    values = _optional_json(folder / "generation_config.json")
    return {key: values[key] for key in SAMPLING_KEYS if isinstance(values.get(key), int | float)}


def description_lines(facts: Mapping[str, Any]) -> list[str]:
    """One aligned line per fact."""
    here, awq = facts["here"], facts["quantization"]
    window = f", sliding window {facts['sliding_window']:,}" if facts["sliding_window"] else ""
    defaults = ", ".join(f"{key} {value}" for key, value in facts["generation_defaults"].items())
    rows = [
        ("model", quote(facts["name"]) + (f" at {facts['revision'][:7]}" if facts["revision"] else "")),
        ("where", f"{quote(facts['path'] or facts['url'], 1000)} ({human_bytes(facts['size'])})"),
        ("files", _files_line(facts["files"])),
        ("licence", f"{facts['licence'] or 'not known'}{_gate(facts)}"),
        ("architecture", facts["architecture"]),
        ("parameters", _long_count(facts["parameters"])),
        ("quantization", _awq_line(awq) if awq else f"none ({facts['dtype']})"),
        ("context", f"{facts['context']:,} tokens{window}"),
        (
            "shape",
            f"{_layers(facts['layers'])} of {facts['hidden_size']:,}; {facts['heads']} query and"
            f" {facts['kv_heads']} key-value heads of {facts['head_dim']}; {facts['vocabulary']:,} tokens",
        ),
        ("chat template", _template_line(facts["chat_template"])),
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
    if here["what_would_help"]:
        rows.append(("would help", "; ".join(here["what_would_help"])))
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _fits_cell(way: Way) -> str:
    if way.error is None:
        return f"yes, in {human_bytes(way.free)} free"
    taken = way.plan.weight_bytes + way.plan.workspace_bytes
    if taken < way.free:
        return f"no: {human_bytes(way.free - taken)} are left for the context"
    return f"no: {human_bytes(taken)} of {human_bytes(way.free)} free, without any context"


# The memory plan as a table: each way to run the model here.
FIT_COLUMNS = (
    Column("DEVICE", lambda way: way.plan.device, spare=4),
    Column("OPTIONS", lambda way: way.options or None),
    Column("WEIGHTS", lambda way: human_bytes(way.plan.weight_bytes), spare=3),
    Column("WORKSPACE", lambda way: human_bytes(way.plan.workspace_bytes), spare=1),
    Column("KV/TOKEN", lambda way: human_bytes(way.plan.kv_bytes_per_token), spare=2),
    Column("CONTEXT", lambda way: f"{way.context:,}" if way.context else None),
    Column("AT ONCE", lambda way: f"{way.sequences:,}" if way.context else None),
    Column("FITS", _fits_cell),
)


def _here(fit: Fit, hardware: HardwareFacts) -> dict[str, Any]:
    """What the engine would settle on, on this machine now."""
    gpu, plan = hardware.gpu, fit.plan
    machine = {
        "free_memory": hardware.free_memory,
        "gpu": asdict(gpu) if isinstance(gpu, GpuFacts) else None,
        "no_gpu_reason": gpu.reason if isinstance(gpu, NoGpu) else None,
        "what_would_help": remedies(fit),
        "ways": [_way(way) for way in fit.ways],
    }
    if plan is None:
        return {"fits": False, "memory": fit.error.what if fit.error else "", **machine}
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


def _way(way: Way) -> dict[str, Any]:
    return {
        "device": way.plan.device,
        "options": way.options,
        "fits": way.error is None,
        "weight_bytes": way.plan.weight_bytes,
        "workspace_bytes": way.plan.workspace_bytes,
        "kv_bytes_per_token": way.plan.kv_bytes_per_token,
        "free_bytes": way.free,
        "context": way.context,
        "full_length_sequences": way.sequences,
    }


def _files_line(files: list[dict[str, Any]]) -> str:
    weights = [file for file in files if file["name"].endswith(".safetensors")]
    others = ", ".join(quote(file["name"], 60) for file in files if file not in weights)
    size = human_bytes(sum(file["size"] for file in weights))
    return f"{len(weights)} of weights ({size}); {others or 'no others'}"


def _gate(facts: Mapping[str, Any]) -> str:
    return f"; gated: access is given at {facts['url']}" if facts["gate"] else ""


def _template_line(template: Mapping[str, Any] | None) -> str:
    if template is None:
        return "no: prompts go in as they are"
    if template["error"]:
        return f"yes, but broken: {template['error']}"
    thinking = {"switch": "thinking (--think/--no-think)", "yes": "thinking", "no": "no thinking"}
    parts = [
        "system prompt" if template["system"] else "no system prompt",
        "tools" if template["tools"] else "no tools",
        thinking[template["thinking"]],
    ]
    return f"yes: {', '.join(parts)}"


def _template(folder: Path) -> dict[str, Any] | None:
    """What the chat template can do; a broken one is told, and hides nothing else."""
    from llmcli.text.template_kind import template_kind

    try:
        kind = template_kind(folder)
    except LLMCliError as error:
        return {"system": False, "tools": False, "thinking": "no", "error": error.what}
    return None if kind is None else {**asdict(kind), "error": None}


def _gpu_line(here: Mapping[str, Any]) -> str:
    gpu = here["gpu"]
    if gpu is None:
        return f"none to use: {here['no_gpu_reason']}"
    return f"{gpu['name']}, {human_bytes(gpu['free_memory'])} of {human_bytes(gpu['total_memory'])} free"


def _awq_line(awq: Mapping[str, Any]) -> str:
    group = "one group per row" if awq["group_size"] == -1 else f"groups of {awq['group_size']}"
    zero = "with zero points" if awq["zero_point"] else "no zero points"
    skipped = ", ".join(quote(name, 60) for name in awq["modules_to_not_convert"])
    return f"awq, 4 bits, {group}, {zero}, {awq['version']}" + (f"; dense: {skipped}" if skipped else "")


def _long_count(parameters: int) -> str:
    short = short_count(parameters)
    return short if short[-1].isdigit() else f"{short} ({parameters:,})"


def _optional_json(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path, 16 << 20) if path.is_file() else {}
    except CheckpointError:
        return {}  # told by whoever needs the file to run; `show` goes on with the rest
