"""Drawing the next token: penalties, bans, log-probabilities and random numbers, each row for itself."""

import itertools
import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor

from llmcli.runtime.adjustments import Pending, adjust
from llmcli.runtime.sampler import sample, uniform
from llmcli.sampling import MAX_SEED, SamplingParams
from llmcli.scheduler.step import SampledToken, SampleSpec
from llmcli_kernels import select

VOCAB = 23


def spec(
    *,
    seed: int = 0,
    choice: int = 0,
    position: int = 0,
    banned: tuple[int, ...] = (),
    prompt: tuple[int, ...] = (),
    output: tuple[int, ...] = (),
    **params: Any,
) -> SampleSpec:
    return SampleSpec(SamplingParams(**params), seed, choice, position, banned, prompt, output)


def logits(rows: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed))


def draw(row: torch.Tensor, one: SampleSpec, kernels: str = "cpu") -> SampledToken:
    (token,) = sample(row.clone().view(1, -1), [one], [7], select("cpu", kernels))
    return token


def adjusted(row: torch.Tensor, one: SampleSpec) -> torch.Tensor:
    """The logits that the draw was made from."""
    rows = row.clone().view(1, -1)
    sample(rows, [one], [7], select("cpu", "reference"))
    return rows[0]


KEYS = st.tuples(st.integers(0, MAX_SEED), st.integers(0, 10**6), st.integers(0, 15))


@given(KEYS, KEYS)
def test_random_numbers_differ_with_any_of_their_keys_and_with_nothing_else(
    first: tuple[int, int, int], second: tuple[int, int, int]
) -> None:
    assert 0 <= uniform(*first) < 1
    assert (uniform(*first) == uniform(*second)) == (first == second)


@pytest.mark.parametrize("varied", [0, 1, 2])
def test_random_numbers_are_uniform_along_each_key(varied: int) -> None:
    count, bins = 5000, 20
    keys = [[3, 5, 7] for _ in range(count)]
    for number, key in enumerate(keys):
        key[varied] = number
    numbers = [uniform(*key) for key in keys]
    counts = Counter(int(number * bins) for number in numbers)
    chi_square = sum((counts[i] - count / bins) ** 2 / (count / bins) for i in range(bins))
    assert chi_square < 43.8  # 19 degrees of freedom, one in a thousand
    pairs = itertools.pairwise(numbers)
    correlation = sum((a - 0.5) * (b - 0.5) for a, b in pairs) * 12 / count
    assert abs(correlation) < 4 / math.sqrt(count)


def test_the_drawn_frequencies_are_the_softmax() -> None:
    row, count = logits(1)[0], 4000
    rows = row.repeat(count, 1)
    specs = [spec(seed=1, position=position, temperature=1.5) for position in range(count)]
    tokens = sample(rows, specs, range(count), select("cpu", "cpu"))
    drawn = torch.bincount(torch.tensor([token.token_id for token in tokens]), minlength=VOCAB) / count
    expected = torch.softmax(row / 1.5, dim=0)
    assert ((drawn - expected).abs() < 5 * (expected / count).sqrt() + 1e-3).all()


@pytest.mark.parametrize("penalty", [0.5, 1.3, 10.0])
def test_the_repetition_penalty_is_that_of_transformers(penalty: float) -> None:
    row, prompt, output = logits(1)[0], (1, 4, 4, 9), (9, 20)
    row[4] = 0.0
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([prompt + output]), row[None].clone())[
        0
    ]
    one = spec(repetition_penalty=penalty, prompt=prompt, output=output)
    assert torch.equal(adjusted(row, one), expected)
    assert not torch.equal(expected, row)


@pytest.mark.parametrize(("presence", "frequency"), [(0.5, 0.0), (0.0, 0.7), (-1.0, 0.25), (2.0, 2.0)])
def test_presence_and_frequency_penalties_are_as_openai_defines_them(
    presence: float, frequency: float
) -> None:
    row, prompt, output = logits(1)[0], (1, 2, 2), (5, 5, 5, 8)
    # mu[j] -> mu[j] - c[j] * frequency - (c[j] > 0) * presence, counted in the output alone
    expected = row.clone()
    for token_id in range(VOCAB):
        count = output.count(token_id)
        expected[token_id] -= count * frequency + (count > 0) * presence
    one = spec(presence_penalty=presence, frequency_penalty=frequency, prompt=prompt, output=output)
    torch.testing.assert_close(adjusted(row, one), expected, atol=1e-6, rtol=0)


