"""Lines of a prompt file: which are taken, how they are understood, and what is said of the others."""

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcli.errors import UsageError
from llmcli.jobs.batch.input import BadLine, PromptFile
from llmcli.jobs.batch.requests import BatchRequest, LineRules
from llmcli.jobs.batch.sources import MAX_LINE_BYTES
from llmcli.structured import StructuredOutput

RULES = LineRules(models=("tiny-chat",))
CHAT = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
COMPLETION = {"custom_id": "a", "method": "POST", "url": "/v1/completions"}
USER = {"role": "user", "content": "hi"}


def read(data: bytes, rules: LineRules = RULES, form: Any = "jsonl") -> list[BatchRequest | BadLine]:
    return list(PromptFile(io.BytesIO(data), "prompts.jsonl", form).requests(rules))


def parse(line: dict[str, Any], rules: LineRules = RULES) -> BatchRequest:
    (parsed,) = read(json.dumps(line).encode(), rules)
    assert isinstance(parsed, BatchRequest), parsed
    return parsed


def complaint(line: bytes | dict[str, Any], rules: LineRules = RULES) -> str:
    (parsed,) = read(line if isinstance(line, bytes) else json.dumps(line).encode(), rules)
    assert isinstance(parsed, BadLine), parsed
    return str(parsed)


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        pytest.param(b'{"prompt": "a"}\n\n  \r\n{"prompt": "b"}\r\n', [1, 4], id="J1 blank lines, CRLF"),
        pytest.param(b'{"prompt": "a"}\n{"prompt": "b"}', [1, 2], id="J2 no newline at the end"),
        pytest.param(b'\xef\xbb\xbf{"prompt": "a"}', [1], id="J3 byte order mark"),
        pytest.param('{"prompt": "a\u2028b\u2029c\x85d"}\n'.encode(), [1], id="J12 Unicode line ends"),
        pytest.param(b'{"prompt": "a\\u0000b"}', [1], id="J13 NUL"),
        pytest.param(b'{"prompt": "   "}', [1], id="J16 spaces"),
        pytest.param(b"", [], id="nothing"),
    ],
)
def test_a_good_file_keeps_its_line_numbers(data: bytes, lines: list[int]) -> None:
    requests = read(data)
    assert [(type(r), r.line) for r in requests] == [(BatchRequest, line) for line in lines]
    assert [r.index for r in requests] == list(range(len(lines)))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param(
            b'{"prompt": "a"}\n\xef\xbb\xbf{"prompt": "b"}', "line 2: column 1", id="J3 mark on line 2"
        ),
        pytest.param(b'{"prompt": "\xff"}', "line 1: byte 13 is not UTF-8", id="J4 invalid byte"),
        pytest.param('{"prompt": "a"}'.encode("utf-16"), "line 1: byte 1 is not UTF-8", id="J4 UTF-16"),
        pytest.param(b'{"prompt": "a"', "line 1: column 15", id="J5 truncated"),
        pytest.param(b'{"prompt": "a"\r\n', "line 1: column 15", id="J5 truncated, and ended"),
        pytest.param(b"[1]", "expected a JSON object or string, got an array", id="J6 array"),
        pytest.param(b"7", "expected a JSON object or string, got a number", id="J6 number"),
        pytest.param(b"null", "expected a JSON object or string, got null", id="J6 null"),
        pytest.param(b'{"prompt": "a", "top_p": NaN}', "NaN is not a finite", id="J7 NaN"),
        pytest.param(b'{"prompt": "a", "top_p": -Infinity}', "-Infinity is not", id="J7 Infinity"),
        pytest.param(b'{"prompt": "a", "top_p": 1e999}', "1e999 is not a finite", id="J7 1e999"),
        pytest.param(b'{"prompt": "a", "prompt": "b"}', "duplicate key 'prompt'", id="J8"),
        pytest.param(b"[" * 100_000, "nesting deeper than 64", id="J9"),
        pytest.param(b'{"prompt": "a", "x": ' + b"1" * 5001 + b"}", "5001 digits is too long", id="J10"),
        pytest.param(b'{"prompt": "\\ud800"}', "surrogate", id="J11"),
    ],
)
def test_a_broken_line_is_told_with_its_place(line: bytes, said: str) -> None:
    assert said in str(read(line)[-1])


