"""The records of a saved chat: what is written when a conversation changes, and what they give when read.

A chat is kept as JSON lines that are only ever added to. The first is the meta record: format version, id,
model, revision, system prompt, sampling parameters. Then come OpenAI messages (an answer with its
`reasoning_content`, `finish_reason`, `usage` and `timings`) and events: {"event": "undo", "turns": 2},
{"event": "clear"}, {"event": "set", ...} for what changed of the meta record, {"event": "fork", "id": ...}.
An answer with "replaces": true takes the place of the one before it. What is to be written is found by
comparing two states, so no command can forget to have itself recorded.

Pure: knows neither files nor folders (`sessions/store.py`), nor who changes the conversation.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from llmcli.errors import RequestError, quote
from llmcli.outputs import FinishReason, RequestStats
from llmcli.ui.conversation import Turn

VERSION = 1
Record = dict[str, Any]
FINISH_REASONS = get_args(FinishReason)


@dataclass(frozen=True, slots=True)
class ChatSetup:
    """What a chat runs with, and needs to be resumed.

    Attributes:
        model: as `llmcli chat` takes it: a hub id, a folder, or the bundled model's name.
        revision: commit of a hub model.
        url: of the server that runs the model; None for this machine.
        params: sampling fields that were set on top of the model's defaults.
        think: whether the model is told to think, None for as its template likes.
        thinking_budget: tokens after which its reasoning is closed.
    """

    model: str
    revision: str | None = None
    url: str | None = None
    system: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    think: bool | None = None
    thinking_budget: int | None = None


@dataclass(frozen=True, slots=True)
class SavedChat:
    """A chat as its records tell it."""

    setup: ChatSetup
    turns: tuple[Turn, ...] = ()


def setup_record(setup: ChatSetup) -> Record:
    """The fields of the meta record that `setup` gives."""
    return {name: value for name, value in dataclasses.asdict(setup).items() if value not in (None, {})}


def changes(before: SavedChat, after: SavedChat) -> tuple[list[Record], SavedChat]:
    """What to add to the records of `before` so that they give `after`, and what they then give.

    An answer that is being written anew gives nothing until it is there: the old one counts until then.
    """
    kept = _num_equal(before.turns, after.turns)
    old, new = before.turns[kept:], after.turns[kept:]
    records = _setup_changes(before.setup, after.setup)
    if len(old) != 1 or not new or old[0].user != new[0].user:
        if old:
            records.append({"event": "undo", "turns": len(old)} if after.turns else {"event": "clear"})
        return records + _turn_records(new), after
    if new[0].answer is None and old[0].answer is not None:
        return records, SavedChat(after.setup, before.turns)
    if new[0].answer is not None:
        replaces = {} if old[0].answer is None else {"replaces": True}
        records.append(_answer_record(new[0]) | replaces)
    return records + _turn_records(new[1:]), after


def replay(records: Iterable[Record]) -> SavedChat:
    """The chat that records lead to; a question without an answer counts as stopped before the first word.

    Raises:
        RequestError: names the record (counted from 1, the meta record is the first) and what is wrong.
    """
    setup: ChatSetup | None = None
    turns: list[Turn] = []
    for number, record in enumerate(records, 1):
        try:
            if setup is None:
                setup = _read_meta(record)
            elif record.get("event") == "set":
                setup = read_setup({**setup_record(setup), **record})
            else:
                _apply(record, turns)
        except (ValueError, TypeError) as error:
            raise RequestError(f"line {number}: {error}") from None
    if setup is None:
        raise RequestError("line 1: there is no meta record")
    _close_open(turns)
    return SavedChat(setup, tuple(turns))


def turns_of_messages(messages: Sequence[Mapping[str, Any]]) -> tuple[str | None, tuple[Turn, ...]]:
    """System prompt and turns of a list of OpenAI messages.

    Raises:
        RequestError: it is no conversation of text that user and assistant have in turns.
    """
    from llmcli.text.messages import check_messages, plain_messages

    ends_with_answer = (
        bool(messages) and isinstance(messages[-1], Mapping) and messages[-1].get("role") == "assistant"
    )
    check_messages(messages, continue_final_message=ends_with_answer)
    plain = plain_messages(messages)
    system = str(plain.pop(0).get("content", "")) if plain[0]["role"] == "system" else None
    turns: list[Turn] = []
    offset = len(messages) - len(plain)
    for index, message in enumerate(plain, offset):
        try:
            _apply(message, turns)
        except ValueError as error:
            raise RequestError(f"messages[{index}]: {error}", param="messages") from None
    _close_open(turns)
    return system, tuple(turns)


def _num_equal(first: Sequence[Turn], second: Sequence[Turn]) -> int:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def _setup_changes(before: ChatSetup, after: ChatSetup) -> list[Record]:
    names = [field.name for field in dataclasses.fields(ChatSetup)]
    changed = {name: getattr(after, name) for name in names if getattr(before, name) != getattr(after, name)}
    return [{"event": "set", **changed}] if changed else []


def _turn_records(turns: Sequence[Turn]) -> list[Record]:
    records: list[Record] = []
    for turn in turns:
        records.append({"role": "user", "content": turn.user})
        if turn.answer is not None:
            records.append(_answer_record(turn))
    return records


def _answer_record(turn: Turn) -> Record:
    record: Record = {"role": "assistant", "content": turn.answer}
    if turn.reasoning:
        record["reasoning_content"] = turn.reasoning
    if turn.finish_reason is not None:
        record["finish_reason"] = turn.finish_reason
    if turn.stats is not None:
        record |= stats_record(turn.stats)
    return record


def stats_record(stats: RequestStats) -> Record:
    """`usage` in OpenAI's form, `timings` in seconds."""
    prompt, output = stats.num_prompt_tokens, stats.num_output_tokens
    return {
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": stats.num_cached_tokens},
        },
        "timings": {"queue_s": stats.queue_s, "ttft_s": stats.ttft_s, "total_s": stats.total_s},
    }


