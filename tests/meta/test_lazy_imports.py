"""`import llmcli`, every --help and what only looks at models load nothing heavy: they answer at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llmcli.cli.app import COMMANDS
from llmcli.hub.models import bundled_model

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
# Parts of the program that a command needs when it runs, and not to say what it does.
WORKING_PARTS = (
    "llmcli.model.",
    "llmcli.text.",
    "llmcli.engine.",
    "llmcli.jobs.",
    "llmcli.plan",
    "llmcli.hub.",
)
SETTINGS = "llmcli.hub.settings"  # small: defaults of options
HTTP_CLIENTS = ("httpx", "httpx2", "requests", "urllib3")
RUN = """
import contextlib, io, json, sys
from llmcli.cli.app import main
with contextlib.redirect_stdout(io.StringIO()) as out:
    try:
        main(sys.argv[2:])
    except SystemExit as stop:
        assert stop.code == 0, stop.code
assert sys.argv[1] in out.getvalue()
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
    loaded = modules_after(RUN, program_env, "Usage: llmcli", *args, "--help")
    assert "llmcli.cli.app" in loaded
    assert loaded.isdisjoint(HEAVY)
    assert [name for name in loaded - {SETTINGS} if name.startswith(WORKING_PARTS)] == []


def test_the_list_of_commands_imports_none_of_them(program_env: dict[str, str]) -> None:
    loaded = modules_after(RUN, program_env, "Fetch a model", "--help")
    assert loaded.isdisjoint({place.module for place in COMMANDS.values()})


@pytest.mark.parametrize(
    "args", [["list"], ["show", "tiny-chat"], ["show", "tiny-chat", "--config"]], ids=" ".join
)
def test_a_look_at_what_is_here_loads_no_client_and_nothing_that_computes(
    args: list[str], program_env: dict[str, str]
) -> None:
    shown = "num_hidden_layers" if "--config" in args else "tiny-chat"
    needed = {"huggingface_hub", "jinja2", "tokenizers"}  # for the cache's place and the chat template
    loaded = modules_after(RUN, program_env | {"HF_HUB_OFFLINE": "0"}, shown, *args)
    assert "llmcli.hub.models" in loaded
    assert loaded.isdisjoint({*HTTP_CLIENTS, *HEAVY} - needed)


def test_models_in_the_cache_are_listed_without_its_client(
    program_env: dict[str, str], tmp_path: Path
) -> None:
    snapshot = tmp_path / "hub" / "models--ada--model" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for file in bundled_model().path.iterdir():
        (snapshot / file.name).symlink_to(file)
    loaded = modules_after(RUN, program_env | {"HF_HUB_CACHE": str(tmp_path / "hub")}, "ada/model", "list")
    assert loaded.isdisjoint({*HTTP_CLIENTS, *HEAVY} - {"huggingface_hub"})


def test_a_heavy_import_would_be_seen(program_env: dict[str, str]) -> None:
    code = "import json, sys, numpy; print(json.dumps(sorted(sys.modules)))"
    assert not modules_after(code, program_env).isdisjoint(HEAVY)
