"""One model: where it is, whether its files can be used, and how it would run here.

Reads names, JSON files, headers and the tokenizer; weights are read by the smoke test only, in another process. A model
that is on the hub is judged by its outline, as `llmcli pull` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmcli.config import EngineConfig, HardwareFacts, ModelFacts, ResolvedConfig, human_bytes
from llmcli.errors import LLMCliError, quote
from llmcli.fit import Way, explained, judge, remedies, verdict
from llmcli.hub.models import LocalModel, find_local
from llmcli.hub.names import HubId
from llmcli.hub.settings import HubSettings
from llmcli.jobs.doctor.check import Finding, failed, passed, warned
from llmcli.model.checkpoint import read_checkpoint
from llmcli.model.generation_config import read_generation_config
from llmcli.model.spec import ModelSpec

HELLO = {"role": "user", "content": "Hello"}
SYSTEM = {"role": "system", "content": "Be brief."}
# Fields of a plan as people see them, with the key of the reason.
PLAN_ROWS = (
    ("device", "device"),
    ("kernels", "kernels"),
    ("dtype", "dtype"),
    ("output head", "lm_head"),
    ("KV cache dtype", "kv_cache_dtype"),
    ("context", "max_model_len"),
    ("KV cache blocks", "num_blocks"),
    ("threads", "num_threads"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model is.

    Attributes:
        local: on this disk and complete, or None.
        hub_id: its name on the hub; None for a folder and the bundled one.
        missing: files that a cached copy lacks.
    """

    local: LocalModel | None
    hub_id: HubId | None
    missing: tuple[str, ...] = ()


def find_place(name: str, revision: str | None, settings: HubSettings) -> Place:
    """Look on this disk; opens no connection.

    Raises:
        UsageError: neither an id nor a folder.
        CheckpointError: a folder without a model.
    """
    local = find_local(name, revision=revision, settings=settings)
    if local is not None:
        return Place(local, HubId(local.name, local.revision) if local.source == "hub" else None)
    from llmcli.hub.download import find_cached
    from llmcli.hub.names import parse_hub_id

    hub_id = parse_hub_id(name, revision)
    _, missing = find_cached(hub_id, settings)
    return Place(None, hub_id, tuple(missing))


def check_place(place: Place) -> Finding:
    """It is here."""
    local = place.local
    if local is None:
        found = f"{place.hub_id} is not on this machine"
        if place.missing:
            found = f"{place.hub_id} is in the cache, but lacks {quote(', '.join(place.missing), 200)}"
        return warned(found, f"llmcli pull {place.hub_id} fetches it; chat, run and bench do so, too")
    where = {"bundled": "comes with llmcli", "folder": "a folder", "hub": "from the hub, in the cache"}[
        local.source
    ]
    revision = f" at {local.revision[:7]}" if local.revision else ""
    return passed(f"{quote(local.name)}{revision}: {where}", quote(str(local.path), 1000))


def check_config(spec: ModelSpec) -> Finding:
    """What config.json says is supported; that it could be read at all is the caller's knowledge."""
    awq = spec.quantization
    weights = spec.checkpoint_dtype if awq is None else f"AWQ 4-bit ({awq.version})"
    groups = (
        ""
        if awq is None
        else ", a scale per row"
        if awq.group_size == -1
        else f", groups of {awq.group_size}"
    )
    window = next((window for window in spec.sliding_windows if window), None)
    return passed(
        f"{spec.architecture}, {weights}{groups}",
        f"{spec.num_layers} layers of {spec.hidden_size:,}; {spec.num_heads} query and {spec.num_kv_heads}"
        f" key-value heads of {spec.head_dim}; {spec.vocab_size:,} tokens",
        f"context of {spec.max_position:,} tokens, rope {spec.rope.kind}"
        + (f", sliding window {window:,}" if window else ""),
    )


