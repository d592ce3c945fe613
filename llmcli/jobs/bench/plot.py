"""Benchmarks as PNG files: the rows of two results side by side, or rates over batch sizes.

Needs matplotlib, the extra `plot`. Draws without a display. Knows no engine and no options; `cli/bench*.py` call it
with rows that are done.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcli.errors import MissingExtraError, OutputError, UsageError, quote
from llmcli.jobs.bench.compare import Comparison, Pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Wong, "Points of view: Color blindness", Nature Methods 8 (2011).
GREY, GREEN, ORANGE = "#8a8a8a", "#009e73", "#d55e00"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MAX_LABEL = 48


def check_plot(path: Path) -> None:
    """Refuse early what would fail when all is measured.

    Raises:
        UsageError: it is no .png in a folder that exists.
        MissingExtraError: matplotlib is not installed.
    """
    import importlib.util

    if path.suffix.lower() != ".png":
        raise UsageError(f"--plot must name a .png file, got {quote(str(path))}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot {quote(str(path))}: its folder does not exist")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError(
            "--plot needs matplotlib, which is not installed", fix="pip install 'llmcli[plot]'"
        )


def plot_comparison(comparison: Comparison, names: tuple[str, str], path: Path) -> None:
    """Speed ratios as points with their intervals; 1 is a line.

    Raises:
        OutputError: the file can not be written.
    """
    pairs = [pair for pair in comparison.pairs if pair.speed is not None]
    figure, axes = _figure(max(2.2, 0.42 * len(pairs) + 1.4))
    for place, pair in enumerate(reversed(pairs)):
        _draw_pair(axes, place, pair)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(pairs)), [_label(pair) for pair in reversed(pairs)])
    axes.set_ylim(-0.6, len(pairs) - 0.4)
    axes.margins(x=0.15)
    axes.set_xlabel(
        "speed ratio with 95 % interval: right of 1 is faster; grey: within the noise, or one run"
    )
    axes.set_title(f"{_short(names[1])} against {_short(names[0])}", loc="left", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    _save(figure, path)


def _draw_pair(axes: "Axes", place: int, pair: Pair) -> None:
    speed = pair.speed
    assert speed is not None
    color = {"faster": GREEN, "slower": ORANGE}.get(pair.verdict, GREY)
    if speed.low is not None and speed.high is not None:
        axes.plot([speed.low, speed.high], [place, place], color=color, linewidth=2, solid_capstyle="butt")
        axes.plot([speed.low, speed.high], [place, place], "|", color=color, markersize=9)
    axes.plot([speed.value], [place], "o", color=color, markersize=6)
    axes.annotate(
        f"{speed.value:.3f}",
        (speed.value, place),
        (0, 7),
        textcoords="offset points",
        ha="center",
        fontsize=8,
    )


def _label(pair: Pair) -> str:
    return _short(pair.before.test) + ("" if pair.before.batch is None else f", batch {pair.before.batch}")


def plot_sweep(tests: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Generated tokens per second over the batch size, one line for each combination of all else.

    Args:
        tests: rows of a sweep, as JSON.

    Raises:
        OutputError: the file can not be written.
    """
    lines: dict[str, list[tuple[int, float]]] = {}
    for test in tests:
        if test["S_TG"] is not None:
            lines.setdefault(test["test"], []).append((test["B"], test["S_TG"]))
    figure, axes = _figure(4.2)
    for number, (name, points) in enumerate(lines.items()):
        batches, rates = zip(*sorted(points), strict=True)
        axes.plot(batches, rates, "o-", color=SERIES[number % len(SERIES)], label=_short(name), markersize=5)
    batches_seen = sorted({test["B"] for test in tests})
    if len(batches_seen) > 1:
        axes.set_xscale("log", base=2)
    axes.set_xticks(batches_seen, [str(batch) for batch in batches_seen])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("sequences at once")
    axes.set_ylabel("generated tokens per second, all together")
    axes.set_title(_short(title), loc="left", fontsize=10)
    axes.grid(alpha=0.3)
    if lines:
        axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def _figure(height: float) -> tuple[Any, "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _short(text: str) -> str:
    """Plain text: a $ would start a formula."""
    return quote(text, MAX_LABEL).replace("$", r"\$")


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise OutputError(f"--plot {quote(str(path))} can not be written: {error.strerror}") from None
