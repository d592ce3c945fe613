"""The lines that tell how an answer went and how the chat stands: numbers in, text out.

Pure formatting; knows no terminal and no engine.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmcli.errors import quote
from llmcli.outputs import RequestStats, TokenLogprobs
from llmcli.ui.parameters import Parameters, show_value
from llmcli.ui.wrap import wrap_lines

NEARLY_FULL = 0.8
BETWEEN = " · "
GAP = "  "


def stats_line(stats: RequestStats, max_model_len: int | None) -> str:
    """One line on an answer: time to first token, speed, counts, and how much of the context is used."""
    parts = [f"TTFT {stats.ttft_s:.2f} s"]
    if stats.tokens_per_s > 0:
        parts.append(f"{stats.tokens_per_s:.1f} tok/s")
    parts.append(f"{count(stats.num_output_tokens)} tok")
    cached = f" ({count(stats.num_cached_tokens)} cached)" if stats.num_cached_tokens else ""
    parts.append(f"prompt {count(stats.num_prompt_tokens)}{cached}")
    parts.append(context_use(used_tokens(stats), max_model_len))
    return BETWEEN.join(parts)


def fold(line: str, width: int) -> str:
    """A line of numbers broken between them, not within, where it is longer than a window is wide."""
    lines: list[str] = []
    for part in line.split(BETWEEN):
        longer = lines[-1] + BETWEEN + part if lines else part
        if lines and len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return "\n".join(lines)


def context_use(used: int, max_model_len: int | None) -> str:
    """`ctx 1 255/8 192 (15 %)`; without a limit that is known, `ctx 1 255`."""
    if max_model_len is None:
        return f"ctx {count(used)}"
    return f"ctx {count(used)}/{count(max_model_len)} ({used / max_model_len * 100:.0f} %)"


def used_tokens(stats: RequestStats) -> int:
    """Positions of the context that a prompt and its answer take."""
    return stats.num_prompt_tokens + stats.num_output_tokens


def nearly_full(used: int, max_model_len: int | None) -> bool:
    """Whether the context is used so far that the user should be warned."""
    return max_model_len is not None and used >= NEARLY_FULL * max_model_len


def count(number: int) -> str:
    """A number with a space between thousands."""
    return f"{number:,}".replace(",", " ")


def table(rows: Sequence[tuple[str, str]], width: int | None = None) -> str:
    """Rows of label and value, the values in one column.

    Args:
        width: of the window: values are wrapped within it, and a label that is long stands above its value.
    """
    widest = max((len(label) for label, _ in rows), default=0)
    if width is None:
        return "\n".join(f"{label:<{widest}}  {value}".rstrip() for label, value in rows)
    column = min(widest, width // 3)
    lines = []
    for label, value in rows:
        first, *others = wrap_lines(value, max(1, width - column - len(GAP)))
        lines += (
            [f"{label:<{column}}{GAP}{first}"]
            if len(label) <= column
            else [label, " " * column + GAP + first]
        )
        lines += [" " * column + GAP + line for line in others]
    return "\n".join(line.rstrip() for line in lines)


def sampling_rows(parameters: Parameters, defaults: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Rows of each sampling parameter with its value and origin.

    Args:
        defaults: those of the model; None where a server has them.
    """
    rows = [
        (value.name, f"{show_value(value.value)} ({value.origin})") for value in parameters.in_force(defaults)
    ]
    if defaults is not None and not defaults:
        rows.insert(0, ("sampling defaults", "none of the model's own"))
    return rows


@dataclass(slots=True)
class Totals:
    """What a chat has cost since it was started, answers that were taken back included."""

    answers: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    decode_s: float = 0.0
    decoded_tokens: int = 0

    def add(self, stats: RequestStats | None) -> None:
        """Count one answer; one without numbers counts as an answer only."""
        self.answers += 1
        if stats is None:
            return
        self.prompt_tokens += stats.num_prompt_tokens
        self.cached_tokens += stats.num_cached_tokens
        self.output_tokens += stats.num_output_tokens
        self.seconds += stats.total_s
        self.decode_s += max(0.0, stats.total_s - stats.ttft_s)
        self.decoded_tokens += max(0, stats.num_output_tokens - 1)

    def rows(self) -> list[tuple[str, str]]:
        """Rows of label and value."""
        cached = f" ({self.cached_tokens / self.prompt_tokens:.0%} cached)" if self.prompt_tokens else ""
        rate = f"{self.decoded_tokens / self.decode_s:.1f} tok/s" if self.decode_s > 0 else "not known yet"
        return [
            ("answers", count(self.answers)),
            ("prompt tokens", count(self.prompt_tokens) + cached),
            ("output tokens", count(self.output_tokens)),
            ("time", f"{self.seconds:.1f} s"),
            ("decoding", rate),
        ]


def logprob_lines(logprobs: Iterable[TokenLogprobs]) -> str:
    """One line for each token: how likely it was, and what was as likely."""
    return "\n".join(_logprob_line(entry) for entry in logprobs)


def _logprob_line(entry: TokenLogprobs) -> str:
    others = [other for other in entry.top if other.text != entry.sampled.text]
    shown = [entry.sampled, *others]
    return " · ".join(f"{quote(repr(one.text), 40)} {math.exp(one.logprob):.1%}" for one in shown)
