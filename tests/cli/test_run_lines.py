"""One file with every kind of broken line, through the real program and the bundled model: what each gets."""

import json
from typing import Any

import pytest

from llmcli.cli.app import run_command_line

USER = {"role": "user", "content": "hi"}
CHAT = {"method": "POST", "url": "/v1/chat/completions"}
LONGEST = 8 << 20


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def chat(custom_id: str, **body: Any) -> bytes:
    return line(custom_id=custom_id, **CHAT, body={"messages": [USER], **body})


# Name, the bytes of a line, and a part of what its record says; None for a line that is answered.
LINES: list[tuple[str, bytes, str | None]] = [
    ("J3 byte order mark on line 1", b'\xef\xbb\xbf{"prompt": "a"}', None),
    ("J1 spaces and CRLF", b'  {"prompt": "a"} \r', None),
    ("J3 byte order mark later", b'\xef\xbb\xbf{"prompt": "a"}', "column 1"),
    ("J4 UTF-16", '{"prompt": "a"}'.encode("utf-16-le"), "column 2"),
    ("J4 invalid byte", b'{"prompt": "\xff"}', "byte 13 is not UTF-8"),
    ("J5 truncated", b'{"prompt": "a"', "column 15"),
    ("J6 string", b'"a"', None),
    ("J6 array", b"[1]", "expected a JSON object or string, got an array"),
    ("J6 number", b"7", "got a number"),
    ("J6 null", b"null", "got null"),
    ("J7 NaN", b'{"prompt": "a", "top_p": NaN}', "NaN is not a finite number"),
    ("J7 Infinity", b'{"prompt": "a", "top_p": Infinity}', "Infinity is not a finite number"),
    ("J7 1e999", b'{"prompt": "a", "top_p": 1e999}', "1e999 is not a finite number"),
    ("J8 duplicate key", b'{"prompt": "a", "prompt": "b"}', "duplicate key 'prompt'"),
    ("J9 nesting", b"[" * 100_000, "nesting deeper than 64"),
    ("J10 digits", b'{"prompt": "a", "x": ' + b"1" * 5000 + b"}", "5000 digits is too long"),
    ("J11 lone surrogate", b'{"prompt": "\\ud800"}', "surrogate"),
    ("J12 Unicode line ends", '{"prompt": "a\u2028b\u2029c\x85d"}'.encode(), None),
    ("J13 NUL", line(prompt="a\0b"), None),
    ("J14 8 MiB", b'{"prompt": "' + b"a" * LONGEST + b'"}', "longer than 8 MiB"),
    ("J15 none", line(), "exactly one of prompt, messages, prompt_token_ids is wanted, got none"),
    ("J15 both", line(prompt="a", messages=[USER]), "got prompt and messages"),
    ("J16 empty", line(prompt=""), "got an empty string"),
    ("J16 spaces", line(prompt="   "), None),
    ("J17 empty", line(messages=[]), "messages is empty"),
    ("J17 no list", line(messages="hi"), "messages must be a list"),
    ("J17 role", line(messages=[{"role": "boss", "content": "hi"}]), "messages[0].role must be one of"),
    ("J17 null", line(messages=[{"role": "user", "content": None}]), "messages[0].content must be"),
    ("J17 number", line(messages=[{"role": "user", "content": 5}]), "messages[0].content must be"),
    ("J17 assistant last", line(messages=[{"role": "assistant", "content": "a"}]), "messages[0].role is"),
    ("J17 tool without id", line(messages=[{"role": "tool", "content": "a"}]), "tool_call_id must name"),
    ("J18 first of its id", chat("same"), None),
    ("J18 second of its id", chat("same"), "id 'same' is already that of line"),
    ("J19 long", line(prompt="a", custom_id="x" * 10_000), "1 to 256 printable characters"),
    ("J19 newline", line(prompt="a", custom_id="a\nb"), "1 to 256 printable characters"),
    ("J19 escape code", line(prompt="a", custom_id="\x1b[2J"), "got '\\x1b[2J'"),
    ("J19 number", line(prompt="a", custom_id=5), "custom_id must be"),
    ("J20 true", line(prompt="a", max_tokens=True), "max_tokens must be an integer"),
    ("J20 string", line(prompt="a", max_tokens="5"), "max_tokens must be an integer"),
    ("J20 1e3", line(prompt="a", max_tokens=1e3), "max_tokens must be an integer"),
    ("J20 3.5", line(prompt="a", max_tokens=3.5), "max_tokens must be an integer"),
    ("J21 prompt too long", line(prompt_token_ids=[5] * 64), "the prompt has 64 tokens, at most 63 fit"),
    ("J21 room for one", line(prompt_token_ids=[5] * 63), None),
    ("J22 more than the pool", line(prompt_token_ids=[5] * 5000), "the prompt has 5000 tokens, at most 63"),
    ("J23 negative", line(prompt_token_ids=[1, -1]), "prompt_token_ids[1] must be an integer from 0"),
    (
        "J23 as many as the vocabulary has",
        line(prompt_token_ids=[1, 10**6]),
        "1000000 at index 1 is not in 0..",
    ),
    ("J23 large", line(prompt_token_ids=[2**63]), "prompt_token_ids[0] must be"),
    ("J23 float", line(prompt_token_ids=[1.0]), "prompt_token_ids[0] must be"),
    ("J23 bool", line(prompt_token_ids=[True]), "prompt_token_ids[0] must be"),
    ("J23 empty", line(prompt_token_ids=[]), "at least one token id"),
    ("J24 typing error", line(prompt="a", temprature=1), "did you mean 'temperature'?"),
    ("J24 label", line(prompt="a", level=1), None),
    ("J25 model", line(prompt="a", model="gpt"), "'gpt' is not the one of this run, 'tiny-chat'"),
    ("J25 adapter", line(prompt="a", lora="x"), "lora is not supported here"),
    ("J26 stream", chat("stream", stream=True), "stream is not supported here"),
    ("J26 n", line(prompt="a", n=1000), "n must be an integer in 1..16"),
    ("J26 url", line(custom_id="u", method="POST", url="/v1/embeddings", body={}), "url must be /v1/chat"),
    ("J2 no newline at the end", line(prompt="last"), None),
]


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, list[str | None]]:
    """What the records of each line say, by its id or index: the message of an error, or None."""
    folder = tmp_path_factory.mktemp("lines")
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    # J1: blank lines in between.
    source.write_bytes(b"\n\n  \n".join(data for _, data, _ in LINES))
    options = ["-m", "tiny-chat", "--max-model-len", "64", "-n", "1", "--skip-invalid", "-q"]
    assert run_command_line(["run", str(source), "-o", str(output), *options]) == 3
    found: dict[Any, list[str | None]] = {}
    for text in output.read_bytes().splitlines():
        record = json.loads(text)
        error = record["error"]
        name = record.get("custom_id", record.get("index"))
        found.setdefault(name, []).append(error and error["message"])
    return found


@pytest.mark.parametrize("index", range(len(LINES)), ids=[name for name, _, _ in LINES])
def test_each_line_gets_what_it_should(index: int, messages: dict[Any, list[str | None]]) -> None:
    _, data, said = LINES[index]
    found = messages[index] if index in messages else messages[json.loads(data)["custom_id"]]
    assert any(message is None if said is None else said in (message or "") for message in found)


def test_every_line_has_one_record(messages: dict[Any, list[str | None]]) -> None:
    assert sum(map(len, messages.values())) == len(LINES)
