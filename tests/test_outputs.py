"""Events of a request add up to its output, choice by choice."""

import pytest

from llmcli.outputs import CompletionOutput, Logprob, RequestOutput, RequestStats, TokenEvent, TokenLogprobs


def stats(**changes: float) -> RequestStats:
    values = {
        "num_prompt_tokens": 3,
        "num_cached_tokens": 0,
        "num_output_tokens": 5,
        "queue_s": 0.5,
        "ttft_s": 1.0,
        "total_s": 3.0,
    }
    return RequestStats(**(values | changes))  # type: ignore[arg-type]


def drawn(token_id: int, logprob: float) -> tuple[TokenLogprobs, ...]:
    entry = Logprob(token_id, logprob, 1)
    return (TokenLogprobs(entry, (entry,)),)


def output(choices: int = 1) -> RequestOutput:
    return RequestOutput("r", "ab", [1, 2], [CompletionOutput(index) for index in range(choices)])


def test_text_ids_and_logprobs_are_appended_in_order() -> None:
    whole = output()
    whole.apply(TokenEvent("r", 0, "", (5,), drawn(5, -0.5)))
    whole.apply(TokenEvent("r", 0, "ab", (6, 7), drawn(6, -1.0) + drawn(7, -0.25)))
    (choice,) = whole.outputs
    assert (choice.text, choice.token_ids) == ("ab", [5, 6, 7])
    assert choice.logprobs is not None
    assert [entry.sampled.token_id for entry in choice.logprobs] == [5, 6, 7]
    assert choice.cumulative_logprob == -1.75
    assert not whole.finished


def test_without_logprobs_there_is_no_sum_of_them() -> None:
    whole = output()
    whole.apply(TokenEvent("r", 0, "a", (5,), finish_reason="length", stats=stats()))
    assert (whole.outputs[0].logprobs, whole.outputs[0].cumulative_logprob) == (None, None)


def test_an_output_is_finished_when_all_its_choices_are() -> None:
    whole = output(2)
    whole.apply(TokenEvent("r", 1, "x", (7,), finish_reason="stop", stop_reason="END", stats=stats()))
    assert not whole.finished
    whole.apply(TokenEvent("r", 0, "", (), finish_reason="error", error="not finite"))
    assert whole.finished
    assert (whole.outputs[1].text, whole.outputs[1].stop_reason, whole.outputs[1].stats) == (
        "x",
        "END",
        stats(),
    )
    assert (whole.outputs[0].error, whole.outputs[0].finish_reason) == ("not finite", "error")


def test_cached_tokens_are_those_of_the_choice_that_found_most() -> None:
    whole = output(2)
    whole.apply(TokenEvent("r", 0, "", (), finish_reason="stop", stats=stats(num_cached_tokens=0)))
    whole.apply(TokenEvent("r", 1, "", (), finish_reason="stop", stats=stats(num_cached_tokens=16)))
    assert whole.num_cached_tokens == 16


@pytest.mark.parametrize(
    ("changes", "rate"),
    [({}, 2.0), ({"num_output_tokens": 1}, 0.0), ({"num_output_tokens": 0}, 0.0), ({"total_s": 1.0}, 0.0)],
)
def test_the_decode_rate_leaves_the_first_token_out(changes: dict[str, float], rate: float) -> None:
    assert stats(**changes).tokens_per_s == rate
