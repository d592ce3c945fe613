"""An answer has the form that was asked for, whatever the model would say: here one of random weights says garbage."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from llmcli import LLM, RequestOutput, SamplingParams, StructuredOutput
from llmcli.errors import RequestError
from tests.tiny_models import tiny_chat_model

PROMPT = [9, 20, 33, 41, 7]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green", 7, None]}, "minItems": 1, "maxItems": 3},
        "inner": {
            "type": "object",
            "properties": {"ok": {"type": "boolean"}},
            "required": ["ok"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "tags", "inner"],
    "additionalProperties": False,
}
DATE = r"(19|20)[0-9]{2}-[01][0-9]-[0-3][0-9]"
REGEXES = [DATE, r"(ab|cd){2,5}!?", r"[^a-z ]{4,9}", r"w1?(0|1|2) [\u00e9\u4e00-\u4e10]{1,3}"]
CHOICES = ("yes", "no", "not yet", 'say "no"\n', "né \\ 中")
SUM = 'start: NUMBER ("+" NUMBER){1,3}\nNUMBER: /[1-9][0-9]{0,2}/'
SUM_GBNF = 'root ::= number ("+" number){1,3}\nnumber ::= [1-9] [0-9]? [0-9]?'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_model(tmp_path_factory.mktemp("model"), max_position_embeddings=1024)


@pytest.fixture(scope="module")
def llm(folder: Path) -> LLM:
    return load(folder)


def load(folder: Path, **options: Any) -> LLM:
    return LLM(folder, dtype="float32", num_threads=1, **options)


def answers(llm: LLM, params: SamplingParams, prompts: list[list[int]] | None = None) -> list[str]:
    """The texts of all choices, each of which has ended by itself."""
    return texts(llm.generate(prompts or [PROMPT], params, use_tqdm=False))


def texts(outputs: list[RequestOutput]) -> list[str]:
    for choice in (choice for output in outputs for choice in output.outputs):
        assert (choice.finish_reason, choice.stop_reason, choice.error) == ("stop", None, None)
    return [choice.text for output in outputs for choice in output.outputs]


def of_seeds(llm: LLM, params: SamplingParams, count: int) -> list[str]:
    """The texts for as many seeds, from 0 on, all in one batch."""
    seeded = [params.replace(seed=seed) for seed in range(count)]
    return texts(llm.generate([PROMPT] * count, seeded, use_tqdm=False))


def has_form(text: str) -> bool:
    """Whether a text is JSON of SCHEMA: told without the code under test and without its library."""
    value = json.loads(text)
    return (
        isinstance(value, dict)
        and set(value) == {"name", "age", "tags", "inner"}
        and isinstance(value["name"], str)
        and len(value["name"]) <= 8
        and type(value["age"]) is int
        and 0 <= value["age"] <= 150
        and isinstance(value["tags"], list)
        and 1 <= len(value["tags"]) <= 3
        and all(tag in ("red", "green", 7, None) for tag in value["tags"])
        and isinstance(value["inner"], dict)
        and list(value["inner"]) == ["ok"]
        and isinstance(value["inner"]["ok"], bool)
    )


def form(text: StructuredOutput, **params: Any) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 400, "temperature": 1.0, "structured": text} | params)


JSON = StructuredOutput.json_schema(SCHEMA)


def test_without_a_form_the_model_says_garbage(llm: LLM) -> None:
    for output in llm.generate([PROMPT], SamplingParams(n=8, max_tokens=60, seed=1), use_tqdm=False):
        for choice in output.outputs:
            with pytest.raises(ValueError, match=r"Expecting|Extra"):
                json.loads(choice.text)


@pytest.mark.parametrize("temperature", [0, 0.3, 1.0, 2.0])
def test_every_answer_is_json_of_the_schema(llm: LLM, temperature: float) -> None:
    found = of_seeds(llm, form(JSON, temperature=temperature, n=4), 10)
    assert [text for text in found if not has_form(text)] == []
    assert temperature == 0 or len(set(found)) == 40


@pytest.mark.parametrize(
    "more",
    [
        {"top_k": 1, "seed": 1},
        {"top_p": 0.1, "seed": 1},
        {"min_p": 1.0, "seed": 1},
        {"repetition_penalty": 10.0, "seed": 1},
        {"presence_penalty": 2.0, "frequency_penalty": 2.0, "seed": 2},
        {"logit_bias": {77: 100, 2: 100}, "seed": 3},
        {"logprobs": 3, "seed": 4},
        {"ignore_eos": True, "seed": 5},
        {"min_tokens": 300, "seed": 6},
    ],
    ids=lambda more: next(iter(more)),
)
def test_the_form_goes_before_every_other_parameter(llm: LLM, more: dict[str, Any]) -> None:
    assert all(map(has_form, answers(llm, form(JSON, n=4, **more))))


@pytest.mark.parametrize("pattern", REGEXES)
def test_every_answer_matches_the_whole_regex(llm: LLM, pattern: str) -> None:
    found = of_seeds(llm, form(StructuredOutput.regex(pattern), n=3), 8)
    assert [text for text in found if not re.fullmatch(pattern, text)] == []
    assert len(set(found)) > 3


def test_every_answer_is_one_of_the_choices(llm: LLM) -> None:
    found = set(of_seeds(llm, form(StructuredOutput.choice(CHOICES), n=4), 20))
    assert found <= set(CHOICES)
    assert len(found) > 3


@pytest.mark.parametrize("text", [SUM, SUM_GBNF], ids=["Lark", "GBNF"])
def test_every_answer_is_of_the_language_of_the_grammar(llm: LLM, text: str) -> None:
    found = of_seeds(llm, form(StructuredOutput.grammar(text), n=2), 8)
    assert [one for one in found if not re.fullmatch(r"[1-9]\d{0,2}(\+[1-9]\d{0,2}){1,3}", one)] == []


def test_true_is_the_schema_of_any_json(llm: LLM) -> None:
    whole = StructuredOutput.json_schema(True)
    (output,) = llm.generate([PROMPT], form(whole, n=8, seed=0), use_tqdm=False)
    found = [choice.text for choice in output.outputs if choice.finish_reason == "stop"]
    assert found
    for text in found:
        json.loads(text)


def test_any_json_object_is_an_object(llm: LLM) -> None:
    params = form(StructuredOutput.json_object(), max_tokens=900, n=8, seed=0)
    (output,) = llm.generate([PROMPT], params, use_tqdm=False)
    whole = [choice.text for choice in output.outputs if choice.finish_reason == "stop"]
    assert whole
    assert all(isinstance(json.loads(text), dict) for text in whole)
    assert all(choice.text.startswith("{") for choice in output.outputs)


TURNS = [[random.Random(i).randrange(3, 300) for _ in range(11 + i)] for i in range(4)]
TIGHT = SamplingParams(structured=JSON, seed=5, n=2, max_tokens=400)


@pytest.fixture(scope="module")
def alone(llm: LLM) -> list[list[str]]:
    return [answers(llm, TIGHT, [prompt]) for prompt in TURNS]


@pytest.mark.parametrize(("budget", "caching"), [(1, True), (3, False), (512, True), (512, False)])
def test_chunks_and_preemption_change_no_answer(
    folder: Path, alone: list[list[str]], budget: int, caching: bool
) -> None:
    tight = load(
        folder,
        block_size=4,
        kv_cache_memory=110 * 4 * 3 * 2 * 80 * 4,
        max_num_batched_tokens=budget,
        enable_prefix_caching=caching,
        max_model_len=430,
    )
    outputs = tight.generate(TURNS, TIGHT, use_tqdm=False)
    assert [[choice.text for choice in output.outputs] for output in outputs] == alone
    assert budget < 512 or tight.engine.stats().num_preemptions > 0


def test_neighbours_without_a_form_say_what_they_say_alone(llm: LLM) -> None:
    free = SamplingParams(temperature=0.9, seed=3, max_tokens=30, ignore_eos=True)
    alone = [ids(llm.generate([[9, 9, i]], free, use_tqdm=False)) for i in range(4)]
    mixed = [form(JSON, seed=1), free, form(StructuredOutput.regex(DATE), seed=2), free, free, free]
    prompts = [PROMPT, [9, 9, 0], PROMPT, [9, 9, 1], [9, 9, 2], [9, 9, 3]]
    outputs = llm.generate(prompts, mixed, use_tqdm=False)
    assert [ids([outputs[place]]) for place in (1, 3, 4, 5)] == alone
    assert has_form(outputs[0].outputs[0].text)
    assert re.fullmatch(DATE, outputs[2].outputs[0].text)


def ids(outputs: list[RequestOutput]) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in outputs]


def test_an_answer_ends_with_its_form_and_no_token_later(llm: LLM) -> None:
    (output,) = llm.generate([PROMPT], form(StructuredOutput.regex("[a-z]{3}"), seed=0), use_tqdm=False)
    assert len(output.outputs[0].token_ids) == 3
    assert llm.engine.stats().kv_usage == 0


def test_where_more_may_come_the_end_token_ends_it(llm: LLM) -> None:
    end = llm.get_tokenizer().eos_id
    params = form(StructuredOutput.regex("[a-z]{3,300}"), seed=0, logit_bias={end: 100})
    (output,) = llm.generate([PROMPT], params, use_tqdm=False)
    choice = output.outputs[0]
    assert (choice.token_ids[-1], len(choice.token_ids), len(choice.text)) == (end, 4, 3)
    (longer,) = llm.generate([PROMPT], params.replace(ignore_eos=True), use_tqdm=False)
    assert re.fullmatch("[a-z]{300}", longer.outputs[0].text)


def test_min_tokens_yields_where_the_form_leaves_nothing_but_a_stop_id(llm: LLM) -> None:
    (bracket,) = llm.get_tokenizer().encode("[", add_special_tokens=False)
    params = form(StructuredOutput.regex("[a-z]{3}\\[ok"), seed=0, stop_token_ids=(bracket,), min_tokens=50)
    (output,) = llm.generate([PROMPT], params, use_tqdm=False)
    choice = output.outputs[0]
    assert (choice.finish_reason, choice.stop_reason) == ("stop", bracket)
    assert len(choice.token_ids) == 4


def test_too_few_tokens_cut_the_form_and_say_length(llm: LLM) -> None:
    (output,) = llm.generate([PROMPT], form(JSON, seed=0, max_tokens=5), use_tqdm=False)
    assert output.outputs[0].finish_reason == "length"


def test_a_stop_string_ends_an_answer_before_its_form_is_whole(llm: LLM) -> None:
    (output,) = llm.generate([PROMPT], form(JSON, seed=0, stop=('"age"',)), use_tqdm=False)
    choice = output.outputs[0]
    assert (choice.finish_reason, choice.stop_reason) == ("stop", '"age"')
    assert '"name"' in choice.text
    assert '"age"' not in choice.text


def test_log_probabilities_are_those_of_the_model_without_the_form(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=5)
    (free,) = llm.generate([PROMPT], params, use_tqdm=False)
    (held,) = llm.generate([PROMPT], params.replace(structured=JSON), use_tqdm=False)
    first, other = free.outputs[0].logprobs, held.outputs[0].logprobs
    assert first is not None
    assert other is not None
    assert first[0].top == other[0].top
    assert other[0].sampled.text == "{"


def test_an_answer_that_was_begun_goes_on_to_the_form(llm: LLM) -> None:
    begun = '{"name": "Jo", "age": 1'
    rests = of_seeds(llm, form(StructuredOutput("json_schema", JSON.text, begun)), 8)
    assert all(has_form(begun + rest) for rest in rests)


def test_the_form_begins_behind_a_mark(llm: LLM) -> None:
    no_end = {llm.get_tokenizer().eos_id: -100.0}
    free = SamplingParams(seed=4, max_tokens=40, logit_bias=no_end)
    (output,) = llm.generate([PROMPT], free, use_tqdm=False)
    ids_before, tokenizer = output.outputs[0].token_ids[:6], llm.get_tokenizer()
    mark = tokenizer.decode([ids_before[-1]])
    (text,) = answers(llm, form(StructuredOutput("regex", DATE, after=mark), seed=4))
    before, _, rest = text.partition(mark)
    assert before + mark == tokenizer.decode(ids_before)[: len(before + mark)]
    assert re.fullmatch(DATE, rest)


def test_a_form_that_can_not_be_followed_is_refused_before_anything_runs(llm: LLM) -> None:
    steps = llm.engine.stats().num_steps
    for wrong in (StructuredOutput.regex("a(b"), StructuredOutput.json_schema({"type": "something"})):
        with pytest.raises(RequestError):
            llm.generate([PROMPT, PROMPT], [SamplingParams(), form(wrong)], use_tqdm=False)
    assert llm.engine.stats().num_steps == steps
    assert not llm.engine.has_work


def test_a_form_that_turns_out_too_large_fails_its_request_alone(llm: LLM) -> None:
    large = StructuredOutput.json_schema(
        {"type": "object", "properties": {f"k{i}": {"type": "string"} for i in range(1500)}}
    )
    outputs = llm.generate([PROMPT, PROMPT], [form(large, n=2), form(JSON, seed=1)], use_tqdm=False)
    for choice in outputs[0].outputs:
        assert choice.finish_reason == "error"
        assert choice.error is not None
        assert choice.error.startswith("the answer can not be held to its form: ")
    assert has_form(outputs[1].outputs[0].text)
    assert not llm.engine.has_work
    assert llm.engine.stats().kv_usage == 0