def check_files(folder: Path) -> Finding:
    """All weights are there, and the files are as long as their headers say."""
    tensors = read_checkpoint(folder)
    files = {info.file for info in tensors.values()}
    size = sum(file.stat().st_size for file in files)
    return passed(
        f"{len(tensors)} tensors in {len(files)} safetensors file{'s' * (len(files) > 1)}, {human_bytes(size)}",
        "lengths and headers were read, not the weights; --smoke loads them",
    )


def check_tokenizer(folder: Path, spec: ModelSpec) -> Finding:
    """It can be read, suits the weights, ends answers, and has a chat template that works."""
    from llmcli.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(folder)
    defaults, eos_ids, warnings = read_generation_config(folder, spec)
    details = [f"{name} {value}" for name, value in defaults.items()] or [
        "the model sets no sampling defaults"
    ]
    found = f"{tokenizer.vocab_size:,} tokens"
    if tokenizer.vocab_size > spec.vocab_size:
        return failed(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens, config.json has {spec.vocab_size:,}",
            "the files are of different models: llmcli pull fetches them anew",
        )
    if not eos_ids and tokenizer.eos_id is None:
        return failed(
            f"{found}, none of which ends an answer",
            "set eos_token_id in config.json or generation_config.json",
        )
    if tokenizer.chat_template is None:
        return warned(
            f"{found}; no chat template: prompts go in as they are",
            "for a chat choose the model's chat or instruct version",
            *details,
            *warnings,
        )
    tokenizer.encode_chat([HELLO])
    try:
        tokenizer.encode_chat([SYSTEM, HELLO])
        system = "takes a system prompt"
    except LLMCliError:
        system = "refuses a system prompt"
    return passed(f"{found}; the chat template works and {system}", *details, *warnings)


def check_plan(facts: ModelFacts, config: EngineConfig, hardware: HardwareFacts) -> Finding:
    """It fits, with the whole context that it is made for.

    Raises:
        DoesNotFitError, DeviceUnavailableError, UsageError: see `plan.resolve`; the first names what would fit.
    """
    fit = judge(config, facts, hardware)
    if fit.plan is None:
        assert fit.error is not None
        raise explained(fit.error, fit)
    found, others = verdict(fit)[0], [way for way in fit.ways if way.options]
    details = (*plan_lines(fit.plan), *map(_way_line, others))
    if fit.is_whole:
        return passed(found, *details)
    more_room = "raise --kv-cache-memory" if config.kv_cache_memory else "close other programs"
    return warned(found, "; ".join([*remedies(fit), more_room]), *details)


def _way_line(way: Way) -> str:
    """Another way to run it, with what would fit."""
    if not way.context:
        return f"{way.options}: does not fit"
    return f"{way.options}: context {way.context:,}, {way.sequences:,} such sequences at once"


def plan_lines(plan: ResolvedConfig) -> tuple[str, ...]:
    """Each value in force, and why."""
    lines = []
    for label, field in PLAN_ROWS:
        value = getattr(plan, field)
        shown = f"{value:,}" if isinstance(value, int) else str(value)
        reason = plan.reasons.get(field)
        lines.append(f"{label}: {shown}" + (f" ({reason})" if reason else ""))
    full = plan.kv_tokens // plan.max_model_len
    lines.append(f"at once: {full:,} sequences of full length, more of shorter ones")
    return tuple(lines)


def check_smoke(answer: Mapping[str, Any]) -> Finding:
    """It said something; `answer` is what `smoke.generate` returns."""
    if not answer["tokens"]:
        return warned("the model ended its answer at once", "try llmcli chat with another prompt")
    speed = answer["tokens"] / answer["answer_s"] if answer["answer_s"] else 0.0
    return passed(
        f"loaded in {answer['load_s']:.1f} s, {answer['tokens']} tokens in {answer['answer_s']:.1f} s"
        f" ({speed:.0f} tok/s, prompt included)",
        quote(answer["text"], 200),
    )
