"""The plot: a step's time against context and against batch, with the roofline. Called by `scripts/bench_costs.py`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmcli.errors import MissingExtraError
from scripts.costs.figures import Figure


def check_matplotlib() -> None:
    """Raise a MissingExtraError where it is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "--plot needs matplotlib, which is not installed",
            fix="install it: pip install --constraint constraints.txt --editable '.[plot]'",
        ) from None


def draw(path: Path, title: str, contexts: Sequence[Figure], batches: Sequence[Figure]) -> None:
    """Write an SVG with two panels; all axes are logarithmic."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    # Text stays text, and the same figures give the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "costs"}):
        canvas = Canvas(figsize=(11, 4.6), layout="constrained")
        canvas.suptitle(title)
        left, right = canvas.subplots(1, 2)
        panel(left, [figure.point.context for figure in contexts], contexts)
        left.set(
            xlabel="context, tokens", title=f"batch {contexts[0].point.batch}", ylabel="time of a step, ms"
        )
        panel(right, [figure.point.batch for figure in batches], batches)
        right.set(xlabel="sequences in the batch", title=f"context {batches[0].point.context}")
        left.legend()
        canvas.savefig(path, format="svg", metadata={"Date": None})


def panel(axes: Any, sizes: Sequence[int], figures: Sequence[Figure]) -> None:
    """One series: medians with their spread, attention's part of them, and the roofline."""
    from matplotlib.ticker import LogLocator

    medians = [figure.median_s * 1e3 for figure in figures]
    below = [(figure.median_s - min(figure.seconds)) * 1e3 for figure in figures]
    above = [(max(figure.seconds) - figure.median_s) * 1e3 for figure in figures]
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.errorbar(
        sizes, medians, yerr=[below, above], marker="o", capsize=3, label="measured, median and range"
    )
    axes.plot(
        sizes,
        [figure.roofline_s * 1e3 for figure in figures],
        "k--",
        label="roofline: bytes / read bandwidth",
    )
    if all("attention" in figure.shares for figure in figures):
        part = [figure.median_s * figure.shares["attention"] * 1e3 for figure in figures]
        axes.plot(sizes, part, marker=".", color="tab:orange", label="of it attention")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
