"""The record of what a measurement was made on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llmcli.config import EngineConfig
from llmcli.engine.build import build_engine
from llmcli.engine.engine import Engine
from llmcli.gpu_facts import GpuFacts
from llmcli.hardware import cpu_name
from llmcli.hub.models import resolve_model
from llmcli.jobs.environment import environment, machine
from tests.tiny_models import tiny_chat_model


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tiny_chat_model(tmp_path_factory.mktemp("model"), num_hidden_layers=1)
    return build_engine(resolve_model(str(folder)), EngineConfig(dtype="float32", num_threads=1))


def test_it_is_plain_json_with_names_and_sizes(engine: Engine) -> None:
    record = json.loads(json.dumps(environment(engine)))
    assert record["model"] == engine.model.name
    assert (record["dtype"], record["threads"], record["quantization"]) == ("float32", 1, None)
    assert record["weight_bytes"] == engine.config.weight_bytes
    assert record["parameters"] * 4 == engine.config.weight_bytes
    assert record["cpu"] == cpu_name() != ""
    assert all(value != "" for value in record.values())


def test_a_client_without_a_model_knows_its_machine_and_versions(engine: Engine) -> None:
    record = machine()
    assert set(record) < set(environment(engine))
    assert record["torch"] is not None
    assert record["memory_bytes"] > 0


def test_that_of_a_gpu_has_its_name_and_versions(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = GpuFacts(
        name="NVIDIA H200",
        capability=(9, 0),
        total_memory=140 << 30,
        free_memory=139 << 30,
        num_sms=132,
        driver="570.86.15",
        cuda="12.8",
        triton="3.6.0",
    )
    monkeypatch.setattr(engine, "config", replace(engine.config, device="cuda", gpu=gpu))
    assert json.loads(json.dumps(environment(engine)))["gpu"] == {
        "name": "NVIDIA H200",
        "capability": "9.0",
        "memory_bytes": 140 << 30,
        "driver": "570.86.15",
        "cuda": "12.8",
        "triton": "3.6.0",
    }


def test_a_checkout_names_its_commit() -> None:
    root = Path(__file__).parents[2]
    commit = machine()["commit"]
    assert (commit is not None) == (root / ".git").exists()
