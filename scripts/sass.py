"""Reads machine code as nvdisasm prints it: where its inner loop is, and whether registers were spilled.

Pure text in, numbers out; knows neither Triton nor which kernel this is. Called by count_instructions.py.
"""

import re
from collections import Counter
from collections.abc import Iterable

# `        /*2890*/               @P5 BRA `(.L_x_2) ;`
INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
LABEL = re.compile(r"\s*(\.L\w+):")
TARGET = re.compile(r"`\((\.L\w+)\)")
SPILLS = {
    "LDL",
    "STL",
}  # loads and stores of a thread's local memory, which is where registers are spilled to
RESOURCE = re.compile(r"\b(REG|STACK|LOCAL):(\d+)")


def opcodes(lines: Iterable[str]) -> Counter[str]:
    """How often each opcode occurs, without its modifiers: LDG for LDG.E.128."""
    found = (INSTRUCTION.match(line) for line in lines)
    return Counter(match[1].split(".")[0] for match in found if match)


def inner_loop(lines: list[str]) -> Counter[str]:
    """Opcodes of the largest innermost loop, or none where there is no loop.

    A loop is what lies between a label and a branch back to it; an innermost one holds no other. Branches
    forward inside of it are counted with both ways. The branch to itself after the end of every kernel, a trap,
    is a loop of one instruction, so the largest is meant.
    """
    labels: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    for number, line in enumerate(lines):
        if label := LABEL.match(line):
            labels[label[1]] = number
        start = labels.get(_branch_target(line))
        if start is not None:
            loops.append((start, number))
    innermost = [loop for loop in loops if not any(_is_inside(other, loop) for other in loops)]
    bodies = [opcodes(lines[first : last + 1]) for first, last in innermost]
    return max(bodies, key=Counter.total, default=Counter())


def _branch_target(line: str) -> str:
    found, target = INSTRUCTION.match(line), TARGET.search(line)
    is_branch = found is not None and found[1].split(".")[0] == "BRA"
    return target[1] if is_branch and target else ""


def _is_inside(loop: tuple[int, int], other: tuple[int, int]) -> bool:
    return loop != other and other[0] <= loop[0] and loop[1] <= other[1]


def num_spills(lines: Iterable[str]) -> int:
    """Instructions that touch local memory, anywhere in the kernel."""
    return sum(count for opcode, count in opcodes(lines).items() if opcode in SPILLS)


def resources(usage: str) -> dict[str, int]:
    """REG (registers of a thread), STACK and LOCAL (bytes of a thread) from `cuobjdump -res-usage`.

    Raises:
        ValueError: they are not there.
    """
    found = {name: int(value) for name, value in RESOURCE.findall(usage)}
    if found.keys() != {"REG", "STACK", "LOCAL"}:
        raise ValueError(f"cuobjdump told no resource usage: {usage.strip()[:200]!r}")
    return found
