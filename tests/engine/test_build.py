"""What `build_engine` tells beside the engine that it returns."""

import platform
import subprocess
import sys

import pytest

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
