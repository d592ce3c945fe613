"""A chat as a file for people or programs: Markdown, JSON (OpenAI messages), or the records of a session.

Also reads one back for `--load`. Knows no folder of sessions. Called by `/export`, `/save`, `--save`, `--load`
and `llmcli sessions export`.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmcli import strict_json
from llmcli.errors import OutputError, UsageError, quote
from llmcli.ui.sessions.records import (
    VERSION,
    ChatSetup,
    SavedChat,
    changes,
    read_setup,
    setup_record,
    stats_record,
    turns_of_messages,
)
from llmcli.ui.sessions.store import read_session

MAX_BYTES = 256 << 20


def as_markdown(chat: SavedChat) -> str:
    """The conversation for people; answers keep their own Markdown."""
    setup = chat.setup
    lines = [f"# Chat with {setup.model}", ""]
    if setup.system:
        lines += ["## System", "", setup.system, ""]
    for turn in chat.turns:
        lines += ["## User", "", turn.user, "", "## Assistant", ""]
        if turn.reasoning:
            lines += ["<details><summary>Reasoning</summary>", "", turn.reasoning, "", "</details>", ""]
        lines += [turn.answer or "", ""]
        if turn.stopped:
            lines += ["*(stopped)*", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def as_json(chat: SavedChat) -> str:
    """One JSON object: model, parameters, and `messages` in OpenAI's form."""
    messages: list[dict[str, Any]] = []
    if chat.setup.system:
        messages.append({"role": "system", "content": chat.setup.system})
    for turn in chat.turns:
        messages.append({"role": "user", "content": turn.user})
        if turn.answer:
            answer: dict[str, Any] = {"role": "assistant", "content": turn.answer}
            if turn.reasoning:
                answer["reasoning_content"] = turn.reasoning
            if turn.finish_reason is not None:
                answer["finish_reason"] = turn.finish_reason
            messages.append(answer | ({} if turn.stats is None else stats_record(turn.stats)))
    about = {name: value for name, value in setup_record(chat.setup).items() if name != "system"}
    return json.dumps(about | {"messages": messages}, ensure_ascii=False, indent=2) + "\n"


def as_jsonl(chat: SavedChat) -> str:
    """The records of a session that holds this conversation and nothing else."""
    meta = {"type": "meta", "version": VERSION} | setup_record(chat.setup)
    records, _ = changes(SavedChat(chat.setup), chat)
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in [meta, *records])


FORMATS: Mapping[str, Callable[[SavedChat], str]] = {
    ".md": as_markdown,
    ".json": as_json,
    ".jsonl": as_jsonl,
}


def check_target(path: Path) -> None:
    """Refuse a file that can not be exported to, before there is something to lose.

    Raises:
        UsageError: its ending says no format, it exists, or its folder does not.
    """
    if path.suffix not in FORMATS:
        raise UsageError(
            f"{quote(str(path))} has no ending that tells the format", fix=f"use one of {', '.join(FORMATS)}"
        )
    if os.path.exists(path):  # these never raise, whatever the name and the folder are
        raise UsageError(f"{quote(str(path))} exists", fix="name another file, or remove it first")
    if not os.path.isdir(path.parent):
        raise UsageError(f"there is no folder {quote(str(path.parent))}", fix="make it, or name another")


def write(chat: SavedChat, path: Path, *, replace: bool = False) -> None:
    """Write a chat in the format of the file's ending.

    Raises:
        UsageError: see `check_target`.
        OutputError: the file can not be written.
    """
    if not replace:
        check_target(path)
    data = FORMATS[path.suffix](chat).encode("utf-8", "replace")
    try:
        if not replace:
            with open(path, "xb") as file:
                file.write(data)
            return
        part = path.with_name(path.name + ".part")
        part.write_bytes(data)
        part.replace(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "this is no name for a file"
        raise OutputError(f"{quote(str(path))} can not be written: {reason}") from None


def read(path: Path, setup: ChatSetup) -> SavedChat:
    """The chat in a file: a session or its export (.jsonl), or OpenAI messages (.json).

    Args:
        setup: what a file that names no model is taken to run with.

    Raises:
        UsageError: it is not there, or holds no chat.
    """
    if path.suffix == ".jsonl":
        return read_session(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{quote(str(path))} is larger than {MAX_BYTES >> 20} MiB")
        value = strict_json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{quote(str(path))} can not be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{quote(str(path))} is not JSON: {quote(str(error))}") from None
    messages = value.get("messages") if isinstance(value, dict) else value
    about = value if isinstance(value, dict) and "model" in value else setup_record(setup)
    try:
        system, turns = turns_of_messages(messages if isinstance(messages, list) else [])
        return SavedChat(read_setup({**about, "system": system}), turns)
    except ValueError as error:
        raise UsageError(f"{quote(str(path))} holds no chat: {error}") from None
