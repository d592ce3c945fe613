"""Rendering against transformers' own, and what a template is not allowed to do."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from llmcli.errors import CheckpointError, LLMCliError, RequestError
from llmcli.text.chat_template import ChatTemplate
from tests.text.chat_templates import CHATML, INST, STYLES, THINK

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
USER = {"role": "user", "content": "hi"}
CHATS: dict[str, list[dict[str, Any]]] = {
    "one": [USER],
    "system": [{"role": "system", "content": "Be brief."}, USER],
    "turns": [USER, {"role": "assistant", "content": "  Hello!\n"}, {"role": "user", "content": "a\tb  "}],
    "awkward": [{"role": "user", "content": "{{ 7 * 7 }} {% raw %} <b>&\"'\\ \u202e é中😀\r\n\n</s> "}],
    "empty": [{"role": "system", "content": ""}, {"role": "user", "content": ""}],
    "think": [USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes"}, USER],
    "reasoning": [USER, {"role": "assistant", "content": "yes", "reasoning_content": "hm"}, USER],
    "calls": [
        USER,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": "é"}}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "3"},
    ],
}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "a < b & ü", "parameters": {}}}]


def truth(source: str, messages: list[dict[str, Any]], **variables: Any) -> str:
    rendered, _ = render_jinja_template([messages], chat_template=source, **(TOKENS | variables))
    return rendered[0]


PAIRS = [(style, chat) for style in STYLES for chat in CHATS if (style, chat) != ("inst", "calls")]


@pytest.mark.parametrize(("style", "chat"), PAIRS)
@pytest.mark.parametrize("prompt", [True, False])
def test_a_chat_renders_as_in_transformers(style: str, chat: str, prompt: bool) -> None:
    expected = truth(STYLES[style], CHATS[chat], add_generation_prompt=prompt)
    assert ChatTemplate(STYLES[style], TOKENS).render(CHATS[chat], add_generation_prompt=prompt) == expected


def test_a_template_may_refuse_the_order_of_roles() -> None:
    with pytest.raises(RequestError, match="Roles must alternate"):
        ChatTemplate(INST, TOKENS).render([USER, USER])


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("variables", [{}, {"open_thinking": True}])
def test_a_real_template_with_tools_renders_as_in_transformers(
    minimind_folder: Any, chat: str, tools: list[dict[str, Any]] | None, variables: dict[str, Any]
) -> None:
    from llmcli.text.tokenizer_files import read_config, read_template_source

    source = read_template_source(minimind_folder, read_config(minimind_folder))
    assert isinstance(source, str)
    expected = truth(source, CHATS[chat], tools=tools, add_generation_prompt=True, **variables)
    assert (
        ChatTemplate(source, TOKENS).render(CHATS[chat], tools=tools, template_kwargs=variables) == expected
    )


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([CHATML, THINK]), st.lists(st.text(max_size=20)))
def test_any_text_renders_as_in_transformers(source: str, contents: list[str]) -> None:
    messages = [{"role": "user", "content": text} for text in ["x", *contents]]
    expected = truth(source, messages, add_generation_prompt=True)
    assert ChatTemplate(source, TOKENS).render(messages) == expected


@pytest.mark.parametrize("style", ["chatml", "inst", "headers", "lines"])
@pytest.mark.parametrize("text", ["Once upon", "Once ", " \n", "<s>[/INST]", "é"])
def test_an_answer_is_continued_where_it_ends(style: str, text: str) -> None:
    messages = [USER, {"role": "assistant", "content": text}]
    expected = truth(STYLES[style], messages, continue_final_message=True)
    assert ChatTemplate(STYLES[style], TOKENS).render(messages, continue_final_message=True) == expected
    assert messages[-1]["content"] == text


def test_of_several_templates_the_one_for_tools_is_taken_when_there_are_tools() -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    for source in (named, {"default": "plain", "tool_use": "tools"}):
        template = ChatTemplate(source, {})
        assert template.render([USER]) == "plain"
        assert template.render([USER], tools=TOOLS) == "tools"


@pytest.mark.parametrize("source", [3, {}, {"rag": "x"}, [], ["x"], {"default": 1}, [{"name": "default"}]])
def test_a_source_that_holds_no_template_is_refused(source: object) -> None:
    with pytest.raises(CheckpointError, match="chat_template"):
        ChatTemplate(source, {})


def test_whether_a_system_message_is_written_is_found_out() -> None:
    assert ChatTemplate(CHATML, TOKENS).supports_system
    assert not ChatTemplate("{{ messages[-1].content }}", TOKENS).supports_system
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    assert not ChatTemplate(refusing, TOKENS).supports_system


def test_a_refusal_by_the_template_is_shown_escaped() -> None:
    with pytest.raises(RequestError, match=r"refuses these messages: no \\x1b\[2J system") as caught:
        ChatTemplate("{{ raise_exception('no \x1b[2J system') }}", {}).render([USER])
    assert caught.value.param == "messages"


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "bos_token"])
def test_a_caller_can_not_replace_what_the_template_is_given(name: str) -> None:
    with pytest.raises(RequestError, match=name):
        ChatTemplate(INST, TOKENS).render([USER], template_kwargs={name: "x"})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("ok\n{% if %}", "line 2 is not a valid template"),
        ("{{ 'a' | nonesuch }}", "line 1 is not a valid template"),
        ("\n\n{{ missing.field }}", "line 3 fails: 'missing' is undefined"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "forbidden"),
        ("{{ messages.append.__globals__['x'] }}", "forbidden"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "forbidden"),
        ("{{ '{0.__class__.__mro__}'.format(1) }}", "forbidden"),
        ("{{ messages.append(1) }}", "forbidden"),
        ("{% include '/etc/passwd' %}", "line 1 fails"),
        ("{% import 'os' as os %}", "line 1 fails"),
        ("{% extends 'x' %}", "line 1 fails"),
        ("{{ 1 // 0 }}", "line 1 fails"),
        ("{{ 'a' + 1 }}", "line 1 fails"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "fails"),
    ],
)
def test_a_broken_or_hostile_template_is_named_by_line(source: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=f"^chat_template.*{message}"):
        ChatTemplate(source, {}).render([USER])


GROW = "{{% set ns = namespace(x='aaaaaaaa') %}}{{% for i in range(60) %}}{}{{% endfor %}}{{{{ ns.x }}}}"
STOPPED = r"longer than|at most|more than|beyond|above|string formats|No filter"
NEST = "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
LOOP = "{% for i in range(100000) %}"


@pytest.mark.parametrize(
    "source",
    [
        LOOP * 3 + "{% endfor %}" * 3,
        LOOP + "{% for j in range(100000) if j < 0 %}{% endfor %}{% endfor %}",
        "{% for i in range(1000000000) %}{% endfor %}",
        "{{ range(1000000000) | length }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 1000000000 * 'a' }}",
        "{{ [1] * 1000000000 }}",
        "{{ 9 ** 999999999 }}",
        "{{ 'a'.center(1000000000) }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ 'a'.ljust(1000000000) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 1000000000) }}",
        "{{ [1] | batch(1000000000, 0) | list }}",
        "{{ lipsum(1000000000) }}",
        "{{ {'a': 1} | tojson(indent=1000000000) }}",
        "{{ 'a\n' | indent(1000000000) }}",
        "{{ ('a' * 4000000).replace('a', 'a' * 4000000) }}",
        "{{ ('a' * 4000000) | replace('a', 'a' * 4000000) }}",
        "{{ ('a' * 4000000).join(range(10000) | map('string')) }}",
        "{{ range(10000) | join('a' * 4000000) }}",
        LOOP + "{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' }}{% endfor %}",
        GROW.format("{% set ns.x = ns.x + ns.x %}"),
        GROW.format("{% set ns.x = ns.x ~ ns.x %}"),
        GROW.format("{% set ns.x = [ns.x, ns.x] | join %}"),
        GROW.format("{% set ns.x = ''.join([ns.x, ns.x]) %}"),
        GROW.format("{% set ns.x = '%s%s' % (ns.x, ns.x) %}"),
        GROW.format("{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"),
        GROW.format("{% set ns.x = '{}{}'.format(ns.x, ns.x) %}"),
        GROW.format("{% set ns.x = [ns.x, ns.x] %}"),
        NEST + "{{ ns.x | tojson }}",
        NEST + "{{ ns.x ~ '' }}",
        NEST + "{{ '%s' % ns.x }}",
        "{% set ns = namespace(x=9) %}" + LOOP + "{% set ns.x = ns.x * ns.x %}{% endfor %}",
    ],
)
def test_a_template_that_wants_too_much_is_stopped(source: str) -> None:
    with pytest.raises(CheckpointError, match=STOPPED):
        ChatTemplate(source, {}).render([USER])


def test_a_template_can_be_used_again_after_it_was_stopped() -> None:
    template = ChatTemplate("{{ 'a' * n }}", {})
    with pytest.raises(LLMCliError):
        template.render([USER], template_kwargs={"n": 10**9})
    assert template.render([USER], template_kwargs={"n": 3}) == "aaa"
