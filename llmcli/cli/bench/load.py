"""From a model's name to an engine to measure: what can be refused is refused before weights are read.

Knows no benchmark; the forms of `llmcli bench` that run in this process call it. Imports nothing heavy until asked.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmcli.cli.bench.report import Report, warn
from llmcli.cli.options import ModelOptions
from llmcli.config import EngineConfig, ResolvedConfig
from llmcli.errors import UsageError, quote
from llmcli.nearest import nearest

if TYPE_CHECKING:
    from llmcli.engine.engine import Engine
    from llmcli.hub.models import LocalModel

SURELY_MEANT = 0.75  # likeness from which a name is a mistyped form, not a model
SUBCOMMANDS = ("latency", "throughput", "serve", "startup", "sweep", "compare")


def find_model(name: str | None, source: ModelOptions, config: EngineConfig, report: Report) -> "LocalModel":
    """The model's folder; fetched if need be and if it fits.

    Raises:
        ModelNotRunnableError: it would have to be fetched, and could not run with `config`.
        UsageError, ModelUnavailableError, CheckpointError: see `resolve_model`; or a subcommand was meant.
    """
    from llmcli.cli.verdict import before_download
    from llmcli.hub.models import resolve_model

    _refuse_subcommand(name)
    return resolve_model(
        name,
        revision=source.revision,
        offline=source.offline,
        on_notice=report.notice,
        before_fetch=before_download(config, report.notice),
    )


def _refuse_subcommand(name: str | None) -> None:
    """A subcommand behind an option, or one with a typing error, is no model."""
    if name is None or "/" in name or os.path.isdir(name):
        return
    if name in SUBCOMMANDS:
        raise UsageError(
            f"{name} is a form of llmcli bench and comes first",
            fix=f"llmcli bench {name} ...; a folder of that name is ./{name}",
        )
    near = nearest(name, SUBCOMMANDS, cutoff=SURELY_MEANT)
    if near:
        raise UsageError(
            f"there is no model and no form of llmcli bench called {quote(name)}",
            fix=f"did you mean llmcli bench {near[0]}?",
        )


def plan_of(model: "LocalModel", config: EngineConfig) -> ResolvedConfig:
    """What the engine will settle on, from config.json and the headers of the weights.

    Raises:
        ModelNotRunnableError: it is not supported, damaged, or does not fit.
    """
    from llmcli.fit import resolve_or_explain
    from llmcli.hardware import read_hardware_facts
    from llmcli.model.facts import read_model_facts
    from llmcli.model.spec import read_model_spec
    from llmcli.runtime.gpu import find_gpu

    spec = read_model_spec(model.path)
    gpu = None if config.wanted_device == "cpu" else find_gpu()
    return resolve_or_explain(config, read_model_facts(model.path, spec), read_hardware_facts(gpu))


def load_engine(
    model: "LocalModel", config: EngineConfig, check: Callable[[ResolvedConfig], None], report: Report
) -> "Engine":
    """Check the plan against what the engine will be, then load it.

    Raises:
        UsageError: what `check` raises, before the weights are read.
        ModelNotRunnableError: see `build_engine`.
    """
    check(plan_of(model, config))

    from llmcli.engine.build import build_engine  # torch: only now
    from llmcli.jobs.environment import environment

    engine = build_engine(model, config, on_phase=report.notice, on_warning=warn)
    report.begin(environment(engine))
    return engine


def with_room(config: EngineConfig, batch: int) -> EngineConfig:
    """The configuration with seats for a batch, where their number is left at its default."""
    if config.max_num_seqs == EngineConfig().max_num_seqs and batch > config.max_num_seqs:
        return dataclasses.replace(config, max_num_seqs=batch)
    return config


def peaks(engine: "Engine") -> dict[str, int | None]:
    """The most memory that was in use, in bytes, for a result's summary."""
    from llmcli.jobs.bench.quick import peak_gpu_memory, peak_memory

    return {"peak_memory_bytes": peak_memory(), "peak_gpu_memory_bytes": peak_gpu_memory(engine)}
