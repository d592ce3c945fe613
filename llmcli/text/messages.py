"""Chat messages as callers give them: checked, and turned into the plain form that templates read.

Knows nothing of templates or tokens. Called by `text/tokenizer.py`, and by front ends that check before a
model loads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from llmcli.errors import RequestError, quote

ROLES = ("system", "user", "assistant", "tool")
MAX_DEPTH = 64

_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")


def check_messages(messages: object, *, continue_final_message: bool = False) -> None:
    """Check the form of a chat.

    Args:
        messages: a list of mappings with `role` and `content`; content is a string or a list of
            {"type": "text", "text": ...} parts. An assistant message with tool calls may lack content.
        continue_final_message: the last message is an assistant's, to be gone on with.

    Raises:
        RequestError: names the index and the field at fault.
    """
    if not isinstance(messages, (list, tuple)):
        raise RequestError(f"messages must be a list, got {quote(messages)}", param="messages")
    if not messages:
        raise RequestError("messages is empty: give at least one message", param="messages")
    for index, message in enumerate(messages):
        if not _is_plain_text(message):
            _check_message(f"messages[{index}]", message)
    last = messages[-1]
    if (last["role"] == "assistant") is not continue_final_message:
        place = f"messages[{len(messages) - 1}].role"
        if continue_final_message:
            raise _fault(place, "must be assistant, for it is to be continued", last["role"])
        raise _fault(place, "is assistant: the last message must be one to answer", last["role"])


def _is_plain_text(message: object) -> bool:
    """Whether a message is of the form that nearly all have, in which nothing can be wrong."""
    return (
        type(message) is dict
        and len(message) == 2
        and message.get("role") in ("user", "system", "assistant")
        and type(message.get("content")) is str
    )


def _check_message(place: str, message: object) -> None:
    if not isinstance(message, Mapping):
        raise _fault(place, "must be an object with role and content", message)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise _fault(f"{place}.role", f"must be one of {', '.join(ROLES)}", role)
    calls = message.get("tool_calls")
    if calls is not None and not (
        isinstance(calls, list) and all(isinstance(call, Mapping) for call in calls)
    ):
        raise _fault(f"{place}.tool_calls", "must be a list of objects", calls)
    identifier = message.get("tool_call_id")
    if role == "tool" and not (isinstance(identifier, str) and identifier):
        raise _fault(f"{place}.tool_call_id", "must name the call that this message answers", identifier)
    content = message.get("content")
    if content is not None or role != "assistant" or not calls:
        _check_content(f"{place}.content", content)


def _check_content(place: str, content: object) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list) or not content:
        raise _fault(place, "must be a string or a list of text parts", content)
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text":
            raise _fault(f"{place}[{index}].type", "must be text, the only part that is supported", kind)
        if not isinstance(part.get("text"), str):
            raise _fault(f"{place}[{index}].text", "must be a string", part.get("text"))


def _fault(place: str, rule: str, value: object) -> RequestError:
    return RequestError(f"{place} {rule}; got {quote(value, 80)}", param=place)


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Checked messages as templates read them: fresh JSON values, fields that are None left out, text parts
    joined with newlines (most templates know strings only), reasoning under each name that templates use."""
    return [_plain_message(index, message) for index, message in enumerate(messages)]


def _plain_message(index: int, message: Mapping[str, Any]) -> dict[str, Any]:
    place = f"messages[{index}]"
    plain = {key: plain_json(value, place) for key, value in message.items() if value is not None}
    if isinstance(plain.get("content"), list):
        plain["content"] = "\n".join(part["text"] for part in plain["content"])
    reasoning = next((plain[key] for key in _REASONING_KEYS if key in plain), None)
    if reasoning is not None:
        plain["reasoning_content"] = reasoning
        plain.setdefault("thinking", reasoning)
    return plain


def plain_json(value: Any, place: str, depth: int = 0) -> Any:
    """A fresh copy of a JSON value.

    Raises:
        RequestError: not a JSON value, or nested deeper than 64.
    """
    if depth > MAX_DEPTH:
        raise RequestError(f"{place} is nested deeper than {MAX_DEPTH}", param=place)
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {
            plain_json(key, place, depth + 1): plain_json(item, place, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [plain_json(item, place, depth + 1) for item in value]
    raise RequestError(f"{place} holds a {quote(type(value).__name__)}, which is no JSON value", param=place)
