"""Python and the packages that llmcli needs, against the versions that it needs."""

import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

from llmcli.jobs.doctor.check import Finding, failed, passed, warned

OLDEST_PYTHON = (3, 11)
NEWEST_PYTHON = (3, 14)  # of those that llmcli is tested with

# pyproject.toml's own bounds; a test holds them together.
NEEDED = {
    "torch": ">=2.6",
    "numpy": ">=1.26",
    "safetensors": ">=0.4.5",
    "tokenizers": ">=0.21",
    "jinja2": ">=3.1.6",
    "llguidance": ">=1.7,<2",
    "huggingface_hub": ">=1.31,<3",
    "httpx2": ">=2.0,<3",
    "filelock": ">=3.12",
    "packaging": ">=23",
    "typer": ">=0.20",
    "rich": ">=13.9",
    "markdown-it-py": ">=3.0",
    "pygments": ">=2.17",
    "prompt_toolkit": ">=3.0.48",
    "psutil": ">=6.0",
    "platformdirs": ">=4.2",
    "tomlkit": ">=0.13",
}
# Nothing is wrong without these; one that is there has to be of a version that works.
OPTIONAL = {"transformers": ">=5.0,<6", "triton": ">=3.6", "llvmlite": ">=0.44"}


@dataclass(frozen=True, slots=True)
class PythonFacts:
    """The interpreter: `version` is its first two numbers."""

    version: tuple[int, int]
    shown: str
    bits: int
    executable: str
    in_environment: bool


def read_python() -> PythonFacts:
    """This interpreter."""
    return PythonFacts(
        version=sys.version_info[:2],
        shown=sys.version.split()[0],
        bits=8 * struct.calcsize("P"),
        executable=sys.executable,
        in_environment=sys.prefix != sys.base_prefix,
    )


def check_python(facts: PythonFacts) -> Finding:
    """Old enough, new enough, 64 bits."""
    environment = "a virtual environment" if facts.in_environment else "no virtual environment"
    found = f"{facts.shown}, {facts.bits} bits, {environment}"
    if facts.version < OLDEST_PYTHON:
        return failed(found, f"llmcli needs Python {_dotted(OLDEST_PYTHON)} or newer: install it there")
    if facts.bits < 64:
        return failed(found, "PyTorch needs a Python of 64 bits: install llmcli into one")
    if facts.version > NEWEST_PYTHON:
        return warned(
            found,
            f"llmcli is tested with Python {_dotted(OLDEST_PYTHON)} to {_dotted(NEWEST_PYTHON)};"
            " if something is odd, use one of these",
            facts.executable,
        )
    return passed(found, facts.executable)


def read_versions() -> dict[str, str]:
    """Versions of the packages above that are installed."""
    versions = {}
    for name in (*NEEDED, *OPTIONAL):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def check_packages(versions: Mapping[str, str]) -> Finding:
    """Everything that is needed is there, in a version that llmcli works with."""
    from packaging.specifiers import SpecifierSet

    shown = [f"{name} {version}" for name, version in versions.items()]
    missing = [name for name in NEEDED if name not in versions]
    wrong = {
        name: bounds
        for name, bounds in (NEEDED | OPTIONAL).items()
        if name in versions and not SpecifierSet(bounds).contains(versions[name], prereleases=True)
    }
    if not missing and not wrong:
        main = ("torch", "tokenizers", "huggingface_hub")
        return passed(", ".join(f"{name} {versions[name]}" for name in main), *shown)
    wanted = {name: (NEEDED | OPTIONAL)[name] for name in (*missing, *wrong)}
    problems = [f"{name} is not installed" for name in missing]
    problems += [f"{name} {versions[name]} is not {_in_words(bounds)}" for name, bounds in wrong.items()]
    fix = "pip install --upgrade " + " ".join(f"'{name}{bounds}'" for name, bounds in wanted.items())
    make = failed if set(wanted) & set(NEEDED) else warned
    return make("; ".join(problems), fix, *shown)


def _in_words(bounds: str) -> str:
    return bounds.replace(">=", "").replace(",<", " or newer, below ") + (
        "" if "<" in bounds else " or newer"
    )


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
