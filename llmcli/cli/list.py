"""`llmcli list`: the models on this machine, the bundled one too. Reads the cache; opens no connection."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from llmcli.cli.listing import Column, print_listing
from llmcli.cli.options import ListingFormat
from llmcli.config import human_bytes
from llmcli.errors import LLMCliError, UnsupportedModelError
from llmcli.hub.cache import cached_models
from llmcli.hub.models import bundled_model
from llmcli.hub.settings import hub_settings
from llmcli.model.spec import read_model_spec

UNITS = (("day", 86400), ("hour", 3600), ("minute", 60))


@dataclass(frozen=True, slots=True)
class Row:
    """One model as listed; context in tokens, size in bytes, modified in seconds since the epoch; source is hub or
    bundled."""

    name: str
    revision: str | None
    quantization: str
    size: int
    context: int | None
    modified: float
    path: str
    source: str


COLUMNS = (
    Column("NAME", lambda row: f"{row.name} (bundled)" if row.source == "bundled" else row.name),
    Column("QUANT", lambda row: row.quantization),
    Column("SIZE", lambda row: human_bytes(row.size)),
    Column("CTX", lambda row: None if row.context is None else f"{row.context:,}"),
    Column("MODIFIED", lambda row: ago(time.time() - row.modified)),
)


def list_models(
    *,
    everything: Annotated[
        bool,
        typer.Option("--all", "-a", help="Also what llmcli can not load: other formats, unfinished ones."),
    ] = False,
    form: ListingFormat = "auto",
) -> None:
    """List the models on this machine: the hub's cache and the bundled one.

    Examples:
        llmcli list
        llmcli list --json
        llmcli list -q | grep -i awq
    """
    rows = [row for row in (_bundled_row(), *_cached_rows(everything)) if row is not None]
    print_listing(rows, COLUMNS, form)
    if not rows:
        typer.echo("no models here; fetch one with: llmcli pull owner/name", err=True)


def ago(seconds: float) -> str:
    """A span of time in words: '3 hours ago'."""
    for unit, length in UNITS:
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def _cached_rows(everything: bool) -> list[Row]:
    rows = []
    for model in cached_models(hub_settings(offline=True)):
        if not model.runnable and not everything:
            continue
        quantization, context = _describe(model.path)
        about = (model.name, model.revision, quantization, model.size, context, model.modified)
        rows.append(Row(*about, str(model.path), "hub"))
    return rows


def _bundled_row() -> Row | None:
    try:
        model = bundled_model()
    except LLMCliError:
        return None
    quantization, context = _describe(model.path)
    files = [path.stat() for path in model.path.iterdir() if path.is_file()]
    size, modified = sum(stat.st_size for stat in files), max(stat.st_mtime for stat in files)
    return Row(model.name, None, quantization, size, context, modified, str(model.path), model.source)


def _describe(folder: Path) -> tuple[str, int | None]:
    """Quantization and context of a model, as far as its config.json can be read."""
    try:
        spec = read_model_spec(folder)
    except UnsupportedModelError:
        return "unsupported", None
    except LLMCliError:
        return "unreadable", None
    return "awq 4-bit" if spec.quantization else spec.checkpoint_dtype, spec.max_position