def test_without_output_there_is_nothing_to_penalise() -> None:
    row = logits(1)[0]
    assert torch.equal(adjusted(row, spec(presence_penalty=2, frequency_penalty=2, prompt=(1, 2))), row)


def test_a_bias_is_added_and_a_ban_beats_it() -> None:
    row = logits(1)[0]
    one = spec(logit_bias={3: 1.5, 4: 100.0, 5: -100.0}, banned=(4, 9))
    expected = row.clone()
    expected[3] += 1.5
    expected[5] -= 100
    expected[[4, 9]] = -torch.inf
    assert torch.equal(adjusted(row, one), expected)


@pytest.mark.parametrize("kernels", ["reference", "cpu"])
@pytest.mark.parametrize("temperature", [0, 1.0, 2.0])
def test_a_banned_token_is_never_drawn(kernels: str, temperature: float) -> None:
    row = torch.zeros(VOCAB)
    banned = tuple(range(VOCAB - 2))
    drawn = {
        draw(row, spec(banned=banned, temperature=temperature, position=n), kernels).token_id
        for n in range(40)
    }
    assert drawn == ({VOCAB - 2} if temperature == 0 else {VOCAB - 2, VOCAB - 1})


def test_a_row_with_every_token_banned_is_not_finite() -> None:
    token = draw(logits(1)[0], spec(banned=tuple(range(VOCAB)), logprobs=2))
    assert (token.finite, token.logprobs) == (False, None)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_is_told_and_leaves_the_others_alone(bad: float) -> None:
    rows = logits(3)
    rows[1, 5] = bad
    specs = [spec(temperature=1, logprobs=1, seed=n) for n in range(3)]
    tokens = sample(rows.clone(), specs, [10, 11, 12], select("cpu", "cpu"))
    assert [token.finite for token in tokens] == [True, False, True]
    assert tokens[1].logprobs is None
    assert tokens[0] == SampledToken(10, *strip(draw(rows[0], specs[0])))
    assert tokens[2] == SampledToken(12, *strip(draw(rows[2], specs[2])))


def strip(token: SampledToken) -> tuple[Any, ...]:
    return (token.token_id, token.logprobs, token.finite)


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_logprobs_are_those_of_the_raw_logits_best_first(count: int) -> None:
    row = logits(1)[0]
    one = spec(
        logprobs=count, temperature=2.0, top_k=3, logit_bias={11: 100.0}, output=(2, 2), presence_penalty=2
    )
    token = draw(row, one)
    expected = torch.log_softmax(row.double(), dim=0)
    order = expected.sort(descending=True).indices.tolist()
    assert token.logprobs is not None
    assert token.token_id == 11
    assert token.logprobs.sampled.token_id == 11
    assert token.logprobs.sampled.logprob == pytest.approx(expected[11].item(), abs=1e-5)
    assert token.logprobs.sampled.rank == order.index(11) + 1
    assert [entry.token_id for entry in token.logprobs.top] == order[:count]
    assert [entry.rank for entry in token.logprobs.top] == list(range(1, count + 1))
    values = [entry.logprob for entry in token.logprobs.top]
    assert values == pytest.approx(expected[order[:count]].tolist(), abs=1e-5)


def test_no_more_logprobs_come_than_there_are_tokens() -> None:
    token = draw(logits(1)[0][:4].clone(), spec(logprobs=20))
    assert token.logprobs is not None
    assert len(token.logprobs.top) == 4


def test_without_a_request_for_them_there_are_no_logprobs() -> None:
    assert draw(logits(1)[0], spec()).logprobs is None


ROWS = [
    spec(temperature=0),
    spec(temperature=0, logprobs=3),
    spec(seed=5, position=2),
    spec(seed=5, position=2, choice=1, top_k=4),
    spec(seed=9, top_p=0.6, temperature=1.7, logprobs=0),
    spec(seed=9, min_p=0.2, temperature=0.4),
    spec(seed=1, repetition_penalty=1.4, prompt=(3, 4), output=(8,)),
    spec(seed=1, presence_penalty=1.0, frequency_penalty=0.5, output=(6, 6, 2)),
    spec(seed=2, logit_bias={7: 4.0}, banned=(1, 2)),
]


