"""The checked-in table of instruction counts: its form on disk, and what it takes to pass it.

Knows no compiler: count_instructions.py brings the results and decides which table they are held against.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Bytes of shared memory that one block can have.
SHARED_MEMORY = {"sm_80": 163 << 10, "sm_89": 99 << 10, "sm_90": 227 << 10}
ROUNDING = 0.005

Recorded = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Figures:
    """What was found of one variant.

    Attributes:
        per_unit: thread-instructions of the inner loop for each unit, None where no figure is kept.
        registers: of a thread.
        shared_memory: bytes of a block.
        spills: bytes of stack and local memory of a thread, where registers go that there are too few of, and
            instructions on them where the code was looked at.
    """

    unit: str | None
    per_unit: float | None
    registers: int
    shared_memory: int
    spills: int


@dataclass(frozen=True)
class Result:
    """A variant's figures and the opcodes of its inner loop, or why there are none."""

    arch: str
    name: str
    figures: Figures | None
    opcodes: Counter[str] = field(default_factory=Counter)
    failure: str = ""

    @property
    def where(self) -> str:
        return f"{self.arch} {self.name}"


def complaints(results: list[Result], recorded: Recorded | None, complete: bool) -> list[str]:
    """One sentence for each thing that must not be.

    Args:
        recorded: the table's figures by architecture and name, or None to compare none.
        complete: `results` has all variants of its architectures, so no line of the table may be left over.
    """
    found = [sentence for result in results for sentence in _wrong_in_itself(result)]
    if recorded is None:
        return found
    for result in results:
        if result.figures is not None:
            sentence = _wrong_beside(result.figures, recorded.get(result.arch, {}).get(result.name))
            found += [f"{result.where}: {sentence}"] if sentence else []
    if complete:
        found += _left_over(results, recorded)
    return found


def _wrong_in_itself(result: Result) -> Iterator[str]:
    figures = result.figures
    if figures is None:
        yield f"{result.where}: does not compile: {result.failure}"
        return
    if figures.spills:
        yield f"{result.where}: spills registers ({figures.spills})"
    limit = SHARED_MEMORY[result.arch]
    if figures.shared_memory > limit:
        yield f"{result.where}: {figures.shared_memory} bytes of shared memory, a block has {limit}"
    if figures.unit is not None and not result.opcodes:
        yield f"{result.where}: there is no loop to count"


def _wrong_beside(figures: Figures, recorded: Mapping[str, Any] | None) -> str:
    if recorded is None:
        return "not in the table"
    if recorded["unit"] != figures.unit:
        return f"counted for each {figures.unit}, the table has {recorded['unit']}"
    if figures.per_unit is None or figures.per_unit <= recorded["per_unit"] + ROUNDING:
        return ""
    return f"{figures.per_unit:.2f} instructions per {figures.unit}, the table has {recorded['per_unit']:.2f}"


def _left_over(results: list[Result], recorded: Recorded) -> list[str]:
    there = {(result.arch, result.name) for result in results}
    archs = {result.arch for result in results}
    return [
        f"{arch} {name}: in the table, but no variant any more"
        for arch, variants in recorded.items()
        for name in variants
        if arch in archs and (arch, name) not in there
    ]


def read_table(path: Path) -> tuple[str, Recorded]:
    """The version of Triton that the figures are of, and the figures by architecture and name."""
    table = json.loads(path.read_text("utf-8"))
    return table["triton"], table["figures"]


def write_table(path: Path, version: str, results: list[Result]) -> None:
    """One line a variant. Other architectures keep their figures, unless those are of another Triton."""
    before = read_table(path) if path.exists() else ("", {})
    figures = dict(before[1]) if before[0] == version else {}
    for arch in {result.arch for result in results}:
        figures[arch] = {
            r.name: asdict(r.figures) for r in results if r.arch == arch and r.figures is not None
        }
    blocks = []
    for arch in sorted(figures):
        rows = [f"   {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(figures[arch].items())]
        blocks.append(f"  {json.dumps(arch)}: {{\n" + ",\n".join(rows) + "\n  }")
    text = f'{{\n "triton": {json.dumps(version)},\n "figures": {{\n' + ",\n".join(blocks) + "\n }\n}\n"
    path.write_text(text, "utf-8")
