"""Whether Triton can compile and launch kernels on this machine, and where it keeps what it compiled.

Triton 3.6 compiles a small C launcher for every kernel signature, later versions one for all: both need a C compiler
and Python's headers, and find out at the first launch. Asked before a GPU is chosen, and when a launch has failed.
Knows no kernel.
"""

import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

OLDEST = (3, 6)


@dataclass(frozen=True)
class ToolchainProblem:
    """Why Triton can not run: half a sentence, and what to do about it."""

    reason: str
    fix: str


def toolchain_problem() -> ToolchainProblem | None:
    """Import Triton and have it build or load its launcher; None where that works.

    Needs a GPU that torch can use. Takes a second when the launcher is not cached.
    """
    try:
        import triton
        from triton.runtime import driver
    except ImportError as error:
        return _import_problem(error)
    if _version_numbers(triton.__version__) < OLDEST:
        return ToolchainProblem(
            f"Triton {triton.__version__} is too old, {_dotted(OLDEST)} or newer is needed",
            "update it with torch, which brings its own: pip install --upgrade torch triton",
        )
    try:
        _ = driver.active.utils  # made at the first access; that is where the C compiler is called
    except Exception as error:
        return explain(error) or ToolchainProblem(
            f"Triton can not start: {_first_line(error)}",
            "nvidia-smi tells whether the driver works; pip install --force-reinstall --no-deps triton mends Triton",
        )
    return None


def explain(error: BaseException, headers: Path | None = None) -> ToolchainProblem | None:
    """What is missing when building a launcher raised `error`; None for anything else.

    Args:
        headers: the folder of Python's headers; None is where this interpreter says they are.
    """
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if isinstance(error, subprocess.CalledProcessError | FileNotFoundError):
        if not _headers_are_there(headers):
            return ToolchainProblem(
                "Triton compiles a launcher in C, and Python's headers (Python.h) are not installed",
                f"install them, such as with: sudo apt install {python}-dev",
            )
        if isinstance(error, FileNotFoundError):
            return ToolchainProblem(
                f"Triton compiles a launcher in C, and {error.filename}, which it calls, was not found",
                "install gcc, or let CC name a C compiler that is there",
            )
        return ToolchainProblem(
            f"Triton compiles a launcher in C, and the compiler failed with exit code {error.returncode}",
            "its message is above; CC names another C compiler",
        )
    if isinstance(error, RuntimeError) and "Failed to find C compiler" in str(error):
        return ToolchainProblem(
            "Triton compiles a launcher in C, and no C compiler was found",
            "install one, such as with: sudo apt install gcc",
        )
    return None


def version() -> str:
    """Triton's, or an empty text without it."""
    try:
        import triton
    except ImportError:
        return ""
    return str(triton.__version__)


def cache_folder() -> Path:
    """Where Triton keeps compiled kernels."""
    from triton import knobs

    return Path(knobs.cache.dir)


def _import_problem(error: ImportError) -> ToolchainProblem:
    if isinstance(error, ModuleNotFoundError) and error.name == "triton":
        return ToolchainProblem("Triton is not installed", "pip install triton")
    return ToolchainProblem(
        f"Triton can not be imported: {_first_line(error)}", "pip install --force-reinstall --no-deps triton"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _headers_are_there(folder: Path | None) -> bool:
    if folder is None:
        scheme = sysconfig.get_default_scheme()
        # as Triton does: Debian's own scheme names a folder that its headers are not in
        folder = Path(sysconfig.get_paths("posix_prefix" if scheme == "posix_local" else scheme)["include"])
    return (folder / "Python.h").is_file()


def _version_numbers(text: str) -> tuple[int, ...]:
    parts = text.split("+")[0].split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit())


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
