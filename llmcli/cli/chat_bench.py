"""What `/bench` measures: the engine of a chat, with one prompt and one answer, by the code of `llmcli bench`.

Runs on the engine's thread. Called through `ChatState.measure`; `chat.py` puts it there.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from llmcli.cli.bench.table import seconds, spread
from llmcli.config import ResolvedConfig

if TYPE_CHECKING:
    from llmcli.engine.engine import Engine
    from llmcli.jobs.bench.quick import BenchPlan
    from llmcli.jobs.bench.result import Row

PROMPT, OUTPUT, REPEATS = 512, 64, 3
BESIDE = 4  # tokens of a test besides those that are timed: what it begins with, and where it ends


class _StoppedError(Exception):
    """The user does not want to wait."""


class _Stoppable:
    """An engine whose next step raises, once, when a stop is asked for; what was begun can be tidied up then."""

    def __init__(self, engine: "Engine", stop: Callable[[], bool]) -> None:
        self._engine = engine
        self._stop: Callable[[], bool] | None = stop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def step(self) -> Any:
        if self._stop is not None and self._stop():
            self._stop = None
            raise _StoppedError
        return self._engine.step()


def measure(
    engine: "Engine", on_run: Callable[[str], None], stop: Callable[[], bool]
) -> list[tuple[str, str]]:
    """Time a prompt of 512 tokens, or what fits, and 64 steps of an answer, one sequence at a time.

    Args:
        on_run: told what runs now.
        stop: asked before each step; the rows are then those of the runs that were done.
    """
    from llmcli.jobs.bench.quick import run_bench

    rows: dict[str, Row] = {}
    try:
        for row in run_bench(cast("Engine", _Stoppable(engine, stop)), plan_for(engine.config), on_run):
            rows[row.test] = row
    except _StoppedError:
        while engine.has_work:  # the end of what was aborted, which nobody else reads
            engine.step()
    finally:
        engine.reset_prefix_cache()
    return [(row.test, _cell(row)) for row in rows.values()]


def plan_for(config: ResolvedConfig) -> "BenchPlan":
    """What is measured of an engine with this much room."""
    from llmcli.jobs.bench.quick import BenchPlan

    room = min(config.max_model_len, config.num_blocks * config.block_size) - BESIDE
    return BenchPlan(
        prompt_tokens=(min(PROMPT, room),), output_tokens=(min(OUTPUT, room),), batches=(1,), repeats=REPEATS
    )


def _cell(row: "Row") -> str:
    values = row.as_json()
    is_prompt = row.details["prompt_tokens"] > 0
    rate = row.details["weight_bytes_per_s"]
    more = f"TTFT {seconds(row.details['ttft_s'])}" if is_prompt else f"{rate / 1e9:.1f} GB/s of weights"
    return f"{spread(values)} tok/s, {more}"
