"""Starts in processes of their own: phases, cold and warm, and errors that come back as they were."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from llmcli.config import EngineConfig
from llmcli.errors import EngineError, LLMCliError, UsageError
from llmcli.hub.models import bundled_model
from llmcli.jobs.bench.startup import (
    PHASES,
    Kind,
    Start,
    Starter,
    StartupPlan,
    drop_from_page_cache,
    phases_of,
    rows_of,
    run_startup,
)


def starter(environ: dict[str, str], **changes: Any) -> Starter:
    fields = asdict(bundled_model()) | {"path": str(bundled_model().path)} | changes
    return Starter(fields, EngineConfig(num_threads=1), environ)


def test_a_phase_is_the_time_since_the_one_before() -> None:
    assert phases_of([("start", 10.0), ("program", 10.5), ("torch", 12.0)]) == {"program": 0.5, "torch": 1.5}


def test_rows_are_the_whole_and_each_phase() -> None:
    starts = [Start({"a": 1.0, "b": 2.0}, {}), Start({"a": 3.0, "b": 4.0}, {})]
    assert [(row.test, row.unit, row.samples) for row in rows_of("cold", starts)] == [
        ("cold start", "s", (3.0, 7.0)),
        ("cold start: a", "s", (1.0, 3.0)),
        ("cold start: b", "s", (2.0, 4.0)),
    ]


class Recorder:
    """A starter that starts nothing."""

    def __init__(self) -> None:
        self.kinds: list[Kind] = []

    def start(self, kind: Kind) -> Start:
        self.kinds.append(kind)
        return Start({"a": float(len(self.kinds))}, {})


def test_warm_starts_come_after_untimed_ones() -> None:
    recorder = Recorder()
    plan = StartupPlan(num_iters_cold=2, num_iters_warmup=1, num_iters_warm=2)
    found = list(run_startup(recorder, plan, lambda _: None))  # type: ignore[arg-type]
    assert recorder.kinds == ["cold", "cold", "warm", "warm", "warm"]
    assert [rows[0].samples for _, rows in found] == [(1.0,), (1.0, 2.0), (4.0,), (4.0, 5.0)]


def test_a_start_of_the_bundled_model_goes_through_all_phases(program_env: dict[str, str]) -> None:
    start = starter(program_env).start("cold")
    assert list(start.phases) == list(PHASES)
    assert all(seconds > 0 for seconds in start.phases.values())
    assert start.environment["model"] == "tiny-chat"


def test_nothing_is_imported_from_the_working_folder(
    program_env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert starter(program_env).start("warm").total_s > 0


def test_an_error_of_the_process_is_the_same_error_here(program_env: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(LLMCliError, match=r"config\.json") as caught:
        starter(program_env, path=str(tmp_path)).start("warm")
    assert caught.value.exit_code == 5


def test_a_process_that_dies_is_told_with_its_last_words(program_env: dict[str, str]) -> None:
    with pytest.raises(EngineError, match="a start ended with code 1 and no result") as caught:
        starter(program_env, unknown_field=1).start("warm")
    assert "unknown_field" in caught.value.why


def test_a_plan_without_starts_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing to measure"):
        StartupPlan(num_iters_cold=0, num_iters_warm=0)
    with pytest.raises(UsageError, match="--num-iters-cold must be at least 0, got -1"):
        StartupPlan(num_iters_cold=-1)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system can not drop files from memory")
def test_dropping_files_from_memory_leaves_them_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    (tmp_path / "folder").mkdir()
    assert drop_from_page_cache(tmp_path) == ""
    assert (tmp_path / "a").read_bytes() == b"x" * 100_000
