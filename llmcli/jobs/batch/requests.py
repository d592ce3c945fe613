"""One line of a prompt file, parsed and checked: `BatchRequest`.

Owns the line forms (native and OpenAI batch), their fields and aliases. Knows no file, tokenizer or engine:
what needs the model (length of the prompt, range of its ids, what the template takes) is checked when the
request is admitted. `batch/input.py` calls `parse_request` for each line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, cast

from llmcli.errors import RequestError, quote
from llmcli.nearest import nearest
from llmcli.sampling import FIELD_NAMES, MAX_SEED, MAX_TOKENS, SamplingParams
from llmcli.structured import FORM_FIELDS, read_form
from llmcli.text.grammar import check_form
from llmcli.text.messages import check_messages

Endpoint = Literal["/v1/chat/completions", "/v1/completions"]
Message = Mapping[str, Any]
RequestId = str | int

CHAT: Endpoint = "/v1/chat/completions"
COMPLETIONS: Endpoint = "/v1/completions"
MAX_ID_CHARS = 256
NEAR = 0.8  # as similar as this, an unknown field is taken for a typing error
MAX_COMPARED_CHARS = 40

PROMPT_KEYS = ("prompt", "messages", "prompt_token_ids")
# What data sets call a prompt.
PROMPT_NAMES = ("prompt", "text", "question", "input", "instruction", "query", "content")
OPENAI_KEYS = ("custom_id", "method", "url", "body")
_OPENAI_MARKS = ("method", "url", "body")
ALIASES: Mapping[str, str] = {
    "max_completion_tokens": "max_tokens",
    "max_new_tokens": "max_tokens",
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
    "temp": "temperature",
    "repeat_penalty": "repetition_penalty",
}
# The form of an answer has names of its own: FORM_FIELDS.
_PLAIN_FIELDS = tuple(name for name in FIELD_NAMES if name != "structured")
NATIVE_KEYS = (*PROMPT_KEYS, "id", "custom_id", "model", "system", "meta", *_PLAIN_FIELDS, *ALIASES)
SAMPLING_KEYS = frozenset((*_PLAIN_FIELDS, *ALIASES))
_FORM_KEYS = frozenset(FORM_FIELDS)
_NATIVE = frozenset((*NATIVE_KEYS, *FORM_FIELDS))
# Not `choice` and its like: many data sets have labels called `choices`.
_COMPARED = (*NATIVE_KEYS, "json_schema", "response_format", "structured_outputs")

# Fields that other programs know and this one does not, with the values that ask for nothing.
UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    "stream": (None, False),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "chat_template": (None,),
    "chat_template_kwargs": (None, {}),
    "prompt_embeds": (None,),
    "best_of": (None, 1),
    "lora": (None,),
}
UNSUPPORTED_IN_BODY: Mapping[str, tuple[object, ...]] = {
    **UNSUPPORTED,
    "stream_options": (None,),
    "parallel_tool_calls": (None, True, False),
    "modalities": (None, ["text"]),
    "echo": (None, False),
    "suffix": (None, ""),
}
IGNORED_IN_BODY = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
_KNOWN_IN_BODY: Mapping[Endpoint, tuple[str, ...]] = {
    url: (*own, "model", *_PLAIN_FIELDS, *ALIASES, *FORM_FIELDS, *UNSUPPORTED_IN_BODY, *IGNORED_IN_BODY)
    for url, own in ((CHAT, ("messages", "top_logprobs")), (COMPLETIONS, ("prompt",)))
}


@dataclass(frozen=True, slots=True)
class LineRules:
    """What a line is checked against besides itself.

    Attributes:
        models: names that a line's `model` may have; the first one is shown. Empty allows any.
        sampling: the sampling fields given as flags; a line's own override them.
        raw: True sends text prompts as they are, False through the chat template, None as the model allows.
        prompt_field: another name for `prompt` in lines that have none of the fields of PROMPT_KEYS.
    """

    models: tuple[str, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    raw: bool | None = None
    prompt_field: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """One request of a prompt file.

    Attributes:
        line: number of its line, from 1, blank lines counted.
        index: its place among the requests, from 0.
        id: the user's name for it, or None.
        kind: what `prompt` holds: a text, a list of messages, or token ids.
        sampling: its own sampling fields, to be laid over the flags.
        system: its own system prompt; "" wants none; None takes the flag's.
        meta: labels to carry to the output.
        endpoint: the OpenAI endpoint it names, or None for a native line.
        model: the model that it names.
        key: what its record is to carry so that it is known to be done; see `batch/keys.py`.
    """

    line: int
    index: int
    id: RequestId | None
    kind: Literal["text", "messages", "token_ids"]
    prompt: str | Sequence[Message] | Sequence[int]
    sampling: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    meta: Mapping[str, Any] | None = None
    endpoint: Endpoint | None = None
    model: str | None = None
    key: str = ""


def is_openai(value: Mapping[str, Any]) -> bool:
    """Whether a line is in OpenAI's batch form; a native line may have a label called `url`."""
    keys = value.keys()
    return keys.isdisjoint(PROMPT_KEYS) and not keys.isdisjoint(_OPENAI_MARKS)


