"""The batch job on a fake engine: what is admitted, what is written, and in which order."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from rich.console import Console

from llmcli.errors import EngineError, OutputError, UsageError
from llmcli.jobs.batch.input import PromptFile
from llmcli.jobs.batch.job import BatchOptions, BatchRun, StopSignal
from llmcli.jobs.batch.progress import BatchCounts, BatchProgress
from llmcli.jobs.batch.prompts import PromptEncoder
from llmcli.jobs.batch.records import RecordStyle
from llmcli.jobs.batch.requests import LineRules
from llmcli.text.reasoning import ReasoningMarks
from tests.jobs.fake_engine import ByteTokenizer, FakeEngine

RULES = LineRules(models=("m",))
CHAT = {"method": "POST", "url": "/v1/chat/completions"}


@dataclass
class Memory:
    """Takes records, and has no disk to sync them to."""

    write: Callable[[bytes], None]

    def sync_if_due(self) -> None:
        pass


@dataclass
class Batch:
    """One run over `lines`, and what it left."""

    lines: list[Any]
    engine: FakeEngine = field(default_factory=FakeEngine)
    max_inflight: int = 8
    ordered: bool = False
    style: RecordStyle = field(default_factory=lambda: RecordStyle(model="m@abc"))
    sampling: dict[str, Any] = field(default_factory=dict)
    raw: bool | None = None
    system: str | None = None
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    clock: Callable[[], float] = lambda: 0.0
    write: Callable[[bytes], None] | None = None
    max_errors: int | None = None
    output: bytearray = field(default_factory=bytearray)
    stop: StopSignal = field(default_factory=StopSignal)
    counts: BatchCounts = field(init=False)

    def run(self) -> "Batch":
        data = b"".join(json.dumps(line).encode() + b"\n" for line in self.lines)
        file = PromptFile(io.BytesIO(data), "prompts.jsonl")
        found = file.validate(RULES)
        self.counts = BatchCounts(found.num_requests)
        run = BatchRun(
            self.engine,  # type: ignore[arg-type]
            file.requests(RULES),
            PromptEncoder(
                self.engine.tokenizer,
                raw=self.raw,
                system=self.system,
                template_kwargs=self.template_kwargs,
            ),
            Memory(self.write or self.output.extend),
            BatchOptions(self.max_inflight, self.sampling, self.ordered, self.style, self.max_errors),
            BatchProgress(Console(file=io.StringIO()), quiet=True),
            clock=self.clock,
        )
        run.run(self.counts, self.stop)
        return self

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.decode().split("\n")[:-1]]


def prompts(*texts: str) -> list[Any]:
    return [{"prompt": text} for text in texts]


def test_a_native_record_has_all_its_fields() -> None:
    (record,) = Batch([{"prompt": "hi", "id": 7, "seed": 123, "label": "x"}], raw=True).run().records
    assert record == {
        "id": 7,
        "index": 0,
        "key": record["key"],
        "text": "HI",
        "reasoning": None,
        "tool_calls": None,
        "finish_reason": "stop",
        "stop_reason": None,
        "logprobs": None,
        "usage": {"prompt_tokens": 2, "completion_tokens": 2, "cached_tokens": 2, "reasoning_tokens": 0},
        "timings": {"queue_ms": 1.0, "ttft_ms": 2.0, "total_ms": 4.0, "tok_per_s": 500.0},
        "seed": 123,
        "model": "m@abc",
        "meta": {"label": "x"},
        "error": None,
    }


def test_records_are_written_as_they_complete() -> None:
    batch = Batch(prompts("long one", "b", "cc"), raw=True).run()
    assert [record["index"] for record in batch.records] == [1, 2, 0]


def test_ordered_records_come_in_the_order_of_the_input() -> None:
    lines = [{"prompt": "long one"}, {"prompt": ""}, *prompts("b", "cc")]
    batch = Batch(lines, raw=True, ordered=True).run()
    assert [(record["index"], record["text"]) for record in batch.records] == [
        (0, "LONG ONE"),
        (1, None),
        (2, "B"),
        (3, "CC"),
    ]


def test_ordered_records_do_not_pile_up_behind_a_slow_one() -> None:
    batch = Batch(prompts("x" * 300, *["b"] * 200), raw=True, ordered=True, max_inflight=2)
    open_at_300: list[int] = []
    batch.engine.before_step = lambda number: (
        open_at_300.append(len(batch.engine.added)) if number == 300 else None
    )
    batch.run()
    assert open_at_300 == [1 + 2 * 16]
    assert [record["index"] for record in batch.records] == list(range(201))


def test_no_more_than_max_inflight_requests_are_in_the_engine() -> None:
    batch = Batch(prompts(*["abc"] * 50), max_inflight=6).run()
    assert batch.engine.most_open == 6
    assert len(batch.records) == 50


def test_the_input_is_read_only_as_far_as_there_is_room() -> None:
    batch = Batch(prompts(*["abc"] * 50), max_inflight=6)
    read: list[int] = []
    batch.engine.before_step = lambda number: read.append(len(batch.engine.added))
    batch.run()
    assert read[0] == 6


def test_a_line_overrides_the_flags_and_the_flags_the_model() -> None:
    lines = [{"prompt": "abcdef", "max_tokens": 2}, {"prompt": "abcdef"}]
    batch = Batch(lines, raw=True, sampling={"max_tokens": 4, "top_p": 0.9}).run()
    params = [params for _, _, params in batch.engine.added]
    assert [(p.max_tokens, p.top_p, p.temperature) for p in params] == [(2, 0.9, 0.5), (4, 0.9, 0.5)]
    assert [(r["text"], r["finish_reason"]) for r in batch.records] == [("AB", "length"), ("ABCD", "length")]


def test_a_drawn_seed_is_told_and_used() -> None:
    batch = Batch([*prompts("a", "b"), {"prompt": "c", "temperature": 0}]).run()
    used = {request_id: params.seed for request_id, _, params in batch.engine.added}
    told = {str(record["index"]): record["seed"] for record in batch.records}
    assert used == told
    assert told["2"] is None
    assert told["0"] != told["1"]


@pytest.mark.parametrize(
    ("line", "raw", "sent"),
    [
        ({"prompt": "hi"}, None, "<system>S<user>hi<assistant>"),
        ({"prompt": "hi", "system": "own"}, None, "<system>own<user>hi<assistant>"),
        ({"prompt": "hi", "system": ""}, None, "<user>hi<assistant>"),
        ({"messages": [{"role": "user", "content": "hi"}]}, True, "<system>S<user>hi<assistant>"),
        (
            {"messages": [{"role": "system", "content": "own"}, {"role": "user", "content": "hi"}]},
            None,
            "<system>own<user>hi<assistant>",
        ),
        ({"prompt": "hi"}, True, "hi"),
        ({"prompt_token_ids": [104, 105]}, None, "hi"),
        (
            {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "hi"}},
            False,
            "hi",
        ),
    ],
)
def test_the_prompt_that_is_sent(line: dict[str, Any], raw: bool | None, sent: str) -> None:
    batch = Batch([line], raw=raw, system="S").run()
    assert bytes(batch.engine.added[0][1]).decode() == sent


def test_without_a_template_texts_go_raw_and_messages_fail() -> None:
    engine = FakeEngine(tokenizer=ByteTokenizer(chat_template=None))
    lines = [
        {"prompt": "hi"},
        {"prompt": [{"role": "user", "content": "hi"}]},
        {"prompt": "a", "system": "s"},
    ]
    batch = Batch(lines, engine).run()
    errors = {record["index"]: record["error"] for record in batch.records}
    assert errors[0] is None
    assert "no" in errors[1]["message"]
    assert "chat template" in errors[1]["message"]
    assert errors[2]["param"] == "system"
    with pytest.raises(UsageError, match="no chat template"):
        PromptEncoder(engine.tokenizer, raw=False)
    with pytest.raises(UsageError, match="no chat template"):
        PromptEncoder(engine.tokenizer, system="S")


def test_variables_of_the_template_go_into_every_chat() -> None:
    (record,) = Batch(prompts("hi"), template_kwargs={"shout": True}).run().records
    assert record["usage"]["prompt_tokens"] == len("<user>hishout<assistant>")


def test_the_choice_between_template_and_raw_text_is_described() -> None:
    assert "chat template (--raw" in PromptEncoder(ByteTokenizer()).describe()
    assert "as they are" in PromptEncoder(ByteTokenizer(), raw=True).describe()
    assert "no chat template" in PromptEncoder(ByteTokenizer(chat_template=None)).describe()


def test_what_the_engine_or_the_template_refuses_becomes_an_error_record() -> None:
    lines = [
        {"prompt": "x" * 2000},
        {"prompt_token_ids": [999]},
        {"prompt": "refuse me", "id": "r"},
        {"prompt": "b"},
    ]
    batch = Batch(lines).run()
    errors = {record["index"]: record["error"] for record in batch.records}
    assert errors[0]["code"] == errors[1]["code"] == errors[2]["code"] == "invalid_request"
    assert "the context 1000" in errors[0]["message"]
    assert errors[1]["param"] == "prompt_token_ids"
    assert errors[2] == {
        "code": "invalid_request",
        "message": "the template refuses these messages",
        "param": "messages",
        "line": 3,
    }
    assert errors[3] is None
    assert (batch.counts.done, batch.counts.failed) == (4, 3)


def test_an_invalid_line_becomes_an_error_record_with_its_id() -> None:
    batch = Batch([{"prompt": "", "id": "x"}, {"prompt": "a"}]).run()
    bad = next(record for record in batch.records if record["index"] == 0)
    assert (bad["id"], bad["text"], bad["finish_reason"]) == ("x", None, "error")
    assert bad["error"]["code"] == "invalid_line"
    assert bad["usage"]["prompt_tokens"] == 0


def test_a_request_that_fails_in_the_engine_leaves_the_others_alone() -> None:
    batch = Batch(prompts("abc", "def"), FakeEngine(failing={"0": "not finite"}), raw=True).run()
    failed, fine = batch.records
    assert (failed["finish_reason"], failed["error"]["message"]) == ("error", "not finite")
    assert failed["error"]["code"] == "generation_failed"
    assert fine["text"] == "DEF"


def test_several_choices_go_under_choices() -> None:
    (record,) = Batch([{"prompt": "ab", "n": 2}], raw=True).run().records
    assert [(c["index"], c["text"], c["finish_reason"]) for c in record["choices"]] == [
        (0, "AB", "stop"),
        (1, "AB", "stop"),
    ]
    assert "text" not in record
    assert record["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 4,
        "cached_tokens": 2,
        "reasoning_tokens": 0,
    }


THINKING = "<think>\nwhy</think>\n\nbecause"


def test_reasoning_stands_apart_from_the_answer() -> None:
    (record,) = Batch(prompts("x"), FakeEngine(reply=lambda prompt: THINKING)).run().records
    assert (record["reasoning"], record["text"]) == ("why", "because")
    assert record["usage"]["reasoning_tokens"] == len(">\nwhy</think>")  # the fake's tokens are bytes
    chat = {**CHAT, "custom_id": "c", "body": {"messages": [{"role": "user", "content": "a"}]}}
    (record,) = Batch([chat], FakeEngine(reply=lambda prompt: THINKING)).run().records
    message = record["response"]["body"]["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("why", "because")
    style = RecordStyle("text")
    batch = Batch(prompts("x"), FakeEngine(reply=lambda prompt: THINKING), style=style).run()
    assert bytes(batch.output) == b"because\n"


def test_reasoning_that_the_prompt_has_opened_or_that_never_ends_is_no_answer() -> None:
    (record,) = Batch(prompts("x"), FakeEngine(reply=lambda prompt: "<think>still")).run().records
    assert (record["reasoning"], record["text"]) == ("still", "")
    marks = ReasoningMarks("<assistant>", "</a>")  # the template ends with it
    engine = FakeEngine(ByteTokenizer(reasoning=marks), reply=lambda prompt: "why</a>because")
    (record,) = Batch(prompts("x"), engine).run().records
    assert (record["reasoning"], record["text"]) == ("why", "because")


def test_each_choice_has_reasoning_of_its_own() -> None:
    lines = [{"prompt": "x", "n": 2}]
    (record,) = Batch(lines, FakeEngine(reply=lambda prompt: THINKING)).run().records
    assert [(c["reasoning"], c["text"]) for c in record["choices"]] == [("why", "because")] * 2


def test_the_answer_to_a_raw_prompt_is_left_as_it_is() -> None:
    (record,) = Batch(prompts("x"), FakeEngine(reply=lambda prompt: THINKING), raw=True).run().records
    assert (record["reasoning"], record["text"]) == (None, THINKING)


def test_token_ids_and_logprobs_are_given_when_asked_for() -> None:
    style = RecordStyle(model="m", token_ids=True)
    (record,) = Batch([{"prompt": "a", "logprobs": 1}], style=style, raw=True).run().records
    assert record["token_ids"] == [65]
    one = {"token_id": 65, "token": "A", "logprob": -0.5, "rank": 1}
    assert record["logprobs"] == [{**one, "top": [one]}]


def test_openai_lines_are_answered_in_openai_form() -> None:
    chat = {
        **CHAT,
        "custom_id": "c",
        "body": {"messages": [{"role": "user", "content": "a"}], "logprobs": True},
    }
    text = {
        "custom_id": "t",
        "method": "POST",
        "url": "/v1/completions",
        "body": {"prompt": "ab", "logprobs": 1},
    }
    batch = Batch([chat, text], ordered=True).run()
    first, second = batch.records
    assert (first["custom_id"], first["error"], first["response"]["status_code"]) == ("c", None, 200)
    body = first["response"]["body"]
    assert (body["object"], body["model"]) == ("chat.completion", "m@abc")
    assert body["choices"][0]["message"]["content"] == "<USER>A<ASSISTANT>"
    assert body["choices"][0]["logprobs"]["content"][1]["token"] == "U"
    assert (
        body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]
    )
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    body = second["response"]["body"]
    assert (body["object"], body["choices"][0]["text"]) == ("text_completion", "AB")
    assert body["choices"][0]["logprobs"]["text_offset"] == [0, 1]


def test_openai_failures_have_a_status_where_a_server_would_give_one() -> None:
    def line(custom_id: str, content: str, **more: Any) -> dict[str, Any]:
        return {
            **CHAT,
            "custom_id": custom_id,
            "body": {"messages": [{"role": "user", "content": content}], **more},
        }

    lines = [line("a", "refuse me"), line("b", "hi"), line("c", "hi", n=99)]
    batch = Batch(lines, FakeEngine(failing={"1": "not finite"}), ordered=True).run()
    refused, failed, invalid = batch.records
    assert refused["response"]["status_code"] == 400
    assert refused["response"]["body"]["error"]["type"] == "invalid_request_error"
    assert failed["response"]["status_code"] == 500
    assert (invalid["response"], invalid["error"]["code"]) == (None, "invalid_line")
    assert invalid["custom_id"] == "c"


def test_the_form_can_be_forced() -> None:
    openai = Batch(prompts("a"), style=RecordStyle("openai", "m")).run().records[0]
    assert (openai["custom_id"], openai["response"]["body"]["object"]) == ("0", "chat.completion")
    chat = {**CHAT, "custom_id": "c", "body": {"messages": [{"role": "user", "content": "a"}]}}
    native = Batch([chat], style=RecordStyle("native", "m")).run().records[0]
    assert (native["id"], native["text"]) == ("c", "<USER>A<ASSISTANT>")


def test_the_text_format_is_the_answers_alone() -> None:
    lines = [{"prompt": "ab"}, {"prompt": ""}, {"prompt": "c", "n": 2}]
    batch = Batch(lines, raw=True, ordered=True, style=RecordStyle("text", separator=b"\0")).run()
    assert bytes(batch.output) == b"AB\0\0C\0C\0"


def test_text_for_a_terminal_has_no_escape_codes_and_a_json_line_none_either() -> None:
    engine = FakeEngine(reply=lambda prompt: "a\x1b[2Jb\x7fc")
    style = RecordStyle("text", for_terminal=True)
    assert bytes(Batch(prompts("x"), engine, style=style).run().output) == b"abc\n"
    batch = Batch(prompts("x"), FakeEngine(reply=engine.reply)).run()
    assert not {0x1B, 0x7F} & set(batch.output)
    assert batch.records[0]["text"] == "a\x1b[2Jb\x7fc"


def test_a_stop_lets_begun_requests_finish_and_admits_no_more() -> None:
    batch = Batch(prompts(*["abcd"] * 20), FakeEngine(max_num_seqs=2), raw=True)
    batch.engine.before_step = lambda number: setattr(batch.stop, "requested", number == 2)
    batch.run()
    assert [record["text"] for record in batch.records] == ["ABCD", "ABCD"]
    assert len(batch.engine.added) == 8
    assert len(batch.engine.aborted) == 6
    assert (batch.counts.done, batch.counts.failed) == (2, 0)


def test_a_stop_waits_no_longer_than_thirty_seconds() -> None:
    now = [0.0]
    batch = Batch(prompts("x" * 500, "ab"), raw=True, clock=lambda: now[0])

    def before_step(number: int) -> None:
        batch.stop.requested = True
        now[0] += 10

    batch.engine.before_step = before_step
    batch.run()
    assert [record["index"] for record in batch.records] == [1]
    assert batch.engine.aborted == ["0"]
    assert batch.engine.num_steps <= 6


def test_a_stop_leaves_no_gap_in_ordered_records() -> None:
    lines = prompts("aa", "x" * 500, "ab", "a")
    batch = Batch(lines, raw=True, ordered=True)
    now = [0.0]
    batch.clock = lambda: now[0]

    def before_step(number: int) -> None:
        batch.stop.requested = number > 5
        now[0] += 20 if number > 5 else 0

    batch.engine.before_step = before_step
    batch.run()
    assert [record["index"] for record in batch.records] == [0]
    assert batch.counts.done == 1


def test_too_many_failures_end_the_run() -> None:
    lines = [{"prompt": ""}, *prompts("abc", *["def"] * 50)]
    batch = Batch(lines, FakeEngine(failing={"1": "not finite"}), raw=True, max_inflight=4, max_errors=1)
    batch.run()
    assert batch.counts.failed == 2
    assert batch.counts.done < 10


def test_prompts_that_begin_alike_are_put_side_by_side_within_the_window() -> None:
    texts = [f"{'common' * 5}{i}" if i % 3 else f"{'other' * 5}{i}" for i in range(12)]
    batch = Batch(prompts(*texts), raw=True, max_inflight=12).run()
    sent = [bytes(ids).decode() for _, ids, _ in batch.engine.added]
    assert sent == sorted(texts)
    assert sorted(record["index"] for record in batch.records) == list(range(12))


def test_equal_prompts_keep_the_order_of_the_file() -> None:
    batch = Batch(prompts(*["ab"] * 6), raw=True, max_inflight=4).run()
    assert [request_id for request_id, _, _ in batch.engine.added] == list("012345")


def test_a_dead_engine_ends_the_run_with_whole_records() -> None:
    batch = Batch(prompts("a", "abcdef"), FakeEngine(dies_at=4), raw=True)
    with pytest.raises(EngineError):
        batch.run()
    assert [record["text"] for record in batch.records] == ["A"]
    assert batch.counts.done == 1


def test_a_write_error_ends_the_run_at_once() -> None:
    def write(record: bytes) -> None:
        raise OutputError("disk full")

    batch = Batch(prompts("a", *["abcdef"] * 50), raw=True, write=write)
    with pytest.raises(OutputError):
        batch.run()
    assert batch.engine.num_steps == 1
    assert batch.counts.done == 0


def test_every_request_of_a_long_file_gets_one_record() -> None:
    lines = [{"prompt": "ab" * (i % 7 + 1), "id": i} for i in range(2000)]
    batch = Batch(lines, FakeEngine(max_num_seqs=16), max_inflight=64, raw=True).run()
    assert sorted(record["id"] for record in batch.records) == list(range(2000))
    assert all(record["text"] == "AB" * (record["id"] % 7 + 1) for record in batch.records)
