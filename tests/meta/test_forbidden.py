"""What the code may not do: run data as code, keep global state, read the environment, hide in a drawer."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.meta.source_tree import ROOT, imports, sources

TEST_FILES = sorted((ROOT / "tests").rglob("*.py"))
FORBIDDEN_IMPORTS = {
    "pickle": "a pickle runs code",
    "marshal": "it loads code",
    "shelve": "a shelf is a pickle",
    "dill": "a pickle runs code",
    "click": "Typer brings its own",
    "typer._click": "it is Typer's own business",
}
# The kernels know nothing of cli/, and their compiled code belongs into the user's cache folder ($XDG_CACHE_HOME).
ENVIRONMENT_READERS = ("llmcli.cli", "llmcli_kernels.native.object_cache")
DRAWERS = {"utils", "util", "common", "helpers", "helper", "misc", "core", "tools"}


def violations(module: str, text: str) -> Iterator[str]:
    """One sentence for each forbidden thing in `text`."""
    for line, name in imports(module, text):
        for banned, reason in FORBIDDEN_IMPORTS.items():
            if name == banned or name.startswith(banned + "."):
                yield f"{module} line {line}: no {banned}, {reason}"
        if name in ("os.environ", "os.getenv") and not module.startswith(ENVIRONMENT_READERS):
            yield f"{module} line {line}: only cli/ reads the environment"
    for node in ast.walk(ast.parse(text)):
        if complaint := _complaint(module, node):
            yield f"{module} line {getattr(node, 'lineno', 1)}: {complaint}"


def _complaint(module: str, node: ast.AST) -> str:
    if isinstance(node, ast.Global):
        return "no global state"
    if isinstance(node, ast.Attribute):
        name = ast.unparse(node)
        if name in ("torch.load", "yaml.load", "yaml.unsafe_load"):
            return f"{name} runs code from a file"
        if name in ("os.environ", "os.getenv") and not module.startswith(ENVIRONMENT_READERS):
            return "only cli/ reads the environment"
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("eval", "exec", "compile")
    ):
        return f"no {node.func.id}"
    if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
        trusting = not (isinstance(node.value, ast.Constant) and node.value.value is False)
        return "no remote code" if trusting else ""
    return ""


def test_the_code_does_nothing_forbidden() -> None:
    assert [sentence for module, text in sources().items() for sentence in violations(module, text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "def f():\n    from torch import load\n    import torch\n    torch.load('x')",
        "from marshal import loads",
        "eval('1')",
        "exec(text)",
        "yaml.load(file)",
        "AutoModel.from_pretrained(name, trust_remote_code=flag)",
        "import os\nos.environ['X']",
        "from os import getenv",
        "def f():\n    global state",
        "import click",
    ],
)
def test_a_planted_violation_is_found(text: str) -> None:
    assert list(violations("llmcli.planted", text))


def test_a_model_in_evaluation_mode_is_no_violation() -> None:
    assert not list(
        violations("llmcli.planted", "model.eval()\nload(trust_remote_code=False)\nre.compile('x')")
    )


def test_every_module_says_what_it_is() -> None:
    silent = [
        name for name, text in sources().items() if text.strip() and not ast.get_docstring(ast.parse(text))
    ]
    assert silent == []


def test_no_module_is_a_drawer() -> None:
    assert [name for name in sources() if DRAWERS & set(name.split("."))] == []


def has_tests(text: str) -> bool:
    """Whether a test file holds a test: a function, a method, or a hypothesis machine's `TestCase`."""
    nodes = list(ast.walk(ast.parse(text)))
    functions = any(isinstance(node, ast.FunctionDef) and node.name.startswith("test") for node in nodes)
    return functions or any(isinstance(node, ast.Attribute) and node.attr == "TestCase" for node in nodes)


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_of_tests_holds_a_test_or_serves_one(path: Path) -> None:
    text = path.read_text("utf-8")
    if path.name.startswith("test_"):
        assert has_tests(text)
    elif path.name != "conftest.py":
        used = {
            part
            for other in TEST_FILES
            for _, name in imports("", other.read_text("utf-8"))
            for part in name.split(".")
        }
        assert path.stem in used, "no test imports this file"
