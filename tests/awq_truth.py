"""AutoAWQ's own unpacking, as a truth that shares no code with ours.

Importing the package `awq` needs its heavy dependencies; the one file with the arithmetic needs only torch,
so it is loaded by path from the installed distribution.
"""

import importlib.util
import os
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType

import pytest

PACKING = "awq/utils/packing_utils.py"


def load_awq_packing() -> ModuleType:
    """autoawq's packing_utils: unpack_awq, reverse_awq_order, pack_exllama, dequantize_gemm.

    Skips the test where autoawq is not installed, and fails it in CI, where it always is.
    """
    try:
        path = distribution("autoawq").locate_file(PACKING)
    except PackageNotFoundError:
        missing = pytest.fail if "CI" in os.environ else pytest.skip
        missing("autoawq is not installed: bash scripts/setup.sh dev")
    spec = importlib.util.spec_from_file_location("awq_packing_utils", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
