"""`/bench`: what it measures of an engine, how it is stopped, and that nothing is left behind."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from llmcli.cli.chat_bench import measure, plan_for
from llmcli.config import EngineConfig
from llmcli.engine.build import build_engine
from llmcli.engine.engine import Engine
from llmcli.hub.models import resolve_model
from llmcli.sampling import SamplingParams
from tests.tiny_models import tiny_chat_model
from tests.ui.fake_engine import resolved_config


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    folder = tiny_chat_model(tmp_path / "model", num_hidden_layers=1)
    return build_engine(
        resolve_model(str(folder)), EngineConfig(dtype="float32", num_threads=1, max_model_len=64)
    )


def test_a_prompt_and_an_answer_are_timed_as_long_as_they_fit(engine: Engine) -> None:
    told: list[str] = []
    rows = dict(measure(engine, told.append, lambda: False))
    assert list(rows) == ["pp60", "tg60"]
    assert re.fullmatch(r"[\d.]+ ± [\d.]+ tok/s, TTFT [\d.]+ (ms|s|µs)", rows["pp60"])
    assert re.fullmatch(r"[\d.]+ ± [\d.]+ tok/s, [\d.]+ GB/s of weights", rows["tg60"])
    assert told[0] == "warm-up"
    assert told[-1] == "tg60 at batch 1, run 3 of 3"


@pytest.mark.parametrize("steps", [*range(8), *range(60, 72)])
def test_a_stop_ends_it_within_a_step_and_leaves_the_engine_as_it_was(engine: Engine, steps: int) -> None:
    asked = iter(range(10_000))
    rows = measure(engine, lambda text: None, lambda: next(asked) >= steps)
    assert len(rows) < 2
    assert next(asked) == steps + 1
    assert not engine.has_work
    engine.add([1, 2, 3], SamplingParams(max_tokens=2, ignore_eos=True))
    tokens = [token for _ in range(2) for event in engine.step() for token in event.token_ids]
    assert len(tokens) == 2


def test_a_large_context_is_measured_with_512_and_64() -> None:
    plan = plan_for(replace(resolved_config(max_model_len=4096), num_blocks=256))
    assert (plan.prompt_tokens, plan.output_tokens) == ((512,), (64,))
