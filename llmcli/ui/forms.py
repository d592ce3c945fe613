"""The form of an answer as people type it: a JSON schema or a grammar, in place or in a file.

Used by the options of `chat` and `run` and by the slash commands. What a form may be is `llmcli/structured.py`'s.
"""

from llmcli.errors import UsageError
from llmcli.ui.text_files import read_text


def schema_text(typed: str) -> str:
    """The JSON text of a schema: `{...}` is one, `@FILE` or FILE names its file.

    Raises:
        UsageError: the file can not be read.
    """
    text = typed.strip()
    if text.startswith("{") or text == "true":
        return text
    return _file_text(text, "a schema begins with {")


def grammar_text(typed: str) -> str:
    """The text of a grammar: one with rules (`root ::=`, `start:`) is one, `@FILE` or FILE names its file.

    Raises:
        UsageError: the file can not be read.
    """
    text = typed.strip()
    if "::=" in text or text.startswith("start:") or "\n" in text:
        return text
    return _file_text(text, "a grammar has a rule called root (GBNF) or start (Lark)")


def _file_text(name: str, otherwise: str) -> str:
    try:
        return read_text(name.removeprefix("@"))
    except UsageError as error:
        raise UsageError(error.what, why=error.why, fix=error.fix or f"name a file; {otherwise}") from None
