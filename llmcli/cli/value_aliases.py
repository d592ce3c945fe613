"""Options that other tools give a value where ours are switches: `--reasoning off` is `--no-think`.

`cli/command.py` replaces them before it parses a line, so that nothing else knows of them.
"""

from collections.abc import Iterator, Sequence

from llmcli.errors import UsageError, quote

# Name -> value -> the switch that says the same; None for one that says nothing.
VALUE_ALIASES: dict[str, dict[str, str | None]] = {
    "--reasoning": {"on": "--think", "off": "--no-think", "auto": None},
}


def replace_value_aliases(args: Sequence[str], known: set[str]) -> Iterator[str]:
    """The arguments with our own switches.

    Args:
        known: the names of the command's options; an alias for others is left as it is.

    Raises:
        UsageError: a value that the alias does not have.
    """
    words = iter(args)
    for word in words:
        name, equals, value = word.partition("=")
        switches = VALUE_ALIASES.get(name, {})
        if not switches or not known.issuperset(filter(None, switches.values())):
            yield word
            if word == "--":
                yield from words
            continue
        value = value if equals else next(words, "")
        if value not in switches:
            raise UsageError(f"{name} takes {', '.join(switches)}, got {quote(value, 40)}")
        if switch := switches[value]:
            yield switch