def find_id(value: object) -> RequestId | None:
    """The id of a line that need not be right otherwise, None if it has none that can be used."""
    if not isinstance(value, dict):
        return None
    for key in ("id", "custom_id"):
        try:
            if value.get(key) is not None:
                return _check_id(value[key], key, integers=True)
        except RequestError:
            return None
    return None


def parse_request(value: object, *, line: int, index: int, rules: LineRules) -> BatchRequest:
    """Turn the JSON value of one line into a request.

    Raises:
        RequestError: the line can not be served; says which field, its value and its limit.
    """
    if isinstance(value, str):
        value = {"prompt": value}
    if not isinstance(value, dict):
        names = {list: "an array", type(None): "null", bool: "true or false"}
        raise RequestError(
            f"expected a JSON object or string, got {names.get(type(value), 'a number')}",
            fix='write lines like {"prompt": "Hello"}',
        )
    parse = _parse_openai if is_openai(value) else _parse_native
    return parse(value, line, index, rules)


def _parse_native(value: dict[str, Any], line: int, index: int, rules: LineRules) -> BatchRequest:
    if rules.prompt_field is not None:
        value = _with_prompt(value, rules.prompt_field)
    given = [key for key in PROMPT_KEYS if value.get(key) is not None]
    if len(given) != 1:
        found = "none of them" if not given else " and ".join(given)
        near = next((name for name in PROMPT_NAMES if isinstance(value.get(name), str)), None)
        fix = f"if '{near}' is the prompt: --column {near}" if near and not given else ""
        raise RequestError(f"exactly one of {', '.join(PROMPT_KEYS)} is wanted, got {found}", fix=fix)
    meta = _meta(value)
    kind, prompt = _prompt(given[0], value[given[0]])
    system = value.get("system")
    if system is not None:
        _check_system(system, kind, prompt, rules)
    _check_model(value.get("model"), rules)
    return BatchRequest(
        line=line,
        index=index,
        id=_native_id(value),
        kind=kind,
        prompt=prompt,
        sampling=_sampling(value, rules),
        system=system,
        meta=meta,
        model=value.get("model"),
    )


def _parse_openai(value: dict[str, Any], line: int, index: int, rules: LineRules) -> BatchRequest:
    _refuse_unknown(value, OPENAI_KEYS, "a batch line")
    if value.get("custom_id") is None:
        raise RequestError("custom_id is missing", param="custom_id")
    custom_id = _check_id(value["custom_id"], "custom_id", integers=False)
    if value.get("method") != "POST":
        raise RequestError(f"method must be POST, got {quote(value.get('method'), 40)}", param="method")
    url, body = value.get("url"), value.get("body")
    if url not in (CHAT, COMPLETIONS):
        raise RequestError(f"url must be {CHAT} or {COMPLETIONS}, got {quote(url, 80)}", param="url")
    if not isinstance(body, dict):
        raise RequestError(f"body must be an object, got {quote(body, 40)}", param="body")

    prompt_key = "messages" if url == CHAT else "prompt"
    _refuse_unsupported(body, UNSUPPORTED_IN_BODY)
    _refuse_unknown(body, _KNOWN_IN_BODY[url], "the body")
    if body.get(prompt_key) is None:
        raise RequestError(f"body.{prompt_key} is missing", param=prompt_key)
    _check_model(body.get("model"), rules)
    kind, prompt = (
        _completion_prompt(body["prompt"]) if url == COMPLETIONS else _prompt("messages", body["messages"])
    )
    return BatchRequest(
        line=line,
        index=index,
        id=custom_id,
        kind=kind,
        prompt=prompt,
        sampling=_sampling(_chat_logprobs(body) if url == CHAT else body, rules),
        endpoint=url,
        model=body.get("model"),
    )


