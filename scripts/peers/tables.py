"""Prints a result: for each model a table of medians and ratios, and what else must be known to read it.

Works on the document that `result.py` writes, so a kept file can be printed again:

    python -m scripts.peers.tables benchmarks/cpu-peers-DATE.json
"""

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DISTURBED_MARK = "*"


def lines(document: dict[str, Any]) -> Iterator[str]:
    machine = document["environment"]
    yield f"{machine['cpu']}, {document['options']['threads']} threads, {document['options']['rounds']} rounds"
    for name, model in document["models"].items():
        yield ""
        yield f"{name} ({model['shape']})"
        yield from _bandwidth(model)
        yield f"  {'':12} {'':22} {'median':>9} {'least..most':>17}   {'llmcli / peer':>13} {'least..most':>13}"
        for test, row in model["medians"].items():
            for peer in row:
                yield f"  {test:12} {_figures(document, model, test, peer)}"
        for peer, reason in model["left_out"].items():
            yield f"  left out: {document['peers'][peer]}: {reason}"
        for row in model["measurements"]:
            if "error" in row:
                what = f"{document['peers'][row['peer']]}, {row['test']}"
                yield f"  failed in round {row['round']}: {what}: {row['error']}"
        if any(row["disturbed"] for row in model["measurements"]):
            yield f"  {DISTURBED_MARK} others used the processor in at least one round: measure again when it is quiet"


def _figures(document: dict[str, Any], model: dict[str, Any], test: str, peer: str) -> str:
    median, ratio = model["medians"][test][peer], model["ratios"][test].get(peer)
    rows = [row for row in model["measurements"] if row["peer"] == peer and row["test"] == test]
    mark = DISTURBED_MARK if any(row["disturbed"] for row in rows) else " "
    unit = document["tests"][test]["unit"]
    text = f"{document['peers'][peer]:22} {median['median']:9.2f} {_range(median, 2):>17} {mark} {unit:5}"
    if ratio is None or peer == "llmcli":
        return text.rstrip()
    return f"{text} {ratio['median']:9.2f} {_range(ratio, 2):>13}"


def _range(spread: dict[str, float], digits: int) -> str:
    return f"{spread['least']:.{digits}f}..{spread['most']:.{digits}f}"


def _bandwidth(model: dict[str, Any]) -> Iterator[str]:
    for threads in sorted({row["threads"] for row in model["read_bandwidth"]}):
        rates = [row["bytes_per_s"] / 1e9 for row in model["read_bandwidth"] if row["threads"] == threads]
        spread = f"{min(rates):.1f}..{max(rates):.1f}"
        yield f"  memory, {threads} threads: {statistics.median(rates):.1f} GB/s read ({spread})"
    share = model["share_of_read_bandwidth"]
    if share is not None:
        spread = f"{share['least']:.0%}..{share['most']:.0%}"
        yield f"  llmcli's weights at batch 1: {share['median']:.0%} of what it gave then ({spread})"


def main() -> None:
    for path in sys.argv[1:]:
        print("\n".join(lines(json.loads(Path(path).read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main()
