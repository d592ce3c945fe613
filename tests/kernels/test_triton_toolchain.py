"""What is missing when Triton can not build its launcher is named, with what to install."""

import subprocess
from pathlib import Path

import pytest

from llmcli_kernels import triton_toolchain
from llmcli_kernels.triton_toolchain import explain, toolchain_problem, version


def test_a_missing_compiler_is_named() -> None:
    problem = explain(RuntimeError("Failed to find C compiler. Please specify via CC environment variable"))
    assert problem is not None
    assert problem.reason == "Triton compiles a launcher in C, and no C compiler was found"
    problem = explain(FileNotFoundError(2, "No such file", "icc"), headers_folder())
    assert problem is not None
    assert "icc, which it calls, was not found" in problem.reason


def headers_folder(present: bool = True) -> Path:
    """A folder with Python.h in it, or one without."""
    folder = Path(__file__).parent
    if present:
        import sysconfig

        folder = Path(sysconfig.get_paths()["include"])
        if not (folder / "Python.h").is_file():
            pytest.skip("Python's headers are not installed here")
    return folder


def test_missing_headers_are_named_with_their_package() -> None:
    problem = explain(subprocess.CalledProcessError(1, ["gcc"]), headers_folder(present=False))
    assert problem is not None
    assert "Python.h" in problem.reason
    assert problem.fix.startswith("install them, such as with: sudo apt install python3.")


def test_a_compiler_that_fails_is_told_with_its_exit_code() -> None:
    problem = explain(subprocess.CalledProcessError(4, ["gcc"]), headers_folder())
    assert problem is not None
    assert "the compiler failed with exit code 4" in problem.reason


def test_what_has_nothing_to_do_with_it_is_left_alone() -> None:
    assert explain(RuntimeError("shapes differ")) is None
    assert explain(ValueError("Failed to find C compiler")) is None


@pytest.mark.parametrize(
    ("found", "problem"),
    [("2.3.1", True), ("3.5.9", True), ("3.6.0", False), ("3.9.0+git1", False), ("4.0", False)],
)
def test_an_old_triton_is_refused_with_both_versions(
    found: str, problem: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton, "__version__", found)
    told = toolchain_problem()
    assert (
        told is not None and told.reason == f"Triton {found} is too old, 3.6 or newer is needed"
    ) is problem


def test_the_version_is_that_of_the_package() -> None:
    triton = pytest.importorskip("triton")
    assert version() == triton.__version__
    assert triton_toolchain.cache_folder().is_absolute()
