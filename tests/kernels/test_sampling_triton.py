"""Triton's sampling draws what the reference draws, for rows of every kind, however the work is cut.

Its weights are float32, the reference's float64. So where a uniform number, or top-p's share, is within the bound of
the table of a border between two tokens, the token of either side is right; everywhere else the ids are equal.
"""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from llmcli_kernels import KernelSet, SamplingBatch
from tests.kernels.bounds import RELATIVE_ERROR
from tests.kernels.interpreter_speed import hasten
from tests.kernels.poison import poison_memory

pytest.importorskip("triton")
hasten()

BOUND = RELATIVE_ERROR["sampling"][torch.float32]
INF = math.inf
JUST_BELOW_ONE = 1 - 2**-53
TEMPERATURES = (1.0, 1e-5, 0.3, 2.5, 100.0)
FILTERS = tuple(itertools.product((0, 1, 7, 200, 10**6), (1.0, 0.999, 0.9, 0.3, 1e-6), (0.0, 0.02, 0.6, 1.0)))


def batch(rows: int, start: int = 0) -> SamplingBatch:
    """Rows of all temperatures and filters in turn; some uniform numbers are the smallest or the largest."""
    chosen = [FILTERS[(start + row) % len(FILTERS)] for row in range(rows)]
    top_k, top_p, min_p = zip(*chosen, strict=True)
    uniforms = torch.rand(rows, dtype=torch.float64)
    uniforms[3::17], uniforms[5::17] = 0.0, JUST_BELOW_ONE
    return SamplingBatch(
        temperature=torch.tensor([TEMPERATURES[row % 5 if row % 3 else 0] for row in range(rows)]),
        top_k=torch.tensor(top_k),
        top_p=torch.tensor(top_p),
        min_p=torch.tensor(min_p),
        uniforms=uniforms,
    )


def assert_drawn_as_by_the_reference(
    triton: KernelSet, reference: KernelSet, logits: Tensor, params: SamplingBatch
) -> None:
    ids, finite = triton.sample(logits, params)
    expected, expected_finite = reference.sample(logits, params)
    assert torch.equal(finite, expected_finite)
    differs = ids != expected
    assert differs.float().mean() <= 0.02
    lowest, highest = expected, expected
    for sign in (-1, 1):
        shifted = replace(params, top_p=(params.top_p.double() + sign * BOUND).float())
        before, after = (
            reference.sample(
                logits, replace(shifted, uniforms=(params.uniforms + step).clamp(0, JUST_BELOW_ONE))
            )[0]
            for step in (-BOUND, BOUND)
        )
        lowest, highest = torch.minimum(lowest, before), torch.maximum(highest, after)
    assert ((lowest <= ids) & (ids <= highest)).all()
    assert (logits.gather(1, ids[:, None])[:, 0] > -INF).all()


def rows_of_logits(rows: int, vocabulary: int) -> Tensor:
    """Peaked, flat, with many ties and bans, in turn."""
    logits = torch.randn(rows, vocabulary) * torch.tensor([1.0, 0.1, 4.0, 30.0]).repeat(rows)[:rows, None]
    logits[1::3] = (logits[1::3] * 2).round() / 2
    logits[2::3, ::2] = -INF
    logits += torch.tensor([0.0, -50.0, 300.0]).repeat(rows)[:rows, None]
    return logits


@pytest.mark.parametrize(
    ("vocabulary", "rows"), [(5, 90), (37, 90), (300, 90), (1024, 90), (1500, 70), (3000, 70)]
)
def test_rows_of_every_kind_draw_what_the_reference_draws(triton, reference, vocabulary: int, rows: int):
    logits = rows_of_logits(rows, vocabulary)
    assert_drawn_as_by_the_reference(triton, reference, logits, batch(rows, start=7 * vocabulary))


def test_a_large_vocabulary_that_is_no_multiple_of_anything(triton, reference):
    logits = torch.randn(4, 50257) * torch.tensor([1.0, 3.0, 1.0, 2.0])[:, None]
    params = SamplingBatch(
        temperature=torch.tensor([1.0, 0.7, 100.0, 1.0]),
        top_k=torch.tensor([0, 50, 0, 40000]),
        top_p=torch.tensor([0.9, 0.95, 0.5, 1.0]),
        min_p=torch.tensor([0.0, 0.0, 0.0, 0.01]),
        uniforms=torch.rand(4, dtype=torch.float64),
    )
    assert_drawn_as_by_the_reference(triton, reference, logits, params)