def test_a_line_over_the_limit_is_refused_and_the_next_one_read() -> None:
    longest = b'{"prompt": "' + b"a" * (MAX_LINE_BYTES - 14) + b'"}'
    first, second, third = read(longest + b"\n" + longest + b"a\n" + b'{"prompt": "b"}')
    assert isinstance(first, BatchRequest)
    assert str(second) == "line 2: longer than 8 MiB, the limit for one line"
    assert (third.line, third.index) == (3, 2)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({}, "exactly one of prompt, messages, prompt_token_ids is wanted", id="J15 none"),
        pytest.param({"prompt": "a", "messages": [USER]}, "got prompt and messages", id="J15 both"),
        pytest.param({"prompt": ""}, "got an empty string", id="J16 empty"),
        pytest.param({"prompt": 7}, "prompt must be a text", id="prompt is a number"),
        pytest.param({"messages": []}, "messages is empty", id="J17 no message"),
        pytest.param({"messages": "hi"}, "messages must be a list", id="J17 not a list"),
        pytest.param({"messages": [{"role": "boss", "content": "hi"}]}, "messages[0].role", id="J17 role"),
        pytest.param({"messages": [{"role": "user", "content": None}]}, "messages[0].content", id="J17 null"),
        pytest.param({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", id="J17 number"),
        pytest.param(
            {"messages": [USER, {"role": "assistant", "content": "a"}]},
            "messages[1].role",
            id="J17 assistant last",
        ),
        pytest.param(
            {"messages": [{"role": "tool", "content": "a"}]}, "tool_call_id", id="J17 tool without id"
        ),
        pytest.param({"prompt": [USER, 5]}, "messages[1] must be an object", id="messages as prompt"),
        pytest.param({"prompt": "a", "id": "x" * 10_000}, "id must be", id="J19 long"),
        pytest.param({"prompt": "a", "custom_id": "a\nb"}, "custom_id must be", id="J19 newline"),
        pytest.param(
            {"prompt": "a", "custom_id": "\x1b[2J"}, "'\\x1b[2J'", id="J19 escape code is shown escaped"
        ),
        pytest.param({"prompt": "a", "custom_id": 5}, "custom_id must be", id="J19 number"),
        pytest.param({"prompt": "a", "id": True}, "id must be", id="J19 true"),
        pytest.param({"prompt": "a", "id": 1, "custom_id": "b"}, "both given", id="two ids"),
        pytest.param({"prompt": "a", "max_tokens": True}, "max_tokens must be an integer", id="J20 true"),
        pytest.param({"prompt": "a", "max_tokens": "5"}, "max_tokens must be an integer", id="J20 string"),
        pytest.param({"prompt": "a", "max_tokens": 1e3}, "max_tokens must be an integer", id="J20 1e3"),
        pytest.param({"prompt": "a", "max_tokens": 3.5}, "max_tokens must be an integer", id="J20 3.5"),
        pytest.param(
            {"prompt": "a", "temperature": 3}, "temperature must be a number in 0..2", id="temperature"
        ),
        pytest.param({"prompt_token_ids": [1, -1]}, "prompt_token_ids[1]", id="J23 negative"),
        pytest.param({"prompt_token_ids": [2**63]}, "prompt_token_ids[0]", id="J23 large"),
        pytest.param({"prompt_token_ids": [1.0]}, "prompt_token_ids[0]", id="J23 float"),
        pytest.param({"prompt_token_ids": [True]}, "prompt_token_ids[0]", id="J23 bool"),
        pytest.param({"prompt_token_ids": []}, "at least one token id", id="J23 empty"),
        pytest.param({"prompt": "a", "temprature": 1}, "did you mean 'temperature'?", id="J24"),
        pytest.param(
            {"prompt": "a", "model": "gpt"}, "'gpt' is not the one of this run, 'tiny-chat'", id="J25"
        ),
        pytest.param({"prompt": "a", "lora": "x"}, "lora is not supported", id="J25 adapter"),
        pytest.param({"prompt": "a", "stream": True}, "stream is not supported here", id="J26 stream"),
        pytest.param({"prompt": "a", "n": 1000}, "n must be an integer in 1..16", id="J26 n"),
        pytest.param({"prompt": "a", "max_tokens": 1, "max_new_tokens": 1}, "given twice", id="two names"),
        pytest.param({"prompt": "a", "meta": 5}, "meta must be an object", id="meta"),
        pytest.param(
            {"prompt_token_ids": [1], "system": "s"}, "system needs the chat template", id="system and ids"
        ),
        pytest.param(
            {"messages": [{"role": "system", "content": "a"}, USER], "system": "b"},
            "given twice",
            id="two systems",
        ),
    ],
)
def test_a_native_line_with_a_wrong_field_is_refused(fields: dict[str, Any], said: str) -> None:
    assert said in complaint(fields)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param({**CHAT, "url": "/v1/embeddings", "body": {}}, "url must be /v1/chat", id="J26 url"),
        pytest.param({**CHAT, "method": "GET", "body": {}}, "method must be POST", id="method"),
        pytest.param({**CHAT, "body": 5}, "body must be an object", id="body"),
        pytest.param({"method": "POST", "url": CHAT["url"], "body": {}}, "custom_id is missing", id="no id"),
        pytest.param({**CHAT, "body": {"model": "tiny-chat"}}, "body.messages is missing", id="no messages"),
        pytest.param(
            {**CHAT, "body": {"messages": [USER], "model": "gpt"}}, "'gpt' is not the one", id="J25"
        ),
        pytest.param({**CHAT, "body": {"messages": [USER], "temprature": 1}}, "'temperature'", id="J24"),
        pytest.param(
            {**CHAT, "body": {"messages": [USER], "label": 1}}, "unknown field 'label'", id="unknown"
        ),
        pytest.param(
            {**CHAT, "body": {"messages": [USER], "stream": True}}, "stream is not", id="J26 stream"
        ),
        pytest.param(
            {**CHAT, "body": {"messages": [USER], "tools": [{}]}}, "tools is not supported", id="tools"
        ),
        pytest.param(
            {**CHAT, "body": {"messages": [USER], "logprobs": 5}}, "logprobs must be true", id="logprobs"
        ),
        pytest.param(
            {**CHAT, "body": {"messages": [USER], "logprobs": True, "top_logprobs": 21}},
            "0..20",
            id="top_logprobs",
        ),
        pytest.param({**COMPLETION, "body": {"prompt": ["a", "b"]}}, "holds 2 prompts", id="two prompts"),
        pytest.param({**COMPLETION, "body": {"prompt": []}}, "at least one token id", id="no prompt"),
        pytest.param(
            {**COMPLETION, "body": {"prompt": "a", "echo": True}}, "echo is not supported", id="echo"
        ),
        pytest.param({**CHAT, "extra": 1, "body": {"messages": [USER]}}, "unknown field 'extra'", id="extra"),
    ],
)
def test_an_openai_line_with_a_wrong_field_is_refused(line: dict[str, Any], said: str) -> None:
    assert said in complaint(line)


