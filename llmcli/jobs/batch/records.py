"""What one request leaves in the output: a native record, an OpenAI batch line, or plain text.

Functions from a finished request to bytes. Knows no file and no engine; `batch.py` calls `format_result`.
"""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmcli.jobs.batch.input import BadLine
from llmcli.jobs.batch.requests import CHAT, BatchRequest
from llmcli.outputs import CompletionOutput, Logprob, RequestOutput, TokenLogprobs
from llmcli.text.sanitize import Sanitizer

Format = Literal["auto", "native", "openai", "text"]

OPENAI_ID_PREFIX = "batch_req_"

# Control characters that JSON may hold as they are, but a terminal or a line reader may act on.
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request has no answer.

    Attributes:
        code: its kind: invalid_line, invalid_request or generation_failed.
        status: the HTTP status of the same failure in a server; None where none would have seen a request.
    """

    code: Literal["invalid_line", "invalid_request", "generation_failed"]
    message: str
    param: str | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a request, all choices together."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """One request at its end, with its output or the failure, or both when it failed half-way.

    Attributes:
        reasoning: what each choice says before its answer; empty where nobody looked for it.
        num_reasoning: tokens of it, all choices together.
    """

    request: BatchRequest | BadLine
    output: RequestOutput | None = None
    failure: Failure | None = None
    seed: int | None = None
    reasoning: tuple[str, ...] = ()
    num_reasoning: int = 0

    @property
    def usage(self) -> Usage:
        if self.output is None:
            return Usage()
        return Usage(
            prompt_tokens=len(self.output.prompt_token_ids),
            completion_tokens=sum(len(choice.token_ids) for choice in self.output.outputs),
            cached_tokens=self.output.num_cached_tokens,
            reasoning_tokens=self.num_reasoning,
        )

    def reasoning_of(self, choice: CompletionOutput) -> str | None:
        """What a choice says before its answer, None for nothing."""
        return self.reasoning[choice.index] or None if self.reasoning else None


@dataclass(frozen=True, slots=True)
class RecordStyle:
    """How results are written.

    Attributes:
        format: "auto" answers OpenAI lines in OpenAI's form and all others natively.
        model: name of the model with its revision, as in the record's `model`.
        token_ids: whether native records carry the ids of the output.
        separator: what ends an answer in the text format.
        for_terminal: whether escape sequences are taken out of text answers.
    """

    format: Format = "auto"
    model: str = ""
    token_ids: bool = False
    separator: bytes = b"\n"
    for_terminal: bool = False


def format_result(result: Result, style: RecordStyle) -> bytes:
    """The bytes of one result: one whole line, but for the text format, where answers may hold newlines."""
    if style.format == "text":
        choices = result.output.outputs if result.output is not None and result.failure is None else []
        texts = [Sanitizer().push(c.text) if style.for_terminal else c.text for c in choices] or [""]
        return b"".join(text.encode() + style.separator for text in texts)
    request = result.request
    from_openai = request.openai if isinstance(request, BadLine) else request.endpoint is not None
    openai = style.format == "openai" or (style.format == "auto" and from_openai)
    record = _openai_record(result, style) if openai else _native_record(result, style)
    line = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
    return _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", line).encode() + b"\n"


def _native_record(result: Result, style: RecordStyle) -> dict[str, Any]:
    request, usage, failure = result.request, result.usage, result.failure
    choices = [_native_choice(c, result, style) for c in result.output.outputs] if result.output else []
    if len(choices) > 1:
        answer: dict[str, Any] = {"choices": [{"index": i, **choice} for i, choice in enumerate(choices)]}
    elif choices:
        answer = choices[0]
    else:
        nothing = CompletionOutput(0, finish_reason="error")
        answer = {**_native_choice(nothing, result, style), "text": None}
    return {
        "id": request.id,
        "index": request.index,
        "key": request.key,
        **answer,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
        },
        "timings": _timings(result.output),
        "seed": result.seed,
        "model": style.model,
        "meta": request.meta if isinstance(request, BatchRequest) else None,
        "error": None
        if failure is None
        else {"code": failure.code, "message": failure.message, "param": failure.param, "line": request.line},
    }


def _native_choice(choice: CompletionOutput, result: Result, style: RecordStyle) -> dict[str, Any]:
    logprobs = None if choice.logprobs is None else [_native_logprobs(entry) for entry in choice.logprobs]
    record: dict[str, Any] = {
        "text": choice.text,
        "reasoning": result.reasoning_of(choice),
        "tool_calls": None,
        "finish_reason": choice.finish_reason,
        "stop_reason": choice.stop_reason,
        "logprobs": logprobs,
    }
    return {**record, "token_ids": list(choice.token_ids)} if style.token_ids else record


def _native_logprobs(entry: TokenLogprobs) -> dict[str, Any]:
    def one(item: Logprob) -> dict[str, Any]:
        return {
            "token_id": item.token_id,
            "token": item.text,
            "logprob": _number(item.logprob),
            "rank": item.rank,
        }

    return {**one(entry.sampled), "top": [one(item) for item in entry.top]}


def _timings(output: RequestOutput | None) -> dict[str, float] | None:
    """From admission to the end of the slowest choice; the rate is over the time since the first token."""
    stats = (
        [choice.stats for choice in output.outputs if choice.stats is not None] if output is not None else []
    )
    if not stats:
        return None
    ttft_s, total_s = min(s.ttft_s for s in stats), max(s.total_s for s in stats)
    num_decoded = sum(s.num_output_tokens for s in stats) - len(stats)
    rate = num_decoded / (total_s - ttft_s) if num_decoded > 0 and total_s > ttft_s else 0.0
    return {
        "queue_ms": round(1000 * min(s.queue_s for s in stats), 2),
        "ttft_ms": round(1000 * ttft_s, 2),
        "total_ms": round(1000 * total_s, 2),
        "tok_per_s": round(rate, 2),
    }


def _openai_record(result: Result, style: RecordStyle) -> dict[str, Any]:
    request, failure = result.request, result.failure
    name = f"req_{request.index}"
    record = {
        "id": f"{OPENAI_ID_PREFIX}{request.key}",
        "custom_id": str(request.index) if request.id is None else str(request.id),
        "response": None,
        "error": None,
    }
    if failure is not None and failure.status is None:
        return {**record, "error": {"code": failure.code, "message": failure.message}}
    if failure is not None:
        kind = "invalid_request_error" if failure.status == 400 else "server_error"
        error = {"message": failure.message, "type": kind, "param": failure.param, "code": failure.code}
        response: dict[str, Any] = {
            "status_code": failure.status,
            "request_id": name,
            "body": {"error": error},
        }
    else:
        response = {"status_code": 200, "request_id": name, "body": _openai_body(result, style)}
    return {**record, "response": response}


def _openai_body(result: Result, style: RecordStyle) -> dict[str, Any]:
    request, usage, output = result.request, result.usage, result.output
    assert isinstance(request, BatchRequest)
    assert output is not None
    chat = request.endpoint == CHAT or (request.endpoint is None and request.kind != "token_ids")
    make = _chat_choice if chat else _text_choice
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{request.index}",
        "object": "chat.completion" if chat else "text_completion",
        "created": int(time.time()),
        "model": style.model,
        "choices": [make(choice, result) for choice in output.outputs],
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        },
    }


def _chat_choice(choice: CompletionOutput, result: Result) -> dict[str, Any]:
    def one(item: Logprob) -> dict[str, Any]:
        return {"token": item.text, "logprob": _number(item.logprob), "bytes": list(item.text.encode())}

    logprobs: Mapping[str, Any] | None = None
    if choice.logprobs is not None:
        content = [{**one(e.sampled), "top_logprobs": [one(item) for item in e.top]} for e in choice.logprobs]
        logprobs = {"content": content, "refusal": None}
    reasoning = result.reasoning_of(choice)
    thought = {} if reasoning is None else {"reasoning_content": reasoning}
    return {
        "index": choice.index,
        "message": {"role": "assistant", "content": choice.text, "refusal": None, **thought},
        "logprobs": logprobs,
        "finish_reason": choice.finish_reason,
    }


def _text_choice(choice: CompletionOutput, _: Result) -> dict[str, Any]:
    logprobs: Mapping[str, Any] | None = None
    if choice.logprobs is not None:
        tokens = [entry.sampled.text for entry in choice.logprobs]
        logprobs = {
            "tokens": tokens,
            "token_logprobs": [_number(entry.sampled.logprob) for entry in choice.logprobs],
            "top_logprobs": [{item.text: _number(item.logprob) for item in e.top} for e in choice.logprobs],
            "text_offset": [sum(map(len, tokens[:i])) for i in range(len(tokens))],
        }
    return {
        "index": choice.index,
        "text": choice.text,
        "logprobs": logprobs,
        "finish_reason": choice.finish_reason,
    }


def _number(value: float) -> float | None:
    """JSON has no infinity: a token that could not be drawn has no log-probability."""
    return value if abs(value) < float("inf") else None
