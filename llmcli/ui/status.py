"""The lines that tell how an answer went and how the chat stands: numbers in, text out.

Pure formatting; knows no terminal and no engine.
"""

from collections.abc import Iterable, Sequence

from llmcli.outputs import RequestStats
from llmcli.ui.parameters import ParameterValue, show_value

NEARLY_FULL = 0.8


def stats_line(stats: RequestStats, max_model_len: int) -> str:
    """One line on an answer: time to first token, speed, counts, and how much of the context is used."""
    parts = [f"TTFT {stats.ttft_s:.2f} s"]
    if stats.tokens_per_s > 0:
        parts.append(f"{stats.tokens_per_s:.1f} tok/s")
    parts.append(f"{count(stats.num_output_tokens)} tok")
    cached = f" ({count(stats.num_cached_tokens)} cached)" if stats.num_cached_tokens else ""
    parts.append(f"prompt {count(stats.num_prompt_tokens)}{cached}")
    parts.append(context_use(used_tokens(stats), max_model_len))
    return " · ".join(parts)


def context_use(used: int, max_model_len: int) -> str:
    """`ctx 1 255/8 192 (15 %)`."""
    return f"ctx {count(used)}/{count(max_model_len)} ({used / max_model_len * 100:.0f} %)"


def used_tokens(stats: RequestStats) -> int:
    """Positions of the context that a prompt and its answer take."""
    return stats.num_prompt_tokens + stats.num_output_tokens


def nearly_full(used: int, max_model_len: int) -> bool:
    """Whether the context is used so far that the user should be warned."""
    return used >= NEARLY_FULL * max_model_len


def count(number: int) -> str:
    """A number with a space between thousands."""
    return f"{number:,}".replace(",", " ")


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Rows of label and value, the values in one column."""
    width = max((len(label) for label, _ in rows), default=0)
    return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)


def parameter_rows(values: Iterable[ParameterValue]) -> list[tuple[str, str]]:
    """Rows of parameter name, and value with origin."""
    return [(value.name, f"{show_value(value.value)} ({value.origin})") for value in values]
