"""Prompts of benchmarks: random ones of a seed, lines of a file, conversations."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from llmcli.errors import UsageError
from llmcli.jobs.bench.workload import (
    Work,
    WorkloadPlan,
    encode,
    random_ids,
    random_lengths,
    random_texts,
    read_dataset,
)
from tests.jobs.fake_engine import ByteTokenizer

RANDOM = WorkloadPlan(num_prompts=20, input_len=10, output_len=6)


def custom(path: Path, **options: Any) -> WorkloadPlan:
    return WorkloadPlan(dataset="custom", path=path, **options)


def test_random_ids_depend_on_nothing_but_the_seed() -> None:
    works = random_ids(RANDOM, 50)
    assert works == random_ids(RANDOM, 50)
    assert works != random_ids(WorkloadPlan(num_prompts=20, input_len=10, output_len=6, seed=1), 50)
    assert {(work.num_prompt, len(work.prompt), work.num_output) for work in works} == {(10, 10, 6)}
    assert all(0 <= token < 50 for work in works for token in work.prompt)


def test_lengths_vary_within_the_range_that_is_asked_for() -> None:
    plan = WorkloadPlan(num_prompts=500, input_len=10, output_len=1, range_ratio=0.25)
    lengths = random_lengths(plan, random.Random(0))
    assert {each.prompt for each in lengths} == set(range(7, 14))  # 7.5 rounded down .. 12.5 rounded up
    assert {each.output for each in lengths} == {1, 2}


def test_all_random_prompts_begin_with_the_common_prefix() -> None:
    plan = WorkloadPlan(num_prompts=5, input_len=4, output_len=1, prefix_len=8)
    works = random_ids(plan, 1000)
    assert {tuple(work.prompt[:8]) for work in works} == {tuple(works[0].prompt[:8])}
    assert len({tuple(work.prompt[8:]) for work in works}) == 5
    texts = random_texts(plan, None)
    assert len({" ".join(work.prompt.split()[:8]) for work in texts}) == 1


def test_without_a_tokenizer_a_word_stands_for_a_token() -> None:
    assert {(len(work.prompt.split()), work.num_prompt) for work in random_texts(RANDOM, None)} == {(10, 10)}


def test_with_a_tokenizer_texts_have_the_length_asked_for() -> None:
    works = random_texts(RANDOM, ByteTokenizer())
    assert {(len(work.prompt.encode()), work.num_prompt) for work in works} == {(10, 10)}


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


def test_a_file_has_the_lines_that_run_takes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "in.jsonl",
        {"prompt": "one", "max_tokens": 7},
        {"messages": [{"role": "user", "content": "two"}]},
        {"prompt_token_ids": [1, 2, 3]},
        {"prompt": "four", "system": "be brief"},
    )
    assert read_dataset(custom(path)) == [
        Work("text", "one", 7),
        Work("messages", [{"role": "user", "content": "two"}], 128),
        Work("token_ids", [1, 2, 3], 128),
        Work(
            "messages", [{"role": "system", "content": "be brief"}, {"role": "user", "content": "four"}], 128
        ),
    ]


def test_a_length_that_is_asked_for_goes_before_those_of_the_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", {"prompt": "one", "max_tokens": 7})
    [work] = read_dataset(custom(path, output_len=3))
    assert work.num_output == 3


def test_more_prompts_than_lines_start_again_and_fewer_stop_early(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", *({"prompt": text} for text in "abc"))
    assert [work.prompt for work in read_dataset(custom(path, num_prompts=5))] == list("abcab")
    assert [work.prompt for work in read_dataset(custom(path, num_prompts=2))] == list("ab")


def test_bad_lines_are_refused_with_their_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", {"prompt": "a"}, {"prompt": 5})
    with pytest.raises(UsageError, match="1 bad line of 2") as caught:
        read_dataset(custom(path))
    assert "line 2" in caught.value.why
    assert "--" not in caught.value.fix  # bench can not skip lines


def test_the_model_that_a_line_names_is_not_asked_for(tmp_path: Path) -> None:
    body = {"model": "gpt-4", "messages": [{"role": "user", "content": "one"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    [work] = read_dataset(custom(write(tmp_path / "in.jsonl", line)))
    assert work == Work("messages", body["messages"], 128)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no prompts in"):
        read_dataset(custom(write(tmp_path / "in.jsonl")))


def conversation(question: str, answer: str) -> dict[str, Any]:
    return {
        "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
    }


def sharegpt(path: Path, **options: Any) -> WorkloadPlan:
    return WorkloadPlan(dataset="sharegpt", path=path, **options)


def test_sharegpt_asks_the_first_question_for_an_answer_as_long_as_the_first(tmp_path: Path) -> None:
    path = tmp_path / "share.json"
    entries = [
        conversation("q" * 10, "a" * 20),
        conversation("q", "a" * 20),
        conversation("q" * 10, "a"),
        conversation("q" * 1025, "a" * 20),
        conversation("q" * 1000, "a" * 1049),
        {"conversations": []},
    ]
    path.write_text(json.dumps(entries))
    assert read_dataset(sharegpt(path), ByteTokenizer()) == [Work("text", "q" * 10, 20, 10)]


def test_without_a_tokenizer_four_characters_stand_for_a_token(tmp_path: Path) -> None:
    path = tmp_path / "share.json"
    path.write_text(json.dumps([conversation("q" * 40, "a" * 80)]))
    assert read_dataset(sharegpt(path)) == [Work("text", "q" * 40, 20, 10)]


@pytest.mark.parametrize("content", ["{}", "[1]", '[{"conversations": [{}, {}]}]', "not JSON"])
def test_what_is_not_in_sharegpts_form_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "share.json"
    path.write_text(content)
    with pytest.raises(UsageError, match="not in ShareGPT's form"):
        read_dataset(sharegpt(path))


def test_prompts_become_token_ids_through_the_models_template() -> None:
    works = [
        Work("text", "hi", 5),
        Work("messages", [{"role": "user", "content": "hi"}], 5),
        Work("token_ids", [1, 2], 5),
    ]
    chat = list(b"<user>hi<assistant>")
    assert encode(works, ByteTokenizer()) == [
        Work("token_ids", chat, 5, len(chat)),
        Work("token_ids", chat, 5, len(chat)),
        Work("token_ids", [1, 2], 5, 2),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "sonnet"}, "--dataset-name must be one of random, sharegpt, custom, got sonnet"),
        ({"path": Path("x")}, "--dataset-name random makes its own prompts"),
        ({"dataset": "custom"}, "--dataset-name custom needs a file"),
        ({"num_prompts": 0}, "--num-prompts must be at least 1, got 0"),
        ({"output_len": 0}, "--output-len must be at least 1, got 0"),
        ({"range_ratio": 1.0}, "--random-range-ratio must be at least 0 and below 1, got 1"),
    ],
)
def test_a_workload_that_is_none_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        WorkloadPlan(**options)
    assert caught.value.what == message


def test_the_name_of_a_workload_tells_what_two_runs_must_share() -> None:
    assert RANDOM.name == "random in10 out6 n20"
    assert custom(Path("dir/in.jsonl"), output_len=5).name == "in.jsonl out5"
