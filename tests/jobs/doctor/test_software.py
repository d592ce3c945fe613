"""Versions of Python and of packages."""

import tomllib
from dataclasses import replace

import pytest
from packaging.requirements import Requirement

from llmcli.jobs.doctor.software import (
    NEEDED,
    OPTIONAL,
    PythonFacts,
    check_packages,
    check_python,
    read_python,
    read_versions,
)
from tests.conftest import ROOT

PYTHON = PythonFacts(
    version=(3, 12), shown="3.12.3", bits=64, executable="/v/bin/python", in_environment=True
)
RIGHT = {name: Requirement(f"x{bounds}").specifier for name, bounds in NEEDED.items()}
VERSIONS = {name: bounds.split(",")[0].removeprefix(">=") for name, bounds in NEEDED.items()}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_bounds_are_those_of_pyproject() -> None:
    needed = [Requirement(line) for line in project()["dependencies"]]
    assert {r.name: r.specifier for r in needed if r.marker is None} == RIGHT


def test_the_bounds_of_optional_packages_are_those_of_pyproject() -> None:
    groups = [project()["dependencies"], *project()["optional-dependencies"].values()]
    lines = [line for group in groups for line in group]
    known = {(r.name, r.specifier) for r in map(Requirement, lines)}
    assert {(name, Requirement(f"x{bounds}").specifier) for name, bounds in OPTIONAL.items()} <= known


def test_a_python_of_the_right_age_passes() -> None:
    finding = check_python(PYTHON)
    assert (finding.status, finding.found) == ("pass", "3.12.3, 64 bits, a virtual environment")


@pytest.mark.parametrize(
    ("change", "status", "fix"),
    [
        ({"version": (3, 10)}, "fail", "3.11 or newer"),
        ({"bits": 32}, "fail", "64 bits"),
        ({"version": (3, 15)}, "warn", "3.11 to 3.14"),
    ],
)
def test_an_odd_python_is_told(change: dict, status: str, fix: str) -> None:
    finding = check_python(replace(PYTHON, **change))
    assert finding.status == status
    assert fix in finding.fix


def test_this_python_is_read() -> None:
    import sys

    assert read_python().version == sys.version_info[:2]


def test_the_oldest_allowed_versions_pass() -> None:
    assert check_packages(VERSIONS).status == "pass"


def test_a_local_or_early_build_of_a_new_version_passes() -> None:
    assert check_packages(VERSIONS | {"torch": "2.13.0+cpu", "rich": "16.0.0rc1"}).status == "pass"


def test_a_missing_package_fails_with_the_line_that_installs_it() -> None:
    finding = check_packages({name: version for name, version in VERSIONS.items() if name != "tokenizers"})
    assert (finding.status, finding.found) == ("fail", "tokenizers is not installed")
    assert finding.fix == "pip install --upgrade 'tokenizers>=0.21'"


def test_a_package_that_is_too_old_or_too_new_fails_with_both_bounds() -> None:
    finding = check_packages(VERSIONS | {"huggingface_hub": "3.0"})
    assert finding.status == "fail"
    assert finding.found == "huggingface_hub 3.0 is not 1.31 or newer, below 3"


def test_an_optional_package_of_a_wrong_version_is_a_warning() -> None:
    assert check_packages(VERSIONS | {"transformers": "4.50"}).status == "warn"


def test_the_installed_packages_are_read() -> None:
    import torch

    assert read_versions()["torch"] == torch.__version__