def test_each_line_form_becomes_a_request() -> None:
    assert (parse({"prompt": "a"}).kind, parse({"prompt": [USER]}).kind) == ("text", "messages")
    assert parse({"messages": [USER]}).prompt == [USER]
    assert parse({"prompt_token_ids": [1, 2]}).prompt == [1, 2]
    chat = parse({**CHAT, "body": {"model": "tiny-chat", "messages": [USER], "user": "u", "stream": False}})
    assert (chat.id, chat.kind, chat.endpoint) == ("a", "messages", "/v1/chat/completions")
    assert parse({**COMPLETION, "body": {"prompt": [1, 2]}}).kind == "token_ids"
    assert parse({**COMPLETION, "body": {"prompt": ["text"]}}).prompt == "text"


def test_sampling_fields_are_taken_under_the_names_people_use() -> None:
    request = parse({"prompt": "a", "max_new_tokens": 5, "temp": 0, "stop": ["x"], "seed": None})
    assert request.sampling == {"max_tokens": 5, "temperature": 0, "stop": ["x"]}
    body = {"messages": [USER], "max_completion_tokens": 5, "logprobs": True, "top_logprobs": 2}
    assert parse({**CHAT, "body": body}).sampling == {"max_tokens": 5, "logprobs": 2}
    body = {"messages": [USER], "logprobs": False, "response_format": {"type": "text"}}
    assert parse({**CHAT, "body": body}).sampling == {}


def test_a_line_may_have_a_form_of_its_own() -> None:
    form = StructuredOutput.regex("[a-z]+")
    assert parse({"prompt": "a", "regex": "[a-z]+"}).sampling == {"structured": form}
    assert parse({"prompt": "a", "choice": ["x"], "seed": 1}).sampling == {
        "seed": 1,
        "structured": StructuredOutput.choice(["x"]),
    }
    body = {"messages": [USER], "response_format": {"type": "json_object"}}
    assert parse({**CHAT, "body": body}).sampling == {"structured": StructuredOutput.json_object()}
    body = {"prompt": "a", "structured_outputs": {"regex": "[a-z]+"}}
    assert parse({**COMPLETION, "body": body}).sampling == {"structured": form}


