"""How a batch is going, on stderr: a bar on a terminal, else a line every ten seconds, or JSON lines for programs.

At the end comes a table. Reads counts and the engine's statistics, changes nothing. `cli/run.py` makes one,
`batch.py` feeds it.
"""

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from llmcli.errors import quote
from llmcli.jobs.batch.records import Result

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from llmcli.engine.engine import EngineStats

ProgressForm = Literal["auto", "plain", "json"]

MAX_LINE = 10_000
PLAIN_INTERVAL_S = 10.0
BAR_INTERVAL_S = 0.5
JSON_INTERVAL_S = 1.0
RATE_SPAN_S = 5.0  # a rate is over at least this long, so that it does not jump


@dataclass(slots=True)
class BatchCounts:
    """The state of a batch in numbers; changed by `batch.py` alone.

    Attributes:
        total: requests of the file.
        done: records written, failed ones and those of earlier runs included.
        resumed: of them, how many an earlier run has written.
        failures: kind of failure -> number of records.
    """

    total: int
    done: int = 0
    resumed: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    @property
    def failed(self) -> int:
        return self.failures.total()

    def add(self, result: Result) -> None:
        """Count one record."""
        usage = result.usage
        self.done += 1
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.output_tokens += usage.completion_tokens
        if result.failure is not None:
            self.failures[result.failure.code] += 1


def short_number(value: float) -> str:
    """8123 -> '8.1k', 48.25 -> '48'."""
    for unit in ("", "k", "M", "G"):
        if value < 1000 or unit == "G":
            break
        value /= 1000
    return f"{value:.0f}" if not unit else f"{value:.1f}{unit}"


