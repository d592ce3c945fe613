"""A chat with a model behind a server: the same interface, and each failure in words."""

import io
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from llmcli.errors import (
    ContextFullError,
    LLMCliError,
    ModelNotFoundError,
    ModelUnavailableError,
    RequestError,
    ServerError,
    UsageError,
)
from llmcli.outputs import TokenEvent
from llmcli.structured import StructuredOutput
from llmcli.ui.conversation import ChatPrompt, Conversation, FittedPrompt
from llmcli.ui.models import RemoteModels
from llmcli.ui.notes import Notes
from llmcli.ui.parameters import Parameters
from llmcli.ui.remote.backend import RemoteBackend, choose_model
from llmcli.ui.remote.server import Server
from llmcli.ui.session import ChatSession
from llmcli.ui.sessions.log import SessionLog
from llmcli.ui.state import ChatState
from llmcli.ui.view import PlainView
from tests.ui.fake_engine import Lines
from tests.ui.fake_server import DONE, FakeServer, Reply, answer, chunk, event, usage


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer().running() as server:
        yield server


def prompt(*messages: tuple[str, str], continues: bool = False, **template_kwargs: Any) -> FittedPrompt:
    said = [{"role": role, "content": text} for role, text in messages or [("user", "hi")]]
    return FittedPrompt(ChatPrompt(said, continues, template_kwargs), None, 0)


def backend(fake: FakeServer) -> RemoteBackend:
    return RemoteBackend(Server(fake.url), fake.models[0])


def ask(fake: FakeServer, reply: Reply, **overrides: Any) -> list[TokenEvent]:
    fake.replies.append(reply)
    return list(backend(fake).submit(prompt(), overrides))


def talk(fake: FakeServer, *lines: str) -> tuple[str, str, ChatState]:
    """A whole chat: what was on stdout, what beside it, and the state at the end."""
    printed, out = io.StringIO(), io.StringIO()
    notes, parameters = Notes(Console(file=printed, markup=False, width=200)), Parameters()
    models = RemoteModels(Server(fake.url), notes, parameters)
    state = ChatState(
        conversation=Conversation(),
        parameters=parameters,
        notes=notes,
        backend=models.prepare(None),
        models=models,
        log=SessionLog(None, notes),
    )
    state.backend.start()
    ChatSession(state, Lines(*lines), lambda: PlainView(out)).run()
    return out.getvalue(), printed.getvalue(), state


def test_an_answer_streams_and_ends_with_its_counts(fake: FakeServer) -> None:
    *pieces, last = ask(fake, answer("Good", " day"))
    assert "".join(piece.text for piece in pieces) == "Good day"
    assert last.finish_reason == "stop"
    assert last.stats is not None
    counts = (last.stats.num_prompt_tokens, last.stats.num_cached_tokens, last.stats.num_output_tokens)
    assert counts == (9, 4, 2)
    assert 0 <= last.stats.ttft_s <= last.stats.total_s


def test_only_what_was_set_is_sent(fake: FakeServer) -> None:
    ask(fake, answer("x"), temperature=0.5, stop=("END",), top_p=None)
    assert fake.bodies == [
        {
            "model": "served",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0.5,
            "stop": ["END"],
        }
    ]


def test_an_open_answer_and_template_variables_are_sent_as_vllm_names_them(fake: FakeServer) -> None:
    question = prompt(("user", "hi"), ("assistant", "Hel"), continues=True, enable_thinking=False)
    list(backend(fake).submit(question, {}))
    body = fake.bodies[0]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("owner", "field"), [("vllm", "thinking_token_budget"), ("llamacpp", "thinking_budget_tokens")]
)
def test_a_thinking_budget_goes_into_the_field_of_the_server_that_has_one(
    fake: FakeServer, owner: str, field: str
) -> None:
    fake.models = [{"id": "served", "owned_by": owner}]
    talk(fake, "/think budget 431", "hi")
    assert fake.bodies[0][field] == 431


def test_a_server_that_is_not_known_to_limit_thinking_is_told_of_and_asked_without(fake: FakeServer) -> None:
    _, notes, _ = talk(fake, "/think budget 431", "hi", "ho")
    assert notes.count("the thinking budget is left out") == 1
    assert not [name for body in fake.bodies for name in body if "budget" in name]


def test_a_server_is_measured_by_another_command(fake: FakeServer) -> None:
    with pytest.raises(RequestError) as failure:
        backend(fake).with_engine(lambda engine: None)
    assert failure.value.fix == f"llmcli bench serve --base-url {fake.url}"


def test_a_json_schema_is_sent_as_openai_names_it(fake: FakeServer) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    ask(fake, answer("{}"), structured=StructuredOutput.json_schema(schema))
    ask(fake, answer("{}"), structured=StructuredOutput.json_object())
    formats = [body["response_format"] for body in fake.bodies]
    assert formats[0]["type"] == "json_schema"
    assert formats[0]["json_schema"]["schema"] == schema
    assert formats[1] == {"type": "json_object"}
    assert not any("structured" in body for body in fake.bodies)


