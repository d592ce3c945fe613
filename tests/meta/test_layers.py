"""Imports go down only: the layers of the package, and who may know which heavy library."""

import pytest

from tests.meta.source_tree import imports, sources

# From the ground up. A part may import parts of lower layers, and itself.
LAYERS = (
    {
        "errors",
        "config",
        "fit",
        "gpu_facts",
        "hardware",
        "nearest",
        "outputs",
        "plan",
        "sampling",
        "strict_json",
        "structured",
    },
    {"model", "scheduler", "text", "hub"},
    {"runtime", "quantize"},
    {"engine"},
    {"ui", "jobs", "server", "llm"},
    {"cli"},
    {"__init__", "__main__"},
)
LEVELS = {part: level for level, parts in enumerate(LAYERS) for part in parts}

# Libraries that only these parts may import, at any place in a file.
KNOWN_BY = {
    "torch": {"model", "runtime", "quantize", "engine", "jobs", "llmcli_kernels"},
    "triton": {"llmcli_kernels"},
    "llvmlite": {"llmcli_kernels"},
    "llmcli_kernels": {"model", "runtime", "engine", "llmcli_kernels"},
    "huggingface_hub": {"hub"},
    "llguidance": {"text"},
    "prompt_toolkit": {"ui"},
    "tokenizers": {"text"},
    "transformers": {"text"},
    "typer": {"cli"},
}
STANDARD_LIBRARY_ONLY = {
    "errors",
    "config",
    "gpu_facts",
    "plan",
    "nearest",
    "fit",
    "sampling",
    "outputs",
    "strict_json",
    "structured",
    "scheduler",
}
KERNEL_LIBRARIES = {"torch", "triton", "llvmlite", "llmcli_kernels"}


def part_of(name: str) -> str:
    """`llmcli.hub.models` -> `hub`; `llmcli_kernels.rms_norm` -> `llmcli_kernels`; `torch.nn` -> `torch`."""
    top, _, rest = name.partition(".")
    if top != "llmcli":
        return top
    part = rest.partition(".")[0]
    return part if part in LEVELS else "__init__"


def wrong_edges(texts: dict[str, str]) -> list[str]:
    """One sentence for each import that breaks the order of the layers."""
    wrong = []
    for module, text in texts.items():
        part = part_of(module)
        for line, target in imports(module, text):
            if complaint := _complaint(part, target):
                wrong.append(f"{module} line {line} imports {target}: {complaint}")
    return wrong


def _complaint(part: str, target: str) -> str:
    import sys

    other, top = part_of(target), target.partition(".")[0]
    if top in KNOWN_BY and part not in KNOWN_BY[top]:
        return f"only {', '.join(sorted(KNOWN_BY[top]))} may know {top}"
    if part == "llmcli_kernels":
        foreign = top not in KERNEL_LIBRARIES and top not in sys.stdlib_module_names
        return f"the kernels know only {', '.join(sorted(KERNEL_LIBRARIES))}" if foreign else ""
    if top != "llmcli":
        foreign = part in STANDARD_LIBRARY_ONLY and top not in sys.stdlib_module_names
        return f"{part} uses the standard library only" if foreign else ""
    if target == "llmcli.__version__" or other == part:
        return ""
    if LEVELS[other] == LEVELS[part] == 0:
        return ""  # the ground is one level of values; the cycle test keeps it in order
    if LEVELS[other] >= LEVELS[part]:
        return f"{part} (layer {LEVELS[part]}) may not import {other} (layer {LEVELS[other]})"
    return ""


def cycles(texts: dict[str, str]) -> list[str]:
    """Each group of modules that import each other in a circle, as one line."""
    graph = {
        module: {found for _, name in imports(module, text) if (found := _module_in(name, texts)) != module}
        for module, text in texts.items()
    }
    found = {frozenset(_circle(start, graph)) for start in graph}
    return sorted(" <-> ".join(sorted(circle)) for circle in found if len(circle) > 1)


def _module_in(name: str, texts: dict[str, str]) -> str | None:
    """The module that `from module import name` loads."""
    return name if name in texts else name.rpartition(".")[0] if name.rpartition(".")[0] in texts else None


def _circle(start: str, graph: dict[str, set[str | None]]) -> set[str]:
    """All modules that `start` reaches and that reach `start`."""
    reached = {module: _reach(module, graph) for module in _reach(start, graph)}
    return {module for module, onward in reached.items() if start in onward}


def _reach(start: str, graph: dict[str, set[str | None]]) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in graph[waiting.pop()]:
            if target is not None and target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen


def test_every_import_goes_down() -> None:
    assert wrong_edges(sources()) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    # The root names its lazy exports for type checkers, and everybody may ask it for the version.
    assert cycles({name: text for name, text in sources().items() if name != "llmcli"}) == []


def test_every_part_of_the_package_has_a_layer() -> None:
    parts = {name.split(".")[1] for name in sources() if name.startswith("llmcli.")}
    assert parts <= set(LEVELS) | {"assets"}


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("llmcli.scheduler.plan", "def f():\n    from llmcli.engine import engine"),
        ("llmcli.model.spec", "if TYPE_CHECKING:\n    from llmcli.text.tokenizer import Tokenizer"),
        ("llmcli.config", "import llmcli.model.spec"),
        ("llmcli.engine.engine", "from ..ui import console"),
        ("llmcli.hub.models", "importlib.import_module('llmcli.llm')"),
        ("llmcli.hub.models", "from llmcli import LLM"),
        ("llmcli.text.tokenizer", "import torch.nn"),
        ("llmcli.scheduler.blocks", "import numpy"),
        ("llmcli_kernels.rms_norm", "from llmcli.errors import quote"),
        ("llmcli.cli.chat", "def f():\n    import torch"),
    ],
)
def test_a_planted_wrong_import_is_found(module: str, text: str) -> None:
    [sentence] = wrong_edges({module: text})
    assert sentence.startswith(f"{module} line {text.count(chr(10)) + 1} imports ")


def test_a_planted_circle_is_found() -> None:
    texts = {
        "llmcli.a": "from llmcli.b import x",
        "llmcli.b": "def f():\n    import llmcli.a",
        "llmcli.c": "",
    }
    assert cycles(texts) == ["llmcli.a <-> llmcli.b"]
