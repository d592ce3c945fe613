"""What every test may count on: the data folder, the program as a process, steady hypothesis settings."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).parent.parent

# A shared machine stalls now and then, so examples have no deadline; in CI the same ones are tried each time.
settings.register_profile("llmcli", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("llmcli")

# A shell that starts the tests in the background has them, and the programs they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Without a GPU, Triton's kernels run in its interpreter. Triton looks once, when it is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

RunProgram = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of models, tokenizers and golden outputs that lies beside the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}")
    return folder


@pytest.fixture
def program_env(tmp_path: Path) -> dict[str, str]:
    """An environment in which `python -m llmcli` runs this tree's code, and writes only below `tmp_path`."""
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("LLMCLI_", "HF_", "XDG_"))
    }
    home = str(tmp_path / "home")
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "kernels")))
    return env | {
        "HOME": home,
        "PYTHONPATH": paths,
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "100",
        "PYTHONUTF8": "1",
    }


@pytest.fixture
def run_llmcli(program_env: dict[str, str]) -> RunProgram:
    """Run `llmcli ARGS` in a process of its own: run_llmcli("list", "--json", input="", env={...})."""

    def run(
        *args: str, input: str = "", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "llmcli", *args]
        environment = program_env | (env or {})
        return subprocess.run(
            command, input=input, env=environment, capture_output=True, text=True, timeout=300
        )

    return run
