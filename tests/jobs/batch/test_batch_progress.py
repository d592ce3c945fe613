"""What is shown of a batch: a line now and then, and the sums at the end."""

import io
import json

import pytest
from rich.console import Console

from llmcli.jobs.batch.progress import BatchCounts, BatchProgress, clock_time, short_number
from tests.jobs.fake_engine import FakeStats


class Shown:
    """A progress with a clock that the test sets, on a stream that is no terminal unless told so."""

    def __init__(self, *, quiet: bool = False, terminal: bool = False, width: int = 120) -> None:
        self.now = 0.0
        self.stream = io.StringIO()
        console = Console(file=self.stream, force_terminal=terminal, width=width)
        self.progress = BatchProgress(console, quiet=quiet, clock=lambda: self.now)
        self.counts = BatchCounts(1000)
        self.progress.start(self.counts)

    def at(self, now: float, stats: FakeStats) -> str:
        before = len(self.stream.getvalue())
        self.now = now
        self.progress.update(self.counts, lambda: stats)  # type: ignore[arg-type,return-value]
        return self.stream.getvalue()[before:]


def test_a_plain_line_comes_every_ten_seconds() -> None:
    shown = Shown()
    shown.counts.done = 312
    shown.counts.failures.update({"invalid_line": 2})
    stats = FakeStats(64, 128, 0.71, 1000, 380, prompt_tokens=81_000, output_tokens=23_000)
    assert shown.at(9.9, stats) == ""
    assert shown.at(10.0, stats) == (
        "312/1000 · 2 failed · run 64 wait 128 · in 8.1k tok/s out 2.3k tok/s"
        " · KV 71 % · prefix hits 38 % · ETA 00:22\n"
    )
    assert shown.at(15.0, stats) == ""
    later = FakeStats(64, 128, 0.71, 1000, 380, prompt_tokens=81_000, output_tokens=24_000)
    assert "in 0 tok/s out 100 tok/s" in shown.at(20.0, later)


def test_no_guess_is_made_before_anything_is_done() -> None:
    assert "ETA --:--" in Shown().at(10.0, FakeStats())


def test_the_summary_tells_totals_rates_and_kinds_of_errors() -> None:
    shown = Shown()
    shown.now = 50.0
    shown.counts.done = 1000
    shown.counts.failures.update({"invalid_line": 2, "generation_failed": 1})
    shown.counts.prompt_tokens, shown.counts.cached_tokens, shown.counts.output_tokens = 40_000, 1_000, 5_000
    shown.progress.summary(shown.counts)
    lines = [line.split(maxsplit=1)[1].rstrip() for line in shown.stream.getvalue().splitlines()]
    assert lines == [
        "1000/1000 · 3 failed (1 generation_failed, 2 invalid_line)",
        "40,000 tokens · 800 tok/s · 1,000 from the prefix cache",
        "5,000 tokens · 100 tok/s",
        "00:50 · 20 requests/s",
    ]


def test_quiet_shows_nothing() -> None:
    shown = Shown(quiet=True)
    shown.at(100.0, FakeStats())
    shown.progress.say("hello")
    shown.progress.summary(shown.counts)
    assert shown.stream.getvalue() == ""


def test_what_a_terminal_would_act_on_is_escaped() -> None:
    shown = Shown()
    shown.progress.say("read a\x1b]0;title\x07folder")
    assert shown.stream.getvalue() == "read a\\x1b]0;title\\x07folder\n"


def test_a_terminal_gets_a_bar_that_is_taken_away() -> None:
    shown = Shown(terminal=True)
    shown.counts.done = 500
    shown.at(1.0, FakeStats(num_running=3))
    shown.progress.stop()
    assert "500/1000" in shown.stream.getvalue()
    assert "\x1b[?25h" in shown.stream.getvalue()


def test_a_narrow_terminal_still_shows_when_it_will_be_done() -> None:
    shown = Shown(terminal=True, width=60)
    shown.counts.done = 500
    shown.at(1.0, FakeStats(num_running=3))
    shown.progress.stop()
    assert "00:01" in shown.stream.getvalue()


def test_no_bar_stands_between_results_on_the_same_terminal() -> None:
    stream = io.StringIO()
    progress = BatchProgress(Console(file=stream, force_terminal=True), results_here=True)
    progress.start(BatchCounts(2))
    progress.stop()
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (999, "999"), (8123, "8.1k"), (2.5e6, "2.5M")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert short_number(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "00:00"), (192, "03:12"), (3700, "1:01:40")])
def test_times_read_as_on_a_clock(seconds: float, text: str) -> None:
    assert clock_time(seconds) == text


def test_programs_get_json_lines() -> None:
    stream = io.StringIO()
    now = [0.0]
    progress = BatchProgress(Console(file=stream, width=40), form="json", clock=lambda: now[0])
    counts = BatchCounts(1000, done=300, resumed=100)
    progress.start(counts)
    progress.say("hello\x1b")
    now[0] = 1.0
    progress.update(counts, lambda: FakeStats(64, 128, 0.71, 1000, 380, 5000, 700))  # type: ignore[arg-type,return-value]
    progress.summary(counts)
    notice, state, summary = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert notice == {"event": "notice", "message": "hello\x1b"}
    assert state == {
        "event": "progress",
        "done": 300,
        "total": 1000,
        "failed": 0,
        "running": 64,
        "waiting": 128,
        "prompt_tok_per_s": 5000.0,
        "output_tok_per_s": 700.0,
        "kv_usage": 0.71,
        "prefix_hit_rate": 0.38,
        "eta_s": 3.5,
    }
    assert (summary["event"], summary["resumed"], summary["seconds"]) == ("summary", 100, 1.0)


def test_plain_lines_can_be_had_on_a_terminal() -> None:
    stream = io.StringIO()
    now = [0.0]
    console = Console(file=stream, force_terminal=True, width=120)
    progress = BatchProgress(console, form="plain", clock=lambda: now[0])
    progress.start(BatchCounts(2))
    now[0] = 10.0
    progress.update(BatchCounts(2), FakeStats)  # type: ignore[arg-type]
    assert stream.getvalue().startswith("0/2 · 0 failed")


def test_the_rest_is_guessed_from_what_this_run_has_done() -> None:
    shown = Shown()
    shown.counts.done, shown.counts.resumed = 600, 500
    assert "ETA 00:40" in shown.at(10.0, FakeStats())
    shown.progress.summary(shown.counts)
    assert "600/1000 · 500 of an earlier run" in shown.stream.getvalue()
    assert "10 requests/s" in shown.stream.getvalue()
