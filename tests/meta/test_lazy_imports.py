"""`import llmcli` and every --help load nothing heavy."""

import json
import subprocess
import sys

import pytest

from llmcli.cli.app import COMMANDS

HEAVY = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "prompt_toolkit",
    "numpy",
    "jinja2",
    "llguidance",
    "llmcli_kernels",
)
ASK_FOR_HELP = """
import contextlib, io, json, sys
from llmcli.cli.app import main
with contextlib.redirect_stdout(io.StringIO()) as out:
    try:
        main(sys.argv[1:])
    except SystemExit as stop:
        assert stop.code == 0, stop.code
assert "Usage: llmcli" in out.getvalue()
print(json.dumps(sorted(sys.modules)))
"""


def modules_after(code: str, env: dict[str, str], *args: str) -> set[str]:
    """Names of the modules that a new interpreter holds after running `code`, which prints them."""
    result = subprocess.run([sys.executable, "-c", code, *args], env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout))


def test_importing_the_package_loads_nothing_heavy(program_env: dict[str, str]) -> None:
    loaded = modules_after("import json, sys, llmcli; print(json.dumps(sorted(sys.modules)))", program_env)
    assert "llmcli" in loaded
    assert loaded.isdisjoint({*HEAVY, "typer", "rich"})


@pytest.mark.parametrize(
    "args", [[], *([command] for command in COMMANDS)], ids=lambda args: " ".join(args) or "root"
)
def test_help_loads_nothing_heavy(args: list[str], program_env: dict[str, str]) -> None:
    loaded = modules_after(ASK_FOR_HELP, program_env, *args, "--help")
    assert "llmcli.cli.app" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_a_heavy_import_would_be_seen(program_env: dict[str, str]) -> None:
    code = "import json, sys, numpy; print(json.dumps(sorted(sys.modules)))"
    assert not modules_after(code, program_env).isdisjoint(HEAVY)