def test_a_line_takes_the_form_of_the_flag_back_with_text() -> None:
    rules = LineRules(("tiny-chat",), sampling={"structured": StructuredOutput.regex("a")})
    assert parse({"prompt": "a", "response_format": {"type": "text"}}, rules).sampling == {"structured": None}
    assert parse({"prompt": "a"}, rules).sampling == {}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"regex": "a(b"}, "regex can not be used: unclosed group"),
        ({"json_schema": {"type": "thing"}}, "thing"),
        (
            {"response_format": {"type": "xml"}},
            "response_format.type must be text, json_object or json_schema",
        ),
        ({"regex": "a", "choice": ["a"]}, "regex and choice are both given"),
        ({"json_shema": {}}, "did you mean 'json_schema'?"),
    ],
    ids=str,
)
def test_a_wrong_form_of_a_line_is_told_before_the_run(fields: dict[str, Any], said: str) -> None:
    assert said in complaint({"prompt": "a", **fields})


def test_a_column_of_choices_stays_a_label() -> None:
    assert parse({"prompt": "a", "choices": ["x", "y"]}).meta == {"choices": ["x", "y"]}


def test_a_line_is_checked_together_with_the_flags() -> None:
    rules = LineRules(("tiny-chat",), sampling={"min_tokens": 10})
    assert "min_tokens 10 is greater than max_tokens 5" in complaint({"prompt": "a", "max_tokens": 5}, rules)


def test_labels_are_carried_under_meta() -> None:
    line = {"prompt": "a", "label": 3, "url": "http://x", "meta": {"set": "dev"}}
    assert parse(line).meta == {"set": "dev", "label": 3, "url": "http://x"}
    assert parse({"prompt": "a"}).meta is None


def test_a_huge_unknown_name_is_a_label_and_costs_nothing() -> None:
    assert parse({"prompt": "a", "x" * 1_000_000: 1}).meta == {"x" * 1_000_000: 1}


def test_the_developer_role_becomes_system() -> None:
    request = parse({"messages": [{"role": "developer", "content": "be brief"}, USER]})
    assert request.prompt == [{"role": "system", "content": "be brief"}, USER]


def test_a_repeated_id_names_both_lines() -> None:
    file = PromptFile(io.BytesIO(b'{"prompt":"a","id":"x"}\n\n{"prompt":"b","custom_id":"x"}'), "f")
    found = file.validate(RULES)
    assert [str(bad) for bad in found.bad] == ["line 3: id 'x' is already that of line 1"]
    again = list(file.requests(RULES))
    assert [type(parsed) for parsed in again] == [BatchRequest, BadLine]


def test_validation_reports_up_to_twenty_lines_and_counts_all() -> None:
    found = PromptFile(io.BytesIO(b'{"prompt": ""}\n' * 30 + b'{"prompt": "a"}\n'), "p.jsonl").validate(RULES)
    assert (found.num_requests, found.num_bad, len(found.bad)) == (31, 30, 20)
    with pytest.raises(UsageError) as raised:
        found.check("p.jsonl")
    assert raised.value.what == "p.jsonl has 30 bad lines of 31, the first 20:"
    assert raised.value.why.split("\n")[19].startswith("line 20: prompt must be a text")


def test_a_bad_line_keeps_its_id_for_the_error_record() -> None:
    (bad,) = read(b'{"prompt": "", "id": "x"}')
    assert (bad.id, bad.index, bad.line) == ("x", 0, 1)


def test_a_text_file_is_one_prompt_per_line() -> None:
    first, second = read(b'  {"a": 1}\r\n\ntwo\n', form="txt")
    assert isinstance(first, BatchRequest)
    assert isinstance(second, BatchRequest)
    assert (first.prompt, second.prompt, second.line) == ('  {"a": 1}', "two", 3)


def test_a_pipe_can_be_read_twice(tmp_path: Path) -> None:
    with PromptFile.open("-", io.BytesIO(b'{"prompt": "a"}\n')) as file:
        assert file.validate(RULES).num_requests == 1
        assert len(list(file.requests(RULES))) == 1


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_any_text_goes_through_unchanged(texts: list[str]) -> None:
    data = "\n".join(json.dumps({"prompt": text}, ensure_ascii=False) for text in texts)
    assert [parsed.prompt for parsed in read(data.encode()) if isinstance(parsed, BatchRequest)] == texts


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_complaint(data: bytes) -> None:
    assert all(isinstance(parsed, BatchRequest | BadLine) for parsed in read(data))


def test_a_bare_string_is_a_prompt() -> None:
    (parsed,) = read(b'"hello"\n')
    assert isinstance(parsed, BatchRequest)
    assert (parsed.kind, parsed.prompt) == ("text", "hello")