@pytest.mark.parametrize("kernels", ["reference", "cpu"])
@given(order=st.permutations(range(len(ROWS))), size=st.integers(1, len(ROWS)))
def test_a_row_draws_the_same_alone_and_in_any_batch(kernels: str, order: list[int], size: int) -> None:
    rows, chosen = logits(len(ROWS), seed=4), order[:size]
    together = sample(rows[chosen], [ROWS[i] for i in chosen], chosen, select("cpu", kernels))
    for i, token in zip(chosen, together, strict=True):
        assert token == SampledToken(i, *strip(draw(rows[i], ROWS[i], kernels)))


@pytest.mark.parametrize("kernels", ["cpu", "torch", "reference"])
def test_a_mask_is_a_ban_of_all_other_ids_and_touches_no_other_row(kernels: str) -> None:
    generator = torch.Generator().manual_seed(5)
    rows = logits(6, seed=2)
    masks = {i: torch.rand(VOCAB, generator=generator) < 0.3 for i in (0, 2, 5)}
    for mask in masks.values():
        mask[11] = True  # never empty
    plain = [spec(seed=i, temperature=1.3, top_p=0.9, top_k=7, logprobs=2) for i in range(6)]
    masked = [one._replace(allowed=packed(masks[i]) if i in masks else None) for i, one in enumerate(plain)]
    bans = {i: tuple((~mask).nonzero().flatten().tolist()) for i, mask in masks.items()}
    banned = [one._replace(banned_ids=bans.get(i, ())) for i, one in enumerate(plain)]
    kernel_set = select("cpu", kernels)
    given = sample(rows.clone(), masked, range(6), kernel_set)
    assert given == sample(rows.clone(), banned, range(6), kernel_set)
    assert all(masks[i][given[i].token_id] for i in masks)


PENALTIES = [
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7, "presence_penalty": 0.37},
    {"frequency_penalty": 0.11},
    {"frequency_penalty": -0.7, "presence_penalty": 1.3, "repetition_penalty": 1.9},
    {"presence_penalty": -0.2, "logit_bias": {3: 0.7, 9: -2.0}},
    {},
]


@pytest.mark.parametrize("last", [3, 9, 12, 14], ids=["of the output", "twice", "of the prompt", "new"])
def test_a_token_that_only_the_device_knows_is_penalised_to_the_bit_as_one_that_is_known(last: int) -> None:
    whole = [
        SampleSpec(SamplingParams(**more), 0, 0, 5, (1,), (12, 5, 12), (3, 9, 9, 6, last))
        if more
        else SampleSpec(SamplingParams(), 0, 0, 5)
        for more in PENALTIES
    ]
    known = [one._replace(output_ids=one.output_ids[:-1]) for one in whole]
    expected, found = logits(len(whole), seed=8), logits(len(whole), seed=8)
    adjust(expected, whole)
    ids = torch.tensor([0, last, 1, 2])
    histories = [row for row, one in enumerate(whole) if one.prompt_ids]
    adjust(found, known, Pending(ids, dict.fromkeys(histories, 1)))
    assert torch.equal(found, expected)
    assert not torch.equal(found, logits(len(whole), seed=8))


def packed(mask: torch.Tensor) -> bytes:
    """Bit i % 8 of byte i // 8 for id i; the bits behind the last id are set, and mean nothing."""
    bits = [*mask.tolist(), *[True] * (-len(mask) % 8)]
    return bytes(
        sum(bit << place for place, bit in enumerate(bits[i : i + 8])) for i in range(0, len(bits), 8)
    )


@pytest.mark.parametrize("kernels", ["cpu", "torch", "reference"])
def test_a_mask_of_one_id_draws_it_with_every_parameter(kernels: str) -> None:
    for token_id in range(VOCAB):
        mask = packed(torch.arange(VOCAB) == token_id)
        for more in ({"temperature": 0}, {"top_k": 1}, {"top_p": 0.01}, {"min_p": 1.0}, {"temperature": 2.0}):
            one = spec(**more)._replace(allowed=mask)
            assert draw(logits(1)[0], one, kernels) == SampledToken(7, token_id)


def test_a_mask_hides_no_broken_logits() -> None:
    row = logits(1)[0]
    row[3] = math.nan
    assert not draw(row, spec()._replace(allowed=packed(torch.arange(VOCAB) == 5))).finite
