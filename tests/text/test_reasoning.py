"""Reasoning is told from the answer, whatever the pieces, and only where it really is."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcli.text.reasoning import THINK, ReasoningMarks, ReasoningSplitter, find_marks

GEMMA = ReasoningMarks("<|channel>thought\n", "<channel|>")


def split(*pieces: str, marks: ReasoningMarks = THINK, inside: bool = False) -> tuple[str, str]:
    splitter = ReasoningSplitter(marks, inside=inside)
    parts = [splitter.push(piece) for piece in pieces] + [splitter.finish()]
    return "".join(part.reasoning for part in parts), "".join(part.answer for part in parts)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<think>\nlet me see\n</think>\n\n42", "let me see", "42"),
        ("\n<think>a\n\nb</think>42", "a\n\nb", "42"),
        ("<think>\n\n</think>\n\n42", "", "42"),
        ("<think>never ends", "never ends", ""),
        ("<think>cut off </thi", "cut off </thi", ""),
        ("<think>a < b </ c</think>d", "a < b </ c", "d"),
        ("no thought", "", "no thought"),
        ("  indented", "", "  indented"),
        ("<thin air", "", "<thin air"),
        ("<thi", "", "<thi"),
        ("the <think> tag ends with </think>.", "", "the <think> tag ends with </think>."),
        ("<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
        ("", "", ""),
    ],
)
def test_the_block_at_the_begin_is_reasoning(text: str, reasoning: str, answer: str) -> None:
    assert split(text) == (reasoning, answer)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("let me see\n</think>\n\n42", "let me see", "42"),
        ("<think>\nopened twice</think>42", "opened twice", "42"),
        ("<thi", "<thi", ""),
        ("<b> is bold", "<b> is bold", ""),
        ("</think>42", "", "42"),
    ],
)
def test_an_answer_may_begin_inside_of_it(text: str, reasoning: str, answer: str) -> None:
    assert split(text, inside=True) == (reasoning, answer)


def test_other_marks_do_the_same() -> None:
    assert split("<|channel>thought\nhm<channel|>42", marks=GEMMA) == ("hm", "42")


@given(
    text=st.lists(
        st.sampled_from(["<think>", "</think>", "<", "think", "</", ">", " ", "\n", "a", "b c"])
    ).map("".join),
    cuts=st.lists(st.integers(0, 60)),
    inside=st.booleans(),
)
def test_how_the_text_is_cut_does_not_matter(text: str, cuts: list[int], inside: bool) -> None:
    ends = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(ends)]
    assert split(*pieces, inside=inside) == split(text, inside=inside)
    assert split(*text, inside=inside) == split(text, inside=inside)


def test_text_is_passed_on_as_it_comes() -> None:
    splitter = ReasoningSplitter()
    assert splitter.push("<think>one ") == ("one", "")
    assert splitter.inside
    assert splitter.push("two") == (" two", "")
    assert splitter.push("</think>\nyes") == ("", "yes")
    assert not splitter.inside
    assert splitter.push(" and ") == ("", " and ")


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("<|im_start|>assistant\n<think>\n", True),
        ("<|im_start|>assistant\n<think>", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("what does <think> mean?<|im_end|>\n<|im_start|>assistant\n", False),
        ("", False),
    ],
)
def test_the_end_of_the_prompt_tells_whether_it_is_open(prompt: str, opened: bool) -> None:
    assert THINK.open_at_end(prompt) is opened


def declared(name: str = "reasoning_content", **field: Any) -> dict[str, Any]:
    return {"response_template": {"start_anchor": "x", "fields": {name: field, "content": {}}}}


@pytest.mark.parametrize(
    ("config", "template", "tokens", "marks"),
    [
        pytest.param(declared(open="<a>", close="</a>"), "", [], ("<a>", "</a>"), id="response_template"),
        pytest.param(
            declared("thinking", open=["<a>", "<b>"], close="</a>"), "", [], ("<a>", "</a>"), id="list"
        ),
        pytest.param(
            declared(open_pattern="(a+)+", close="</a>"), "", [], ("<think>", "</think>"), id="pattern"
        ),
        pytest.param({"response_template": "x"}, "", [], ("<think>", "</think>"), id="not an object"),
        pytest.param({}, "{{ '[THINK]' }}[/THINK]", [], ("[THINK]", "[/THINK]"), id="chat template"),
        pytest.param({}, None, ["[THINK]", "[/THINK]"], ("[THINK]", "[/THINK]"), id="added tokens"),
        pytest.param(
            {}, "'<|channel>thought\\n' '<channel|>'", [], (GEMMA.opening, GEMMA.closing), id="gemma"
        ),
        pytest.param(
            {}, {"default": "<seed:think></seed:think>"}, [], ("<seed:think>", "</seed:think>"), id="named"
        ),
        pytest.param({}, None, [], ("<think>", "</think>"), id="nothing tells"),
    ],
)
def test_the_marks_come_from_the_model(
    config: dict[str, Any], template: object, tokens: list[str], marks: tuple[str, str]
) -> None:
    assert find_marks(config, template, tokens) == ReasoningMarks(*marks)
