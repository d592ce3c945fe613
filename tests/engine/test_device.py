"""What becomes of a GPU that can not be used, and of one that fails while requests run on it."""

import threading
import warnings
from pathlib import Path

import pytest

from llmcli import LLM, SamplingParams
from llmcli.engine import build
from llmcli.engine.stream import EngineThread
from llmcli.errors import EngineError
from llmcli.gpu_facts import GpuFacts, NoGpu
from llmcli.runtime.runner import Draw
from llmcli.scheduler.step import Step
from tests.conftest import RunProgram
from tests.tiny_models import tiny_chat_model

TOO_SMALL = GpuFacts(
    name="NVIDIA H200", capability=(9, 0), total_memory=1 << 20, free_memory=1 << 19, num_sms=132
)
OLD = NoGpu("NVIDIA's driver supports CUDA 11.4, torch 2.11.0 needs 12.8", "update the driver", present=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def _nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for a GPU fails the test."""
    monkeypatch.setattr(build, "find_gpu", lambda: pytest.fail("there is no need to look"))


def told(folder: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert LLM(folder).engine.config.device == "cpu"
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("gpu", "lines"),
    [
        (OLD, [f"the GPU is not used: {OLD.reason}; update the driver"]),
        (TOO_SMALL, ["the GPU is not used: the GPU has 430 KiB free, the model needs 260 MiB"]),
        (NoGpu("no NVIDIA driver was found", "install it"), []),
    ],
    ids=["can not be used", "too small", "absent"],
)
def test_a_gpu_that_is_there_and_not_used_is_told_in_one_line(
    gpu: GpuFacts | NoGpu, lines: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "find_gpu", lambda: gpu)
    assert told(folder) == lines


@pytest.mark.usefixtures("_nobody_looks")
def test_where_the_cpu_is_asked_for_no_gpu_is_looked_for(folder: Path) -> None:
    assert LLM(folder, device="cpu").engine.config.reasons["device"] == "--device"


class LostGpu:
    """A runner whose GPU fails in the first step, once it may."""

    def __init__(self) -> None:
        self.may_fail = threading.Event()

    def begin(self, step: Step) -> Draw:
        self.may_fail.wait(60)
        raise EngineError("the GPU failed: uncorrectable ECC error encountered", fix="restart the machine")


def test_a_gpu_that_fails_ends_every_stream_with_what_happened_and_what_to_do(folder: Path) -> None:
    engine = LLM(folder, device="cpu").engine
    engine._runner = runner = LostGpu()  # type: ignore[assignment]
    thread = EngineThread(engine)
    streams = [thread.submit([5, 6, 7], SamplingParams()) for _ in range(3)]
    runner.may_fail.set()
    failure = "the engine stopped: the GPU failed: uncorrectable ECC error encountered; restart the machine"
    for stream in streams:
        assert [(event.finish_reason, event.error) for event in stream] == [("error", failure)]
    with pytest.raises(EngineError, match="the GPU failed"):
        thread.submit([5], SamplingParams())
    thread.close()


def test_a_gpu_asked_for_where_there_is_none_is_an_error_with_code_2(run_llmcli: RunProgram) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    result = run_llmcli("chat", "--device", "cuda", "hi there")
    assert (result.returncode, result.stdout) == (2, "")
    assert "error: --device cuda: " in result.stderr
    assert "or use --device cpu" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_device_is_refused_with_the_nearest(run_llmcli: RunProgram) -> None:
    result = run_llmcli("chat", "--device", "gpu", "hi there")
    assert result.returncode == 2
    assert "--device must be auto, cuda or cpu, got gpu\n  did you mean cuda?" in result.stderr
