"""A run on a fake engine whose process can be ended at any byte; also a program: SOURCE OUTPUT TICKS ORDERED."""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from llmcli.cli.run_job import BatchJob
from llmcli.cli.run_options import PromptOptions, ResultOptions
from llmcli.hub.models import LocalModel
from llmcli.jobs.batch.input import PromptFile
from llmcli.jobs.batch.job import BatchOptions
from llmcli.jobs.batch.progress import BatchProgress
from llmcli.jobs.batch.requests import LineRules
from llmcli.jobs.batch.resume import ResultFile
from llmcli.jobs.disk import Disk
from tests.jobs.fake_engine import FakeEngine
from tests.jobs.faulty_disk import MortalDisk, die_for_good

MODEL = LocalModel("org/name", Path("unused"), "abc", "hub")
SETTINGS = {"model": "org/name", "sampling": {"temperature": 0.0}}


def attempt(
    source: Path,
    output: Path,
    *,
    disk: Disk | None = None,
    engine: FakeEngine | None = None,
    max_errors: int | None = None,
    **results: Any,
) -> Counter[str]:
    """Run what is left to do, as `llmcli run --resume` does; which lines were given to the engine."""
    engine = engine or FakeEngine(max_num_seqs=3)
    options = ResultOptions(output=output, **{"resume": True, **results})
    progress = BatchProgress(Console(stderr=True), quiet=True)
    with (
        PromptFile.open(str(source), sys.stdin.buffer) as file,
        ResultFile(
            str(output), options.mode, retry_errors=options.retry_errors, disk=disk or Disk()
        ) as result,
    ):
        validation = file.validate(LineRules(), result.finished)
        result.check(str(source))
        batch = BatchOptions(6, {"temperature": 0.0}, options.ordered, max_errors=max_errors)
        job = BatchJob(file, validation, LineRules(), PromptOptions(raw=True), options, batch, progress)
        replace(job, output=result).serve(engine, MODEL, SETTINGS)  # type: ignore[arg-type]
    return Counter(request_id for request_id, _, _ in engine.added)


if __name__ == "__main__":
    source, output, ticks, ordered = sys.argv[1:]
    attempt(
        Path(source), Path(output), disk=MortalDisk(int(ticks), die_for_good), ordered=ordered == "ordered"
    )