SHAPES = {
    "equal": torch.zeros(1500),
    "two values": torch.tensor([0.0, -3.0]).repeat(750),
    "one apart": torch.cat((torch.full((1499,), -2.0), torch.zeros(1))),
    "far apart": torch.cat((torch.tensor([0.0, -25.0]), torch.full((1498,), -28.0))),
    "even steps": torch.linspace(40, -40, 1500),
    "halving steps": -(2.0 ** torch.linspace(-20, 10, 1500)),
    "neighbouring floats": (0x40000000 + torch.arange(1500, dtype=torch.int32)).view(torch.float32),
    "both zeros": torch.tensor([-0.0, 0.0, -1.0]).repeat(500),
    "large numbers": torch.tensor([1e37, 9e36, -1e37]).repeat(500),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_odd_distributions_draw_what_the_reference_draws(triton, reference, shape: str):
    logits = SHAPES[shape].to(torch.empty(0).device).expand(16, -1).contiguous()
    params = replace(batch(16), temperature=torch.ones(16))
    assert_drawn_as_by_the_reference(triton, reference, logits, params)


@pytest.mark.parametrize("programs", [1, 10])
def test_the_cut_into_programs_changes_no_id(triton, monkeypatch, programs: int):
    logits, params = rows_of_logits(6, 5000), batch(6, start=44)
    expected, _ = triton.sample(logits, params)
    monkeypatch.setattr("llmcli_kernels.sampling.triton_sampling.PROGRAMS", programs)
    assert torch.equal(triton.sample(logits, params)[0], expected)


@pytest.mark.parametrize("value", [math.nan, INF])
@pytest.mark.parametrize("place", [0, 1023, 1024, 2499])
def test_one_bad_logit_anywhere_flags_its_row_alone(triton, value: float, place: int):
    logits = torch.randn(4, 2500)
    logits[0, place] = logits[2, place] = value
    params = replace(batch(4, start=86), temperature=torch.tensor([0.0, 0.0, 1.0, 1.0]))
    ids, finite = triton.sample(logits, params)
    assert finite.tolist() == [False, True, False, True]
    assert ids[::2].tolist() == [0, 0]


@pytest.mark.parametrize("programs", [1, 1000])
def test_greedy_takes_the_lowest_of_equal_ids_of_one_or_several_chunks(triton, monkeypatch, programs: int):
    monkeypatch.setattr("llmcli_kernels.sampling.triton_sampling.PROGRAMS", programs)
    logits = torch.zeros(3, 5000)
    logits[0, [900, 900 + 1024, 4999]] = logits[1, [2047, 2048]] = 7.0
    logits[2, :4000] = -INF
    params = replace(batch(3), temperature=torch.zeros(3))
    assert triton.sample(logits, params)[0].tolist() == [900, 2047, 4000]


def test_a_uniform_number_that_rounding_made_one_draws_the_last_token(triton):
    uniforms = torch.tensor([JUST_BELOW_ONE], dtype=torch.float64).float()
    logits = torch.tensor([[0.0, 1.0, 0.5, -INF]])
    ids, _ = triton.sample(logits, replace(batch(1), uniforms=uniforms))
    assert ids.tolist() == [2]


def test_tokens_tied_at_min_p_are_all_kept_where_top_p_would_split_tokens_below(triton):
    logits = torch.tensor([[0.0] * 4 + [-1e-4] * 1000 + [-20.0]])
    only = {"top_p": torch.tensor([4.5 / 1004]), "min_p": torch.ones(1)}
    params = replace(batch(1), uniforms=torch.tensor([0.9], dtype=torch.float64), **only)
    assert triton.sample(logits, params)[0].tolist() == [3]


def test_tied_tokens_at_top_p_are_kept_from_the_lowest_id_across_chunks(triton):
    logits = torch.full((2, 3000), -INF)
    logits[:, 500:2700] = 0.0
    kept = 0.75 * 2200
    params = SamplingBatch(
        temperature=torch.ones(2),
        top_k=torch.zeros(2, dtype=torch.int64),
        top_p=torch.full((2,), 0.75),
        min_p=torch.zeros(2),
        uniforms=torch.tensor([JUST_BELOW_ONE, 1000 / kept + 1e-9], dtype=torch.float64),
    )
    assert triton.sample(logits, params)[0].tolist() == [500 + kept - 1, 1500]


def test_what_scratch_memory_held_before_does_not_matter(triton, reference, monkeypatch):
    poison_memory(monkeypatch)
    logits, params = rows_of_logits(12, 2100), batch(12, start=20)
    params.temperature[::4] = 0.0
    logits[5, 7] = math.nan
    ids, finite = triton.sample(logits, params)
    expected, expected_finite = reference.sample(logits, params)
    assert torch.equal(ids, expected)
    assert torch.equal(finite, expected_finite)


def test_parameters_may_be_one_number_expanded_to_all_rows(triton, reference):
    logits = torch.randn(3, 50)
    one = batch(1, start=66)
    expanded = SamplingBatch(
        **{
            name: getattr(one, name).expand(3)
            for name in ("temperature", "top_k", "top_p", "min_p", "uniforms")
        }
    )
    assert torch.equal(triton.sample(logits, expanded)[0], reference.sample(logits, expanded)[0])
