"""The Python files of the repository, by module name, and the imports that each of them makes."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def sources() -> dict[str, str]:
    """Text of every module of both packages: `llmcli.config`, `llmcli_kernels.rms_norm.cpu`, ..."""
    texts: dict[str, str] = {}
    for top in (ROOT / "llmcli", ROOT / "kernels" / "llmcli_kernels"):
        for path in sorted(top.rglob("*.py")):
            parts = path.relative_to(top.parent).with_suffix("").parts
            texts[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text("utf-8")
    return texts


def is_package(module: str) -> bool:
    """Whether `module` is an `__init__` file."""
    path = Path(*module.split("."))
    return any((ROOT / top / path / "__init__.py").exists() for top in (".", "kernels"))


def imports(module: str, text: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in `text`: lazy, type-only, relative and by `import_module` alike.

    `from a import b` gives `a.b`, whether b is a module or not.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package(module)]
                base = ".".join([*parents, *filter(None, [node.module])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__", "find_spec"):
                yield node.lineno, str(node.args[0].value)
