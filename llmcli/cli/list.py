"""`llmcli list`: the models on this machine, the bundled one too. Reads the cache; opens no connection."""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from llmcli.cli.options import Json, Quiet
from llmcli.config import human_bytes
from llmcli.errors import LLMCliError, UnsupportedModelError, quote
from llmcli.hub.cache import cached_models
from llmcli.hub.models import bundled_model
from llmcli.hub.settings import hub_settings
from llmcli.model.spec import read_model_spec
from llmcli.ui.console import stdout_console

COLUMNS = ("NAME", "QUANT", "SIZE", "CTX", "MODIFIED")
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

    def cells(self, now: float) -> tuple[str, ...]:
        """What a person sees."""
        name = quote(self.name) + (" (bundled)" if self.source == "bundled" else "")
        context = "-" if self.context is None else f"{self.context:,}"
        return name, self.quantization, human_bytes(self.size), context, ago(now - self.modified)


def list_models(
    *,
    everything: Annotated[
        bool,
        typer.Option("--all", "-a", help="Also what llmcli can not load: other formats, unfinished ones."),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the models on this machine: the hub's cache and the bundled one."""
    rows = [_bundled_row(), *_cached_rows(everything)]
    found = [row for row in rows if row is not None]
    if as_json:
        records = [{field: getattr(row, field) for field in Row.__slots__} for row in found]
        typer.echo(json.dumps(records, indent=2))
    elif quiet:
        for row in found:
            typer.echo(quote(row.name))
    else:
        now = time.time()
        print_table(COLUMNS, [row.cells(now) for row in found])
        if not found:
            typer.echo("no models here; fetch one with: llmcli pull owner/name", err=True)


def print_table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Aligned columns: with Rich on a terminal, as plain text elsewhere."""
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        for row in [columns, *rows]:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            typer.echo("  ".join(cells).rstrip())
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name != "NAME")
    for row in rows:
        table.add_row(*row)
    stdout_console().print(table)


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
