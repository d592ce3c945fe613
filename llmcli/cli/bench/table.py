"""How a benchmark's result is printed beside the table for people (`cli/listing.py`): Markdown, CSV, bars, numbers.

Every row is the JSON object that the file has too (`jobs/bench/result.py`). Knows no benchmark: a command says
which columns its people want. Called by `cli/bench/report.py`.
"""

import csv
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmcli.cli.listing import Column
from llmcli.config import human_bytes
from llmcli.errors import quote

if TYPE_CHECKING:
    from rich.console import Console

BAR_CELLS = 24
_EIGHTHS = " ▏▎▍▌▋▊▉█"
RowJson = Mapping[str, Any]


def write_line(console: "Console", text: str) -> None:
    """One line, not wrapped, control characters escaped."""
    from rich.text import Text

    console.print(Text(quote(text, 10_000)), soft_wrap=True)


def print_markdown(columns: Sequence[Column], rows: Sequence[RowJson]) -> None:
    """A table of GitHub's Markdown."""
    print("| " + " | ".join(column.title for column in columns) + " |")
    print("| " + " | ".join("---:" if column.right else "---" for column in columns) + " |")
    for row in rows:
        print("| " + " | ".join(column.text(row).replace("|", "\\|") for column in columns) + " |")


def model_columns(environment: Mapping[str, Any]) -> list[Column]:
    """The columns that llama-bench puts before its tests: model, size, parameters, backend, threads."""
    from llmcli.model.parameters import short_count

    size, parameters = environment.get("weight_bytes"), environment.get("parameters")
    values = {
        "model": environment.get("model") or "",
        "size": "" if size is None else human_bytes(size),
        "params": "" if parameters is None else short_count(parameters),
        "dtype": " ".join(filter(None, (environment.get("quantization"), environment.get("dtype")))),
        "backend": environment.get("device") or "",
        "threads": environment.get("threads") or "",
    }
    return [
        Column(name, lambda _, text=str(value): text)  # type: ignore[misc]
        for name, value in values.items()
        if value
    ]


def print_csv(result: Mapping[str, Any]) -> None:
    """One line for each test, with the values of the environment that are no lists or objects."""
    environment = {f"env_{key}": value for key, value in result["environment"].items() if _is_plain(value)}
    rows = [
        {"kind": result["kind"]} | {k: v for k, v in row.items() if _is_plain(v)} | environment
        for row in result["tests"]
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _is_plain(value: Any) -> bool:
    return not isinstance(value, list | dict)


def bar(share: float, cells: int = BAR_CELLS) -> str:
    """A bar of that share (0..1) of `cells`; # where the output's encoding has no blocks."""
    share = min(max(share, 0.0), 1.0)
    if "utf" not in (sys.stdout.encoding or "").lower():
        return "#" * round(share * cells)
    eighths = round(share * cells * 8)
    return (_EIGHTHS[8] * (eighths // 8) + _EIGHTHS[eighths % 8]).strip()


def seconds(value: float | None) -> str:
    """A time for people: 1.23 s, 45.6 ms, 78 µs."""
    if value is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            scaled = value / size
            return f"{scaled:.{0 if scaled >= 1000 else 1 if scaled >= 100 else 2}f} {unit}"
    return f"{value * 1e6:.0f} µs"


def spread(row: RowJson) -> str:
    """`12.34 ± 0.56`, without the spread where there is one run."""
    if row["mean"] is None:
        return ""
    digits = 0 if row["mean"] >= 10_000 else 1 if row["mean"] >= 1000 else 2
    text = f"{row['mean']:.{digits}f}"
    return f"{text} ± {row['stdev']:.{digits}f}" if len(row["samples"]) > 1 else text


def second_spread(row: RowJson) -> str:
    """The same of times: `1.23 s ± 4.5 ms`."""
    if row["mean"] is None:
        return ""
    text = seconds(row["mean"])
    return f"{text} ± {seconds(row['stdev'])}" if len(row["samples"]) > 1 else text
