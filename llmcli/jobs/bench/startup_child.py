"""The process that `bench/startup.py` starts and times: load a model, make one token, tell when each phase ended.

Reads one JSON object from standard input, writes one line of JSON. The moments are readings of the system's
monotonic clock, which all processes of a machine share.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

PROMPT_TOKENS = 32


def main() -> None:
    """Run the job on standard input."""
    from llmcli.config import EngineConfig
    from llmcli.errors import LLMCliError
    from llmcli.hub.models import LocalModel

    job = json.load(sys.stdin)
    model = LocalModel(**{**job["model"], "path": Path(job["model"]["path"])})
    moments = [("program", time.monotonic())]
    try:
        told = _start(model, EngineConfig(**job["config"]), moments)
    except LLMCliError as error:
        texts = {"what": error.what, "why": error.why, "fix": error.fix}
        told = {"error": {**texts, "exit_code": error.exit_code}}
    print(json.dumps(told), flush=True)


def _start(model: Any, config: Any, moments: list[tuple[str, float]]) -> dict[str, Any]:
    import torch  # noqa: F401 - imported here to be timed by itself

    from llmcli.engine.build import build_engine

    moments.append(("torch", time.monotonic()))

    def on_phase(_: str) -> None:
        if len(moments) == 2:  # the first thing that is told: the small files were read
            moments.append(("read", time.monotonic()))

    engine = build_engine(model, config, on_phase=on_phase)
    moments.append(("load", time.monotonic()))
    from llmcli.jobs.bench.engine import run_batch

    length = min(PROMPT_TOKENS, engine.config.max_model_len - 1)
    run_batch(engine, [[1 % engine.spec.vocab_size] * length], 1)
    moments.append(("first token", time.monotonic()))
    from llmcli.jobs.environment import environment

    return {"moments": moments, "environment": environment(engine)}


if __name__ == "__main__":
    main()
