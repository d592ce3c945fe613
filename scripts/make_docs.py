"""Writes the pages of docs/ that are made from the program itself: one per command, and the table of all options.

    python -m scripts.make_docs            # writes what has changed
    python -m scripts.make_docs --check    # says what would change, and exits with 1 if anything would

Owns the form of the pages. What they say comes from the help texts, so it is changed there.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from llmcli.cli.app import ALIASES, COMMANDS, app
from llmcli.cli.options import HIDDEN_ALIASES

DOCS = Path(__file__).parents[1] / "docs"
MADE = "<!-- Made by scripts/make_docs.py from the help texts. Do not edit. -->\n"
BEGIN, END = "<!-- options: begin -->", "<!-- options: end -->"
UNLIMITED = 10_000  # columns, so that no usage line is wrapped


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check only compare them."""
    if arguments not in ([], ["--check"]):
        print(f"unknown arguments: {' '.join(arguments)}; there is only --check", file=sys.stderr)
        return 2
    stale = {path: text for path, text in pages().items() if _read(path) != text}
    leftover = set((DOCS / "commands").glob("*.md")) - set(pages())
    for path in sorted((*stale, *leftover)):
        print(f"{path.relative_to(DOCS.parent)}: {'to be removed' if path in leftover else 'out of date'}")
    if arguments:
        if stale or leftover:
            print("to mend it: python -m scripts.make_docs", file=sys.stderr)
        return int(bool(stale or leftover))
    for path, text in stale.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    for path in leftover:
        path.unlink()
    return 0


def pages() -> dict[Path, str]:
    """Every page that is made here, in whole or in part, as it should be."""
    found = commands()
    families = dict.fromkeys(name.split()[0] for name in found)
    made = {DOCS / "commands" / f"{name}.md": command_page(name, found) for name in families}
    made[DOCS / "commands" / "README.md"] = index_page(found)
    configuration = DOCS / "configuration.md"
    made[configuration] = with_options(_read(configuration), options_table(found))
    return made


def commands() -> dict[str, Any]:
    """The commands by name, in the order of `llmcli --help`."""
    group: Any = get_command(app)
    return {name: group.get_command(None, name) for name in COMMANDS}


def command_page(name: str, found: Mapping[str, Any]) -> str:
    """The page of one command; its forms, which have a second word, and commands of its own follow as sections."""
    other = [alias for alias, meant in ALIASES.items() if meant == name]
    lines = [MADE, f"# llmcli {name}\n", *_sections(found[name], _context(name, found[name]), "##")]
    for form, command in found.items():
        if form.startswith(f"{name} "):
            lines += [f"## llmcli {form}\n", *_sections(command, _context(form, command), "###")]
    if other:
        lines.insert(2, f"Also known as {', '.join(f'`llmcli {alias}`' for alias in other)}.\n")
    lines.append(
        "[All commands](README.md) · [configuration](../configuration.md) · [troubleshooting](../troubleshooting.md)\n"
    )
    return "\n".join(lines)


def _sections(command: Any, context: Any, heading: str) -> Iterator[str]:
    usage = context.get_usage().removeprefix("Usage: ")
    yield f"{command.help}\n"
    yield f"```\n{usage}\n```\n"
    if command.epilog:
        yield f"{heading} Examples\n\n```\n{command.epilog}\n```\n"
    if hasattr(command, "list_commands"):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            yield f"{heading} {context.command_path} {name}\n"
            yield from _sections(inner, _context(name, inner, context), f"{heading}#")
        return
    for title, rows in _panels(command, context).items():
        yield f"{heading} {title}\n\n{_table(rows)}"


def _context(name: str, command: Any, parent: Any = None) -> Any:
    """What Typer asks for beside a command, as if it had been typed."""
    if parent is None:
        program: Any = get_command(app)
        parent = program.make_context("llmcli", [], resilient_parsing=True)
    return command.make_context(name, [], parent=parent, resilient_parsing=True, terminal_width=UNLIMITED)


def _panels(command: Any, context: Any) -> dict[str, list[tuple[str, ...]]]:
    """Section of the help -> rows of its table, its head first."""
    panels: dict[str, list[tuple[str, ...]]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None:
            continue
        is_option = parameter.param_type_name == "option"
        title = getattr(parameter, "rich_help_panel", None) or ("Options" if is_option else "Arguments")
        names, text = record[0], re.sub(r"\s+\[default: (.*)\]$", r" Default: `\1`.", record[1])
        if is_option:
            head: tuple[str, ...] = ("option", "what it does", "in the environment", "also")
            row: tuple[str, ...] = (
                f"`{names}`",
                text,
                _codes(_variables(parameter)),
                _codes(_also(parameter)),
            )
        else:
            head, row = ("argument", "what it is"), (f"`{names}`", text)
        panels.setdefault(title, [head]).append(row)
    order = sorted(panels, key=lambda title: (title != "Arguments", title != "Options"))
    return {title: panels[title] for title in order}


def index_page(found: Mapping[str, Any]) -> str:
    """All commands with their first sentence."""
    rows = [("command", "what it does")]
    for name, command in found.items():
        first = " ".join(command.help.split("\n\n")[0].split())
        rows.append((f"[llmcli {name}]({name.split()[0]}.md)", first))
    note = "Each page is what `--help` says, with the variable and the other names of each option."
    return f"{MADE}\n# Commands\n\n{_table(rows)}\n{note}\n"


def options_table(found: Mapping[str, Any]) -> str:
    """Every option of every command, once."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, command in found.items():
        for parameter, context in _parameters(command, _context(name, command)):
            if parameter.param_type_name != "option" or parameter.get_help_record(context) is None:
                continue
            shown = [*parameter.opts, *parameter.secondary_opts]
            row = (
                _codes(shown),
                _codes(_variables(parameter)),
                _default(parameter),
                _codes(_also(parameter)),
            )
            if "--help" not in shown:
                users = rows.setdefault(row, [])
                users += [name] * (name not in users)
    everywhere = len(found)
    table = [("option", "in the environment", "default", "also", "commands")]
    for row, names in sorted(rows.items(), key=lambda item: item[0][0].lstrip("`-")):
        table.append((*row, "all" if len(names) == everywhere else ", ".join(names)))
    return _table(table)


def _parameters(command: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    """Those of a command, or of the commands below it, each with its context."""
    if not hasattr(command, "list_commands"):
        yield from ((parameter, context) for parameter in command.get_params(context))
        return
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        yield from _parameters(inner, _context(name, inner, context))


def with_options(page: str, table: str) -> str:
    """A page with the table between its two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise typer.BadParameter(f"docs/configuration.md must hold {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


def _also(option: Any) -> list[str]:
    """Names that work and that help does not show."""
    names = (*option.opts, *option.secondary_opts)
    return [alias for name in names for alias in HIDDEN_ALIASES.get(name, ())]


def _variables(option: Any) -> list[str]:
    names = option.envvar or []
    return [names] if isinstance(names, str) else list(names)


def _default(option: Any) -> str:
    """Of a switch, whether it is on; nothing for one that is left to the model or the machine."""
    if isinstance(option.default, bool):
        return "on" if option.default else "off"
    return "" if option.default is None else f"`{option.default}`"


def _codes(names: list[str]) -> str:
    return " ".join(f"`{name}`" for name in names)


def _table(rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; the first row is its head."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ").strip() for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]) + "\n"


def _read(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