def clock_time(seconds: float) -> str:
    """192 -> '03:12', 3700 -> '1:01:40'."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute:02}:{second:02}"


class BatchProgress:
    """Shows a batch while it runs; enter it around the run.

    Args:
        console: on stderr.
        form: "plain" shows lines even on a terminal, "json" a JSON object a second.
        quiet: show nothing at all.
        results_here: the results go to the same terminal, where a bar would stand between them.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        console: "Console",
        *,
        form: ProgressForm = "auto",
        quiet: bool = False,
        results_here: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        on_terminal = console.is_terminal and not console.is_dumb_terminal and not results_here
        self._has_bar = on_terminal and form == "auto"
        self._json = form == "json"
        self._quiet = quiet
        self._clock = clock
        self._bar: Progress | None = None
        plain_s = JSON_INTERVAL_S if self._json else PLAIN_INTERVAL_S
        self._interval_s = BAR_INTERVAL_S if self._has_bar else plain_s
        self._started_at = self._shown_at = clock()
        self._rates = (0.0, 0.0)
        self._counted = (self._started_at, 0, 0)

    def start(self, counts: BatchCounts) -> None:
        """Begin to measure, and on a terminal to show a bar."""
        self._started_at = self._shown_at = self._clock()
        self._counted = (self._started_at, 0, 0)
        if self._has_bar and not self._quiet:
            from rich.progress import BarColumn, Progress, TextColumn
            from rich.table import Column

            wrapped = Column(no_wrap=False)  # two lines on a narrow terminal, rather than no ETA
            line = TextColumn("{task.description}", markup=False, table_column=wrapped)
            columns = (BarColumn(bar_width=10), line)
            self._bar = Progress(*columns, console=self._console, transient=True, redirect_stdout=False)
            self._bar.add_task("", total=counts.total)
            self._bar.start()

    def update(self, counts: BatchCounts, stats: "Callable[[], EngineStats]") -> None:
        """Show the state, if it is time to; called after every step."""
        now = self._clock()
        if self._quiet or now - self._shown_at < self._interval_s:
            return
        self._shown_at = now
        state = self._state(counts, stats(), now)
        if self._json:
            self._event("progress", **state)
        elif self._bar is None:
            self.say(_line(state))
        else:
            self._bar.update(self._bar.task_ids[0], completed=counts.done, description=_line(state))

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, line: str) -> None:
        """One line of notice; what a terminal would act on is escaped."""
        if self._json:
            self._event("notice", message=line)
        elif not self._quiet:
            self._console.print(quote(line, MAX_LINE), soft_wrap=True, markup=False, highlight=False)

    def summary(self, counts: BatchCounts) -> None:
        """The table at the end."""
        if self._quiet:
            return
        seconds = max(self._clock() - self._started_at, 1e-9)
        if self._json:
            self._event("summary", **_sums(counts), seconds=round(seconds, 3))
            return
        from rich.table import Table

        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="dim")
        table.add_column()
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.failures.items()))
        failed = f" · {counts.failed} failed ({kinds})" if counts.failed else ""
        resumed = f" · {counts.resumed} of an earlier run" if counts.resumed else ""
        table.add_row("requests", f"{counts.done}/{counts.total}{failed}{resumed}")
        cached = f" · {counts.cached_tokens:,} from the prefix cache" if counts.cached_tokens else ""
        table.add_row("prompt", self._tokens(counts.prompt_tokens, seconds) + cached)
        table.add_row("output", self._tokens(counts.output_tokens, seconds))
        table.add_row(
            "time",
            f"{clock_time(seconds)} · {short_rate((counts.done - counts.resumed) / seconds)} requests/s",
        )
        self._console.print(table)

    def _tokens(self, count: int, seconds: float) -> str:
        return f"{count:,} tokens · {short_number(count / seconds)} tok/s"

    def _event(self, event: str, **values: Any) -> None:
        if not self._quiet:
            line = json.dumps({"event": event, **values})
            self._console.print(line, soft_wrap=True, markup=False, highlight=False)

    def _state(self, counts: BatchCounts, stats: "EngineStats", now: float) -> dict[str, Any]:
        since, prompt, output = self._counted
        if now - since >= RATE_SPAN_S or not any(self._rates):
            span = max(now - since, 1e-9)
            self._rates = ((stats.prompt_tokens - prompt) / span, (stats.output_tokens - output) / span)
            self._counted = (now, stats.prompt_tokens, stats.output_tokens)
        num_new = counts.done - counts.resumed
        left = (counts.total - counts.done) * (now - self._started_at) / num_new if num_new else None
        return {
            "done": counts.done,
            "total": counts.total,
            "failed": counts.failed,
            "running": stats.num_running,
            "waiting": stats.num_waiting,
            "prompt_tok_per_s": round(self._rates[0], 1),
            "output_tok_per_s": round(self._rates[1], 1),
            "kv_usage": round(stats.kv_usage, 4),
            "prefix_hit_rate": round(stats.prefix_hits / max(stats.prefix_queries, 1), 4),
            "eta_s": None if left is None else round(left, 1),
        }


def _line(state: dict[str, Any]) -> str:
    eta = "--:--" if state["eta_s"] is None else clock_time(state["eta_s"])
    rates = (short_number(state[name]) for name in ("prompt_tok_per_s", "output_tok_per_s"))
    return " · ".join(
        [
            f"{state['done']}/{state['total']}",
            f"{state['failed']} failed",
            f"run {state['running']} wait {state['waiting']}",
            "in {} tok/s out {} tok/s".format(*rates),
            f"KV {100 * state['kv_usage']:.0f} %",
            f"prefix hits {100 * state['prefix_hit_rate']:.0f} %",
            f"ETA {eta}",
        ]
    )


def _sums(counts: BatchCounts) -> dict[str, Any]:
    return {
        "done": counts.done,
        "total": counts.total,
        "failed": counts.failed,
        "failures": dict(counts.failures),
        "resumed": counts.resumed,
        "prompt_tokens": counts.prompt_tokens,
        "cached_tokens": counts.cached_tokens,
        "output_tokens": counts.output_tokens,
    }


def short_rate(value: float) -> str:
    """A rate with about three digits."""
    return f"{value:.2f}" if value < 10 else short_number(value)