def _read_meta(record: Record) -> ChatSetup:
    if record.get("type") != "meta":
        raise ValueError('is no meta record: {"type": "meta", ...}')
    if record.get("version") != VERSION:
        version = quote(record.get("version"), 20)
        raise ValueError(f"format version {version}; this llmcli reads version {VERSION}")
    return read_setup(record)


def read_setup(record: Mapping[str, Any]) -> ChatSetup:
    """What the fields of a record give; other fields are passed over.

    Raises:
        ValueError: a field has the wrong kind, or there is no model.
    """
    kinds: Mapping[str, type | tuple[type, ...]] = {
        "model": str,
        "revision": (str, type(None)),
        "url": (str, type(None)),
        "system": (str, type(None)),
        "params": Mapping,
        "think": (bool, type(None)),
        "thinking_budget": (int, type(None)),
    }
    values = {name: record[name] for name in kinds if name in record}
    for name, value in values.items():
        if not isinstance(value, kinds[name]):
            raise ValueError(f"{name} must not be {quote(value, 40)}")
    budget = values.get("thinking_budget")
    if budget is not None and (budget is True or budget < 1):
        raise ValueError(f"thinking_budget must not be {budget}")
    if "model" not in values:
        raise ValueError("names no model")
    return ChatSetup(**values)


def _apply(record: Record, turns: list[Turn]) -> None:
    """Carry out one message or event."""
    role, event = record.get("role"), record.get("event")
    if role == "user":
        _close_open(turns)
        turns.append(Turn(_text(record)))
    elif role == "assistant":
        _take_answer(record, turns)
    elif event == "clear":
        turns.clear()
    elif event == "undo":
        count = record.get("turns")
        if type(count) is not int or not 0 < count <= len(turns):
            raise ValueError(f"undo of {quote(count, 20)} turns, there are {len(turns)}")
        del turns[len(turns) - count :]
    elif event != "fork":
        raise ValueError(f"neither a message of user or assistant nor a known event: {quote(record, 80)}")


def _take_answer(record: Record, turns: list[Turn]) -> None:
    if not turns or (turns[-1].answer is not None and not record.get("replaces")):
        raise ValueError("an answer without a question")
    reason = record.get("finish_reason")
    if reason is not None and reason not in FINISH_REASONS:
        raise ValueError(f"finish_reason must be one of {', '.join(FINISH_REASONS)}, got {quote(reason, 40)}")
    turns[-1] = Turn(
        turns[-1].user,
        _text(record),
        reasoning=str(record.get("reasoning_content", "")),
        finish_reason=reason,
        stats=_read_stats(record),
    )


def _text(record: Record) -> str:
    content = record.get("content")
    if not isinstance(content, str):
        raise ValueError(f"content must be a string, got {quote(content, 40)}")
    return content


def _read_stats(record: Record) -> RequestStats | None:
    usage, timings = record.get("usage"), record.get("timings")
    if not isinstance(usage, Mapping) or not isinstance(timings, Mapping):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens", 0) if isinstance(details, Mapping) else 0
    counts = (usage.get("prompt_tokens"), cached, usage.get("completion_tokens"))
    times = (timings.get("queue_s"), timings.get("ttft_s"), timings.get("total_s"))
    if not all(type(count) is int for count in counts) or not all(
        isinstance(seconds, (int, float)) for seconds in times
    ):
        return None
    return RequestStats(*counts, *times)  # type: ignore[arg-type]


def _close_open(turns: list[Turn]) -> None:
    if turns and turns[-1].answer is None:
        turns[-1] = dataclasses.replace(turns[-1], answer="", finish_reason="abort")