def _prompt(key: str, value: Any) -> tuple[Literal["text", "messages", "token_ids"], Any]:
    if key == "prompt_token_ids":
        return "token_ids", _check_token_ids(value, key)
    if key == "messages" or isinstance(value, list):
        return "messages", _messages(value)
    return "text", _check_text(value)


def _messages(value: Any) -> list[Message]:
    """Checked messages; OpenAI's newer name for the system role is one that templates do not know."""
    if isinstance(value, list):
        renamed = {"role": "system"}
        value = [
            {**m, **renamed} if isinstance(m, dict) and m.get("role") == "developer" else m for m in value
        ]
    check_messages(value)
    return cast(list[Message], value)


def _completion_prompt(value: Any) -> tuple[Literal["text", "token_ids"], Any]:
    """OpenAI's completions take a text or token ids, and never a chat template."""
    if not isinstance(value, list):
        return "text", _check_text(value)
    if value and isinstance(value[0], (str, list)):
        if len(value) > 1:
            raise RequestError(f"prompt holds {len(value)} prompts, a batch line takes one", param="prompt")
        return _completion_prompt(value[0])
    return "token_ids", _check_token_ids(value, "prompt")


def _check_text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        shown = "an empty string" if value == "" else quote(value, 40)
        raise RequestError(f"prompt must be a text of at least one character, got {shown}", param="prompt")
    return value


def _check_token_ids(value: Any, param: str) -> list[int]:
    if not isinstance(value, list) or not value:
        raise RequestError(
            f"{param} must be a list of at least one token id, got {quote(value, 40)}", param=param
        )
    for i, token_id in enumerate(value):
        if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id <= MAX_TOKENS:
            raise RequestError(
                f"{param}[{i}] must be an integer from 0 to {MAX_TOKENS}, got {quote(token_id, 40)}",
                param=param,
            )
    return value


def _check_system(system: Any, kind: str, prompt: Any, rules: LineRules) -> None:
    if not isinstance(system, str):
        raise RequestError(f"system must be a string, got {quote(system, 40)}", param="system")
    if kind == "token_ids" or (kind == "text" and rules.raw):
        why = "--raw" if kind == "text" else "prompt_token_ids"
        raise RequestError(f"system needs the chat template, and {why} goes without it", param="system")
    if kind == "messages" and prompt[0]["role"] == "system":
        raise RequestError("system is given twice: as a field and as the first message", param="system")


def _native_id(value: Mapping[str, Any]) -> RequestId | None:
    if value.get("id") is not None and value.get("custom_id") is not None:
        raise RequestError("id and custom_id are both given: keep one", param="id")
    for key in ("id", "custom_id"):
        if value.get(key) is not None:
            return _check_id(value[key], key, integers=key == "id")
    return None


def _check_id(value: Any, key: str, *, integers: bool) -> RequestId:
    if integers and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return value
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_ID_CHARS or not value.isprintable():
        wanted = "an integer or " if integers else ""
        length = f" ({len(value)} characters)" if isinstance(value, str) else ""
        raise RequestError(
            f"{key} must be {wanted}a string of 1 to {MAX_ID_CHARS} printable characters,"
            f" got '{quote(value, 40)}'{length}",
            param=key,
        )
    return value


def _check_model(value: Any, rules: LineRules) -> None:
    if value is None or value in rules.models:
        return
    if rules.models or not isinstance(value, str) or not value:
        wanted = f"the one of this run, '{quote(rules.models[0])}'" if rules.models else "a name"
        raise RequestError(
            f"model '{quote(value, 80)}' is not {wanted}",
            fix="remove the field, or give the model with -m",
            param="model",
        )


def _meta(value: Mapping[str, Any]) -> dict[str, Any] | None:
    """Unknown fields are labels of the user's, unless they look like a typing error."""
    meta = value.get("meta")
    if meta is None and value.keys() <= _NATIVE:
        return None
    _refuse_unsupported(value, UNSUPPORTED)
    if meta is not None and not isinstance(meta, dict):
        raise RequestError(f"meta must be an object, got {quote(meta, 40)}", param="meta")
    labels = dict(meta or {})
    for name in value:
        if name in _NATIVE or name in UNSUPPORTED:
            continue
        near = _nearest(name, _COMPARED)
        if near is not None:
            raise RequestError(
                f"unknown field '{quote(name, 80)}': did you mean {near!r}?",
                fix=f'a label of your own goes under "meta": {{"{quote(name, 80)}": ...}}',
                param=name,
            )
        labels[name] = value[name]
    return labels or None