def test_a_form_that_servers_are_not_told_is_refused_when_it_is_set(fake: FakeServer) -> None:
    _, notes, _ = talk(fake, "/regex [a-z]", "hi")
    assert "told JSON schemas only, not regex [a-z]" in notes
    assert "response_format" not in fake.bodies[0]


def test_a_form_that_servers_are_not_told_is_refused(fake: FakeServer) -> None:
    with pytest.raises(RequestError, match=r"told JSON schemas only, not regex \[a-z\]"):
        ask(fake, answer("x"), structured=StructuredOutput.regex("[a-z]"))
    assert fake.bodies == []


def test_logprobs_come_in_openais_form(fake: FakeServer) -> None:
    top = [{"token": "Yes", "logprob": -0.1}, {"token": "No", "logprob": -2.5}]
    content = [{"token": "No", "logprob": -2.5, "top_logprobs": top}]
    choice = {"delta": {"content": "No"}, "logprobs": {"content": content}, "finish_reason": None}
    first, *_ = ask(fake, Reply([event({"choices": [choice]}), chunk(finish="stop"), DONE]), logprobs=2)
    assert first.logprobs is not None
    assert (first.logprobs[0].sampled.text, first.logprobs[0].sampled.rank) == ("No", 2)
    assert (fake.bodies[0]["logprobs"], fake.bodies[0]["top_logprobs"]) == (True, 2)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_set_apart_by_the_server_is_reasoning_here(fake: FakeServer, name: str) -> None:
    pieces = [chunk(**{name: "hm"}), chunk(**{name: " so"}), chunk("Yes"), chunk(finish="stop"), DONE]
    fake.replies.append(Reply(pieces))
    out, _, state = talk(fake, "hi")
    assert out == "Yes\n"
    assert state.conversation.turns[0].reasoning == "hm so"


def test_reasoning_of_earlier_answers_is_not_sent(fake: FakeServer) -> None:
    fake.replies.append(Reply([chunk(reasoning="hm"), chunk("Yes"), chunk(finish="stop"), DONE]))
    talk(fake, "hi", "more")
    assert fake.bodies[1]["messages"] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "more"},
    ]


def test_what_a_server_does_not_tell_is_not_made_up(fake: FakeServer) -> None:
    _, notes, _ = talk(fake, "/set top_p 0.5", "/status", "/show params")
    assert re.search(r"temperature +not set \(left to the server\)", notes)
    assert re.search(r"top_p +0.5 \(session\)", notes)
    assert "generation_config" not in notes
    assert "a server does not tell its sampling defaults" in notes


def test_a_server_without_usage_gives_no_numbers(fake: FakeServer) -> None:
    *_, last = ask(fake, Reply([chunk("x"), chunk(finish="length"), DONE]))
    assert (last.finish_reason, last.stats) == ("length", None)


def test_a_stream_may_end_with_the_connection_once_the_answer_has_ended(fake: FakeServer) -> None:
    *_, last = ask(fake, Reply([chunk("x"), chunk(finish="stop")]))
    assert last.finish_reason == "stop"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply([chunk("x")]), "the connection ended before the answer did"),
        (Reply([chunk("x")], declared=9999), "the connection ended before the answer did"),
        (Reply([chunk("x"), "data: {broken\n\n"]), "an event is not JSON"),
        (Reply([chunk("x"), event({"error": {"message": "out of memory"}})]), "out of memory"),
        (Reply([chunk("x"), event({"choices": ["no"]})]), "is broken"),
        (Reply([chunk("x"), event({"choices": [{"logprobs": {"content": [{"token": "x"}]}}]})]), "is broken"),
        (Reply([chunk("x"), event({"choices": [{"delta": {"content": 7}}]})]), "is no string"),
        (Reply(["{}"], kind="application/json"), "application/json, not a stream"),
    ],
)
def test_a_stream_that_breaks_ends_the_answer_with_what_came(
    fake: FakeServer, reply: Reply, said: str
) -> None:
    *pieces, last = ask(fake, reply)
    assert last.finish_reason == "error"
    assert last.error is not None
    assert said in last.error
    assert "".join(piece.text for piece in pieces) in ("x", "")


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (401, '{"error": {"message": "bad key"}}', ModelUnavailableError, "wants a key"),
        (404, '{"error": {"message": "no model served"}}', ModelNotFoundError, "does not know"),
        (400, '{"error": {"message": "x", "code": "context_length_exceeded"}}', ContextFullError, "context"),
        (400, '{"message": "maximum context length is 10 tokens"}', ContextFullError, "maximum context"),
        (422, '{"detail": "top_k is unknown"}', RequestError, "top_k is unknown"),
        (500, "<h1>Oops\x1b[2J</h1>", ServerError, "status 500"),
        (302, "", ServerError, "points to"),
    ],
)
def test_a_refusal_is_told_in_words(
    fake: FakeServer, status: int, body: str, kind: type[LLMCliError], said: str
) -> None:
    with pytest.raises(kind) as caught:
        ask(fake, Reply([body], status, "application/json"))
    assert said in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_no_server_is_told_with_exit_code_6() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(ServerError, match="no server at") as caught:
            Server(url).models()
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://x/v1", "http://", "http://x:port/v1", "http://u:p@x/v1"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        Server(url)