def test_another_field_can_hold_the_prompt() -> None:
    rules = LineRules(prompt_field="question")
    request = parse({"question": "why?", "id": 7, "level": 3}, rules)
    assert (request.prompt, request.id, request.meta) == ("why?", 7, {"level": 3})
    assert parse({"prompt": "a", "question": "b"}, rules).prompt == "a"
    assert parse({"messages": [USER], "question": "b"}, rules).kind == "messages"


def test_a_line_without_a_prompt_is_told_which_field_may_hold_it() -> None:
    assert "if 'question' is the prompt: --column question" in complaint({"question": "why?"})


def test_without_a_model_the_first_that_a_line_names_is_the_one_of_all() -> None:
    lines = [{"prompt": "a"}, {"prompt": "b", "model": "x"}, {"prompt": "c", "model": "y"}]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    found = PromptFile(io.BytesIO(data), "f").validate(LineRules())
    assert found.model == "x"
    assert [str(bad) for bad in found.bad] == [
        "line 3: model 'y' is not the one of this run, 'x' (remove the field, or give the model with -m)"
    ]


def test_a_file_that_mixes_kinds_says_so_once() -> None:
    lines = [{"prompt": "a"}, "b", {"messages": [USER]}, {**CHAT, "body": {"messages": [USER]}}]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    found = PromptFile(io.BytesIO(data), "f").validate(RULES)
    assert found.describe_mixture() == (
        "the input mixes OpenAI batch requests (1), lists of messages (1), texts (2)"
    )
    assert PromptFile(io.BytesIO(b'"a"\n"b"'), "f").validate(RULES).describe_mixture() is None


@pytest.mark.parametrize("value", [True, 1.0, "1"])
def test_a_value_that_equals_a_good_one_is_still_checked(value: Any) -> None:
    assert parse({"prompt": "a", "max_tokens": 1}).sampling == {"max_tokens": 1}
    assert "max_tokens must be an integer" in complaint({"prompt": "a", "max_tokens": value})


@pytest.mark.parametrize("seed", [-1, 2**63, True, 1.5, "1"])
def test_a_wrong_seed_is_refused_beside_fields_that_are_right(seed: Any) -> None:
    assert parse({"prompt": "a", "temperature": 1, "seed": 5}).sampling["seed"] == 5
    assert "seed must be an integer" in complaint({"prompt": "a", "temperature": 1, "seed": seed})


def test_each_of_two_equal_lines_has_a_key_of_its_own() -> None:
    first, second, named, again = read(b'"a"\n"a"\n{"prompt": "a", "id": 1}\n{"prompt": "a", "id": 2}\n')
    assert first.key == second.key.replace("-2", "-1")
    assert first.key.endswith("-1")
    assert "-" not in named.key + again.key


def test_a_key_depends_on_nothing_but_the_line_and_its_equals() -> None:
    alone = read(b'"b"')[0].key
    assert [parsed.key for parsed in read(b'"a"\r\n\n"b"\r\n"c"')][1] == alone


def test_items_of_an_array_are_counted_as_items() -> None:
    good, bad = read(b'[{"prompt": "a"},\n {"prompt": ""}]', form="json")
    assert isinstance(good, BatchRequest)
    assert str(bad).startswith("item 2: prompt must be a text")


def test_rows_of_a_table_carry_their_other_columns() -> None:
    data = b'id,question,temperature,level\n7,"why, oh why?",0.5,easy\n8,what?,,hard\n'
    first, second = read(data, form="csv")
    assert isinstance(first, BatchRequest)
    assert isinstance(second, BatchRequest)
    assert (first.prompt, first.id, first.sampling, first.meta) == (
        "why, oh why?",
        "7",
        {"temperature": 0.5},
        {"level": "easy"},
    )
    assert (second.sampling, second.line) == ({}, 3)


def peak_bytes(num_lines: int) -> int:
    """Most memory that reading a file of so many lines twice takes, besides the file."""
    lines = (
        b'{"prompt": "line %d", "id": %d}\n' % (i, i) if i % 2 else b'"line %d"\n' % i
        for i in range(num_lines)
    )
    file = PromptFile(io.BytesIO(b"".join(lines)), "f")
    tracemalloc.start()
    try:
        assert file.validate(LineRules()).num_requests == num_lines
        assert sum(1 for _ in file.requests(LineRules())) == num_lines
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_file() -> None:
    assert peak_bytes(24_000) < peak_bytes(12_000) + (1 << 17)
