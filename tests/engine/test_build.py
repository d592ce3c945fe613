"""What `build_engine` tells beside the engine that it returns."""

import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from llmcli.config import GIB, MIB, EngineConfig, ResolvedConfig
from llmcli.engine import build
from llmcli.engine.build import build_engine
from llmcli.errors import DoesNotFitError
from llmcli.gpu_facts import GpuFacts
from llmcli.hub.models import resolve_model
from llmcli.runtime.warm_up import decode_steps, warm_up_steps
from llmcli.scheduler.step import Step

PROGRAM = """
import sys
sys.modules["llvmlite"] = None
from llmcli.config import EngineConfig
from llmcli.engine.build import build_engine
from llmcli.hub.models import resolve_model
build_engine(resolve_model(None), EngineConfig(device="cpu", num_threads=1), on_warning=print)
"""


@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="no native kernels for this machine",
)
def test_without_llvmlite_a_warning_says_what_to_type() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == (
        "PyTorch's own kernels are used, which are slower: llvmlite is not installed;"
        " to mend it: pip install --force-reinstall llvmlite\n"
    )


GPU = GpuFacts(name="NVIDIA L4", capability=(8, 9), total_memory=8 * GIB, free_memory=8 * GIB, num_sms=58)
ROOM = int(0.92 * 8 * GIB)


class Runs(list[Step]):
    """Keeps the steps that it is called with."""

    def __call__(self, step: Step) -> None:
        self.append(step)


@dataclass
class OnGpu:
    """What `build_engine` does on a GPU that is made up: no weights are there, and steps draw nothing."""

    workspace: int
    made: list[ResolvedConfig] = field(default_factory=list)
    prepared: list[Step] = field(default_factory=list)
    run: Runs = field(default_factory=Runs)
    cache: Any = field(default_factory=lambda: SimpleNamespace(layers=()))

    def make_runner(self, spec: object, weights: object, kernels: object, config: ResolvedConfig) -> Any:
        self.made.append(config)
        return self

    def warm_up(self, step: Step) -> None:
        self.prepared.append(step)

    def measure(
        self, run: Callable[[], None], *, free_before: int, held_before: int, weights: int, cuda: object
    ) -> int:
        assert (free_before, held_before) == (GPU.free_memory, 0)
        assert weights == self.made[0].weight_bytes
        run()
        return self.workspace

    def build(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> ResolvedConfig:
        monkeypatch.setattr(build, "find_gpu", lambda: GPU)
        monkeypatch.setattr(build, "_load_weights", lambda *_: (None, None))
        monkeypatch.setattr(build, "_make_runner", self.make_runner)
        monkeypatch.setattr(build, "measure_workspace", self.measure)
        return build_engine(resolve_model(None), EngineConfig(**options)).config


def test_on_a_gpu_the_kv_cache_is_what_the_measured_steps_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = OnGpu(workspace=700 * MIB)
    config = gpu.build(monkeypatch, max_num_seqs=100_000)
    left = ROOM - config.weight_bytes - 700 * MIB
    block = config.kv_bytes // config.num_blocks
    assert config.workspace_bytes == 700 * MIB
    assert 0 <= left - config.kv_bytes < block
    assert [made.num_blocks for made in gpu.made] == [1, config.num_blocks]
    assert gpu.prepared == warm_up_steps(gpu.made[0])
    assert gpu.run == decode_steps(config)


def test_steps_that_take_more_than_the_gpu_has_end_with_need_against_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(
        DoesNotFitError, match=r"the GPU has 7\.4 GiB free, the model needs 9\.0 GiB"
    ) as error:
        OnGpu(workspace=9 * GIB).build(monkeypatch)
    assert "workspace 9.0 GiB" in error.value.why
    assert "--device cpu" in error.value.fix


def test_where_operations_are_single_no_graph_is_made_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = OnGpu(workspace=700 * MIB)
    gpu.build(monkeypatch, enforce_eager=True)
    assert gpu.run == []