def _refuse_unsupported(value: Mapping[str, Any], unsupported: Mapping[str, tuple[object, ...]]) -> None:
    for name in value:
        if name in unsupported and value[name] not in unsupported[name]:
            why = "answers are written whole in a batch" if name == "stream" else ""
            raise RequestError(
                f"{name} is not supported here, got {quote(value[name], 40)}", why=why, param=name
            )


def _refuse_unknown(value: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    for name in value:
        if name in known:
            continue
        near = _nearest(name, known, cutoff=0.5)
        hint = f": did you mean {near!r}?" if near else ""
        raise RequestError(f"unknown field '{quote(name, 80)}' in {what}{hint}", param=name)


def _nearest(name: str, known: tuple[str, ...], cutoff: float = NEAR) -> str | None:
    return None if len(name) > MAX_COMPARED_CHARS else _compared(name, known, cutoff)


@lru_cache(maxsize=256)  # a label stands on every line, and comparing costs more than all else of a line
def _compared(name: str, known: tuple[str, ...], cutoff: float) -> str | None:
    near = nearest(name, known, cutoff=cutoff)
    return near[0] if near else None


def _chat_logprobs(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """OpenAI's chat endpoint has a switch, and the number in another field; ours has the number."""
    if body.keys().isdisjoint(("logprobs", "top_logprobs")):
        return body
    fields = dict(body)
    wanted, top = fields.pop("logprobs", None), fields.pop("top_logprobs", None)
    if wanted is not None and not isinstance(wanted, bool):
        raise RequestError(f"logprobs must be true or false, got {quote(wanted, 40)}", param="logprobs")
    if top is not None and not wanted:
        raise RequestError("top_logprobs needs logprobs: true", param="top_logprobs")
    if wanted:
        fields["logprobs"] = 0 if top is None else top
    return fields


_NOTHING: Mapping[str, Any] = MappingProxyType({})


def _sampling(value: Mapping[str, Any], rules: LineRules) -> Mapping[str, Any]:
    """The line's sampling fields under their own names, checked with the flags; null is not given."""
    has_form = not value.keys().isdisjoint(_FORM_KEYS)
    if value.keys().isdisjoint(SAMPLING_KEYS) and not has_form:
        return _NOTHING
    fields: dict[str, Any] = {}
    for key in value:
        if key not in SAMPLING_KEYS or value[key] is None:
            continue
        name = ALIASES.get(key, key)
        if name in fields:
            raise RequestError(f"{name} is given twice, under two names", param=name)
        fields[name] = value[key]
    if has_form and any(value.get(key) is not None for key in FORM_FIELDS):
        try:
            form = read_form(value)
        except RequestError as error:
            fix = error.fix or 'a label of your own goes under "meta"'
            raise RequestError(error.what, why=error.why, fix=fix, param=error.param) from None
        if form is not None or "structured" in rules.sampling:  # "text" takes the flag's form back
            fields["structured"] = form
    if fields:
        _check_sampling(fields, rules)
    return fields


def _check_sampling(fields: Mapping[str, Any], rules: LineRules) -> None:
    """Raise a RequestError for a wrong value. Lines of a file mostly differ in the seed alone, if at all."""
    checked = dict(fields)
    seed = checked.get("seed")
    if type(seed) is int and 0 <= seed <= MAX_SEED:
        del checked["seed"]
    key = tuple([(name, type(value), value) for name, value in checked.items()])
    try:
        _sampling_is_right(key, tuple(rules.sampling.items()))
    except TypeError:  # a list is no key
        _check_values({**rules.sampling, **checked})


@lru_cache(maxsize=256)
def _sampling_is_right(fields: tuple[tuple[str, type, Any], ...], flags: tuple[tuple[str, Any], ...]) -> None:
    _check_values({**dict(flags), **{name: value for name, _, value in fields}})


def _check_values(values: Mapping[str, Any]) -> None:
    params = SamplingParams(**values)
    if params.structured is not None:
        check_form(params.structured)


def _with_prompt(value: dict[str, Any], prompt_field: str) -> dict[str, Any]:
    """The line with the prompt under its own name, where another field is to be taken for it."""
    if prompt_field not in value or any(value.get(key) is not None for key in PROMPT_KEYS):
        return value
    return {"prompt" if name == prompt_field else name: value[name] for name in value if name != "prompt"}