def test_a_key_is_sent_and_a_bad_one_refused(fake: FakeServer) -> None:
    fake.key = "secret"
    with pytest.raises(ModelUnavailableError, match="wants a key"):
        Server(fake.url).models()
    with pytest.raises(ModelUnavailableError, match="wants another key"):
        Server(fake.url, "wrong").models()
    assert Server(fake.url, "secret").models() == fake.models
    with pytest.raises(UsageError):
        Server(fake.url, "two words")


def test_something_else_at_the_address_is_told(fake: FakeServer) -> None:
    with pytest.raises(ModelNotFoundError, match="ends in /v1"):
        Server(fake.url.removesuffix("/v1")).models()
    fake.models = []
    with pytest.raises(ServerError, match="lists no models"):
        Server(fake.url).models()


def test_an_answer_can_be_stopped_while_the_server_is_silent(fake: FakeServer) -> None:
    fake.replies.append(Reply(holds=True))
    stream = backend(fake).submit(prompt(), {})
    stopper = threading.Thread(target=lambda: (fake.asked.wait(10), stream.abort()))
    stopper.start()
    [last] = list(stream)
    stopper.join()
    assert last.finish_reason == "abort"
    assert fake.left.wait(10), "the server still waits for the client"


def test_an_answer_can_be_stopped_while_it_comes(fake: FakeServer) -> None:
    fake.replies.append(Reply([chunk("x")], holds=True))
    stream = backend(fake).submit(prompt(), {})
    events = iter(stream)
    assert next(events).text == "x"
    stream.abort()
    assert next(events).finish_reason == "abort"
    assert fake.left.wait(10), "the server still waits for the client"


def test_an_answer_stopped_before_it_was_asked_for_is_never_waited_for(fake: FakeServer) -> None:
    fake.replies.append(Reply(holds=True))
    stream = backend(fake).submit(prompt(), {})
    stream.abort()
    [last] = list(stream)
    assert last.finish_reason == "abort"


def test_a_model_is_chosen_by_its_name(fake: FakeServer) -> None:
    models = [{"id": "one"}, {"id": "two"}]
    assert choose_model(models, "two", fake.url)["id"] == "two"
    assert choose_model(models, None, fake.url)["id"] == "one"
    with pytest.raises(ModelNotFoundError) as caught:
        choose_model(models, "tow", fake.url)
    assert "did you mean two?" in str(caught.value)


def test_a_chat_over_a_server_is_a_chat(fake: FakeServer) -> None:
    fake.models.append({"id": "second"})
    out, notes, state = talk(fake, "hi", "more", "/regen", "/status", "/model", "/model second", "last")
    assert out == "Hello there.\n" * 4
    assert [body["model"] for body in fake.bodies] == ["served"] * 3 + ["second"]
    assert [message["content"] for message in fake.bodies[1]["messages"]] == ["hi", "Hello there.", "more"]
    assert "seed" in fake.bodies[2]
    assert "prompt 9 (4 cached) · ctx 11/100 (11 %)" in notes
    assert "ctx 11\n" in notes, "the second model does not tell its context"
    assert f"{fake.url}\n" in notes
    assert "* served\n  second" in notes
    assert len(state.conversation.turns) == 3


@pytest.mark.parametrize("line", ["/tokens hi", "/prompt hi", "/show template"])
def test_what_needs_the_tokenizer_says_that_it_is_not_here(fake: FakeServer, line: str) -> None:
    _, notes, state = talk(fake, line)
    assert "the model's tokenizer is with the server" in notes
    assert state.conversation.turns == []


def test_a_full_context_of_the_server_drops_the_oldest_turns_one_by_one_and_says_so(fake: FakeServer) -> None:
    full = Reply(['{"error": {"code": "context_length_exceeded"}}'], 400, "application/json")
    fake.replies += [answer("1"), answer("2"), full, full, answer("3")]
    out, notes, state = talk(fake, "a", "b", "c")
    assert out == "1\n2\n3\n"
    assert [len(body["messages"]) for body in fake.bodies] == [1, 3, 5, 3, 1]
    assert notes.count("the oldest turn no longer fits the context of 100 tokens") == 2
    assert len(state.conversation.turns) == 3


def test_a_question_that_does_not_fit_alone_is_an_error_and_the_chat_goes_on(fake: FakeServer) -> None:
    fake.replies.append(Reply(['{"error": {"message": "context length"}}'], 400, "application/json"))
    out, notes, _ = talk(fake, "long", "short")
    assert out == "Hello there.\n"
    assert "error: the conversation does not fit the server's context" in notes


def test_usage_without_details_is_usage(fake: FakeServer) -> None:
    *_, last = ask(fake, Reply([chunk("x"), chunk(finish="stop"), usage(9, 0, 1), DONE]))
    assert last.stats is not None
    assert last.stats.num_cached_tokens == 0
