"""`llmcli list`: the models on this machine, the bundled one too. Reads the cache; opens no connection."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcli.cli.list_filter import parse_filter, parse_order, select
from llmcli.cli.listing import Column, print_listing
from llmcli.cli.options import ListingFormat
from llmcli.config import EngineConfig, HardwareFacts, human_bytes
from llmcli.errors import DoesNotFitError, LLMCliError, UnsupportedModelError

if TYPE_CHECKING:
    from llmcli.hub.cache import CachedModel

UNITS = (("year", 365 * 86400), ("month", 30 * 86400), ("day", 86400), ("hour", 3600), ("minute", 60))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model as listed.

    Attributes:
        size: bytes on disk.
        context: tokens that the model is made for; None, like `parameters` and `fits`, where it can not run.
        fits: whether it fits on this machine now; `fits_context` tokens are the longest sequence then.
        modified, accessed: seconds since the epoch.
        source: hub or bundled.
    """

    name: str
    revision: str | None
    quantization: str
    size: int
    parameters: int | None
    context: int | None
    fits: bool | None
    fits_context: int | None
    modified: float
    accessed: float
    path: str
    source: str


def _params_cell(row: Row) -> str | None:
    from llmcli.model.parameters import short_count

    return None if row.parameters is None else short_count(row.parameters)


def _fits_cell(row: Row) -> str | None:
    if not row.fits:
        return None if row.fits is None else "no"
    return "yes" if row.fits_context == row.context else f"to {row.fits_context:,}"


COLUMNS = (
    Column("NAME", lambda row: f"{row.name} (bundled)" if row.source == "bundled" else row.name),
    Column("QUANT", lambda row: row.quantization, spare=5),
    Column("SIZE", lambda row: human_bytes(row.size)),
    Column("PARAMS", _params_cell, spare=3),
    Column("CTX", lambda row: None if row.context is None else f"{row.context:,}", spare=4),
    Column("FITS", _fits_cell),
    Column("MODIFIED", lambda row: ago(time.time() - row.modified), spare=2),
    Column("ACCESSED", lambda row: ago(time.time() - row.accessed), spare=1),
)


def list_models(
    *,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", "-a", help="Also what llmcli can not run: other formats, unfinished and broken ones."
        ),
    ] = False,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="EXPR",
            help="Only models for which this holds, such as 'size>4GB', 'params<8B', 'fits=yes', 'accessed>30d';"
            " may be repeated.",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            metavar="KEY[:asc|desc]",
            help="name, quant, size, params, ctx, fits, modified or accessed.",
        ),
    ] = None,
    form: ListingFormat = "auto",
) -> None:
    """List the models on this machine.

    Those of the hub's cache, and the bundled one. FITS is for the memory that is free now: yes, the longest context
    that fits, or no.

    Examples:
        llmcli list
        llmcli list --sort size --filter 'accessed>30d'
        llmcli list -q | grep -i awq
    """
    tests = [parse_filter(expression) for expression in filters or ()]
    order = None if sort is None else parse_order(sort)
    rows = _rows()
    runnable = [row for row in rows if everything or row.context is not None]
    found = select(runnable, tests, order, time.time())
    print_listing(found, COLUMNS, form)
    if form in ("auto", "human"):
        _tell_rest(len(rows) - len(runnable), bool(found), bool(tests))


def _tell_rest(num_hidden: int, any_found: bool, any_filter: bool) -> None:
    """What the table does not show, on stderr."""
    if num_hidden:
        typer.echo(f"{num_hidden} more that llmcli can not run: llmcli list --all", err=True)
    if not any_found and any_filter:
        typer.echo("no model is left by --filter", err=True)
    elif not any_found:
        typer.echo("no models here; fetch one with: llmcli pull owner/name", err=True)


def ago(seconds: float) -> str:
    """A span of time in words: '3 hours ago'."""
    for unit, length in UNITS:
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def _rows() -> list[Row]:
    """Every model, the bundled one first."""
    from llmcli.hardware import read_hardware_facts
    from llmcli.hub.cache import cached_models
    from llmcli.hub.settings import hub_settings
    from llmcli.runtime.gpu import find_gpu

    models = cached_models(hub_settings(offline=True))
    hardware = read_hardware_facts(find_gpu())
    bundled = _bundled_row(hardware)
    return ([bundled] if bundled else []) + [_cached_row(model, hardware) for model in models]


def _cached_row(model: "CachedModel", hardware: HardwareFacts) -> Row:
    if model.runnable:
        known = _facts(model.path, hardware)
    else:
        known = _unknown("other" if model.revision else "broken" if model.num_revisions else "unfinished")
    return Row(
        name=model.name,
        revision=model.revision or None,
        size=model.size,
        modified=model.modified,
        accessed=model.accessed,
        path=str(model.path),
        source="hub",
        **known,
    )


def _bundled_row(hardware: HardwareFacts) -> Row | None:
    from llmcli.hub.models import bundled_model

    try:
        model = bundled_model()
    except LLMCliError:
        return None
    files = [path.stat() for path in model.path.iterdir() if path.is_file()]
    return Row(
        name=model.name,
        revision=None,
        size=sum(stat.st_size for stat in files),
        modified=max(stat.st_mtime for stat in files),
        accessed=max(stat.st_atime for stat in files),
        path=str(model.path),
        source=model.source,
        **_facts(model.path, hardware),
    )


def _facts(folder: Path, hardware: HardwareFacts) -> dict[str, Any]:
    """What the settings and the headers of the weights tell: fields of `Row`."""
    from llmcli.model.checkpoint import read_checkpoint
    from llmcli.model.facts import read_model_facts
    from llmcli.model.parameters import count_parameters
    from llmcli.model.spec import read_model_spec
    from llmcli.plan import resolve

    try:
        spec = read_model_spec(folder)
        tensors = read_checkpoint(folder)
        facts = read_model_facts(folder, spec, tensors)
    except UnsupportedModelError:
        return _unknown("unsupported")
    except LLMCliError:
        return _unknown("unreadable")
    try:
        fits_context: int | None = resolve(EngineConfig(), facts, hardware).max_model_len
    except DoesNotFitError:
        fits_context = None
    return {
        "quantization": "awq 4-bit" if spec.quantization else facts.checkpoint_dtype,
        "parameters": count_parameters(tensors, spec),
        "context": spec.max_position,
        "fits": fits_context is not None,
        "fits_context": fits_context,
    }


def _unknown(kind: str) -> dict[str, Any]:
    """The fields of a model that can not run."""
    return {"quantization": kind, "parameters": None, "context": None, "fits": None, "fits_context": None}
