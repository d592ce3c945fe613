"""`SamplingParams` checks every field when it is made, and names the one at fault."""

from typing import Any

import pytest

from llmcli.errors import RequestError
from llmcli.sampling import MAX_SEED, MAX_STOP_CHARS, SamplingParams, check_names

NAN, INF = float("nan"), float("inf")
WRONG: dict[str, list[Any]] = {
    "n": [0, -1, 17, 10**9, True, 1.0, "1", None],
    "temperature": [-0.1, 2.1, NAN, INF, "0.7", True, None],
    "top_k": [-2, -5, 1.5, True, "40", 2**31],
    "top_p": [0, 1.01, -1, NAN, "0.9", None],
    "min_p": [-0.1, 2, NAN, "0.1"],
    "repetition_penalty": [0, -1, 10.1, NAN, INF, "1.1"],
    "presence_penalty": [-2.1, 2.1, NAN, "1"],
    "frequency_penalty": [-2.1, 2.1, INF, [1]],
    "seed": [-1, 2**63, 2**64, 1.5, "7", True],
    "max_tokens": [0, -1, 2**31, 10**18, 1e9, True, "12"],
    "min_tokens": [-1, 2**31, None, "3"],
    "logprobs": [-1, 21, 10**6, True, 2.0],
    "stop": [None, 5, {"a": 1}, [""], ["x" * (MAX_STOP_CHARS + 1)], [5], [b"x"], ["a"] * 17],
    "stop_token_ids": [None, 5, "12", [-1], [2**31], [True], [1.0], ["7"]],
    "logit_bias": [
        None,
        [1, 2],
        {-1: 0.0},
        {"abc": 1},
        {"1e3": 1},
        {" 5": 1},
        {"-5": 1},
        {True: 1},
        {1.5: 1},
        {2**31: 1},
        {10**30: 1},
        {"9" * 30: 1},
        {5: 101},
        {5: -100.5},
        {5: NAN},
        {5: "1"},
        {5: True},
        dict.fromkeys(range(301), 1),
    ],
    "ignore_eos": [1, "true", None],
    "include_stop_str_in_output": [0],
    "skip_special_tokens": ["no"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(RequestError) as caught:
        SamplingParams(**{name: value})
    assert caught.value.param == name
    assert name in caught.value.what
    assert caught.value.exit_code == 2
    assert len(caught.value.what) < 400
    assert isinstance(caught.value, ValueError)


RIGHT: dict[str, list[Any]] = {
    "n": [1, 16],
    "temperature": [0, 0.0, 2, 1e-5],
    "top_k": [0, 1, 10**6],
    "top_p": [1e-9, 1],
    "min_p": [0, 1],
    "repetition_penalty": [0.5, 10],
    "presence_penalty": [-2, 2],
    "frequency_penalty": [-2, 2.0],
    "seed": [None, 0, MAX_SEED],
    "max_tokens": [None, 1, 2**31 - 1],
    "logprobs": [None, 0, 20],
    "stop": [(), ["\n"], ["x" * MAX_STOP_CHARS], ["a"] * 16],
    "stop_token_ids": [[], [0, 7]],
    "logit_bias": [{}, {0: -100}, {5: 100.0}, dict.fromkeys(range(300), 1)],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in RIGHT.items() for value in values]
)
def test_the_ends_of_each_range_are_accepted(name: str, value: Any) -> None:
    params = SamplingParams(**{name: value})
    expected = tuple(value) if isinstance(value, list) else value
    assert getattr(params, name) == expected


def test_lists_become_tuples_and_one_stop_string_a_tuple_of_it() -> None:
    params = SamplingParams(stop="END", stop_token_ids=[7, 8])  # type: ignore[arg-type]
    assert (params.stop, params.stop_token_ids) == (("END",), (7, 8))


def test_minus_one_keeps_all_tokens_as_zero_does() -> None:
    assert SamplingParams(top_k=-1).top_k == 0


def test_keys_of_a_json_object_become_token_ids() -> None:
    assert dict(SamplingParams(logit_bias={"12": 3, 7: -1}).logit_bias) == {12: 3.0, 7: -1.0}  # type: ignore[dict-item]


def test_a_mapping_that_is_changed_later_changes_nothing() -> None:
    bias = {5: 1.0}
    params = SamplingParams(logit_bias=bias)
    bias[5] = 1e9
    assert params.logit_bias[5] == 1.0


def test_fewer_tokens_at_most_than_at_least_is_refused_with_both_numbers() -> None:
    with pytest.raises(RequestError, match="min_tokens 5 is greater than max_tokens 4"):
        SamplingParams(min_tokens=5, max_tokens=4)
    assert SamplingParams(min_tokens=5).max_tokens is None


def test_a_copy_is_validated_again() -> None:
    params = SamplingParams(temperature=0.5, stop=("a",))
    copy = params.replace(temperature=0, logit_bias={3: 1})
    assert (copy.temperature, copy.stop, dict(copy.logit_bias)) == (0, ("a",), {3: 1.0})
    assert (params.temperature, dict(params.logit_bias)) == (0.5, {})
    with pytest.raises(RequestError, match="temperature"):
        params.replace(temperature=3)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("temprature", "did you mean temperature?"),
        ("max_token", "did you mean max_tokens?"),
        ("qqq", "known fields: n, temperature, "),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_name(name: str, fix: str) -> None:
    for attempt in (lambda: check_names({"n": 1, name: 1}), lambda: SamplingParams().replace(**{name: 1})):
        with pytest.raises(RequestError, match=f"unknown sampling field {name}") as caught:
            attempt()
        assert fix in caught.value.fix
        assert caught.value.param == name


@pytest.mark.parametrize(
    ("fields", "greedy", "uses_history"),
    [
        ({}, False, False),
        ({"temperature": 0}, True, False),
        ({"repetition_penalty": 1.1}, False, True),
        ({"presence_penalty": -0.5}, False, True),
        ({"frequency_penalty": 0.5}, False, True),
    ],
)
def test_what_a_draw_needs_follows_from_the_fields(
    fields: dict[str, Any], greedy: bool, uses_history: bool
) -> None:
    params = SamplingParams(**fields)
    assert (params.greedy, params.uses_history) == (greedy, uses_history)
