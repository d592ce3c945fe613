"""Sampling: filters by hand and against transformers' warpers, draws by enumerating the uniform numbers."""

import math

import pytest
import torch
from torch import Tensor
from transformers.generation.logits_process import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from llmcli_kernels import KernelSet, SamplingBatch
from tests.kernels.interpreter_speed import interpreted

INF = math.inf


def make_params(rows: int, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, uniform=0.5) -> SamplingBatch:
    def column(value, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(value, dtype=dtype).expand(rows).clone()

    return SamplingBatch(
        temperature=column(temperature, torch.float32),
        top_k=column(top_k, torch.int64),
        top_p=column(top_p, torch.float32),
        min_p=column(min_p, torch.float32),
        uniforms=column(uniform, torch.float64),
    )


def num_points(kernels: KernelSet, wanted: int = 400) -> int:
    """How many rows a test can afford: Triton's interpreter takes 10 to 40 ms for each."""
    return min(wanted, 20) if kernels.name == "triton" and interpreted() else wanted


def draws(kernels: KernelSet, logits: Tensor, points: int | None = None, **params) -> Tensor:
    """Share of an even grid of uniform numbers that gives each token: its probability, up to 1 / points."""
    points = points or num_points(kernels)
    grid = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    rows = logits.float().expand(points, -1).contiguous()
    ids, finite = kernels.sample(rows, make_params(points, uniform=grid, **params))
    assert finite.all()
    return torch.bincount(ids, minlength=logits.numel()) / points


def assert_drawn(kernels: KernelSet, logits: Tensor, expected: Tensor, wanted: int = 400, **params) -> None:
    """The shares are the expected probabilities, as far as the grid of uniform numbers tells."""
    points = num_points(kernels, wanted)
    shares = draws(kernels, logits, points, **params)
    assert ((shares - expected).abs() <= 1 / points + 1e-6).all()


def log(*probabilities: float) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_temperature_zero_takes_the_largest_and_the_lowest_id_among_equals(kernels: KernelSet):
    logits = torch.tensor([[1.0, 3.0, 3.0, -INF], [5.0, 5.0, 5.0, 5.0], [-INF, -9.0, -8.0, -8.0]])
    ids, finite = kernels.sample(logits, make_params(3, temperature=0.0, uniform=0.99))
    assert ids.tolist() == [1, 0, 2]
    assert finite.tolist() == [True, True, True]


def test_rows_that_are_not_finite_are_flagged_and_the_others_are_not(kernels: KernelSet):
    logits = torch.tensor([[0.0, math.nan], [0.0, INF], [-INF, -INF], [-INF, 1.0], [math.nan, INF]])
    for temperature in (0.0, 1.0):
        for extra in ({}, {"top_k": 1}, {"top_p": 0.5}, {"min_p": 0.1}):
            ids, finite = kernels.sample(logits, make_params(5, temperature=temperature, **extra))
            assert ids.tolist() == [0, 0, 0, 1, 0]
            assert finite.tolist() == [False, False, False, True, False]


def test_draws_follow_the_distribution(kernels: KernelSet):
    assert_drawn(kernels, log(0.1, 0.5, 0.0, 0.15, 0.25), torch.tensor([0.1, 0.5, 0.0, 0.15, 0.25]))


def test_draws_run_through_the_vocabulary_in_order(kernels: KernelSet):
    logits = log(0.25, 0.25, 0.25, 0.25).float().expand(6, -1).contiguous()
    uniforms = [0.0, 0.2499, 0.25, 0.5, 0.7499, 1 - 2**-53]
    ids, _ = kernels.sample(logits, make_params(6, uniform=uniforms))
    assert ids.tolist() == [0, 0, 1, 2, 2, 3]


def test_temperature_divides_the_logits(kernels: KernelSet):
    assert_drawn(kernels, log(0.2, 0.8), torch.tensor([0.04, 0.64]) / 0.68, temperature=0.5)


def test_top_k_keeps_k_tokens_and_those_equal_to_the_last(kernels: KernelSet):
    assert_drawn(kernels, log(0.1, 0.4, 0.2, 0.3), torch.tensor([0, 4, 0, 3]) / 7, top_k=2)
    assert_drawn(kernels, log(0.2, 0.3, 0.2, 0.3), torch.tensor([0.2, 0.3, 0.2, 0.3]), top_k=3)
    assert draws(kernels, log(0.1, 0.4, 0.2, 0.3), top_k=1).tolist() == [0, 1, 0, 0]


def test_top_p_keeps_the_smallest_set_that_reaches_it(kernels: KernelSet):
    probabilities = log(0.125, 0.5, 0.125, 0.25)
    assert draws(kernels, probabilities, top_p=0.5).tolist() == [0, 1, 0, 0]
    assert_drawn(kernels, probabilities, torch.tensor([0, 2, 0, 1]) / 3, top_p=0.51)
    assert_drawn(kernels, probabilities, torch.tensor([1, 4, 0, 2]) / 7, top_p=0.8)
    assert draws(kernels, probabilities, top_p=1e-6).tolist() == [0, 1, 0, 0]


def test_min_p_is_relative_to_the_most_likely(kernels: KernelSet):
    probabilities = log(0.5, 0.24, 0.26)
    assert_drawn(kernels, probabilities, torch.tensor([50, 0, 26]) / 76, min_p=0.5)
    assert draws(kernels, probabilities, min_p=1.0).tolist() == [1, 0, 0]


def test_top_p_counts_what_top_k_left(kernels: KernelSet):
    probabilities = log(0.4, 0.2, 0.2001, 0.1999)
    expected = torch.tensor([400.0, 0, 200.1, 0]) / 600.1
    assert_drawn(kernels, probabilities, expected, top_k=2, top_p=0.67)
    assert draws(kernels, probabilities, top_k=2, top_p=0.66).tolist() == [1, 0, 0, 0]


def test_banned_tokens_are_never_drawn(kernels: KernelSet):
    logits = torch.tensor([-INF, 1.0, -INF, 1.0, -INF])
    for extra in ({}, {"top_k": 4}, {"top_p": 0.999}, {"min_p": 1e-9}, {"top_k": 4, "top_p": 0.9}):
        assert draws(kernels, logits, **extra).tolist() == [0, 0.5, 0, 0.5, 0]
    for uniform in (0.0, 1 - 2**-53):
        ids, _ = kernels.sample(logits[None], make_params(1, uniform=uniform))
        assert ids.item() in (1, 3)


FILTERS = [
    {"top_k": 7},
    {"top_p": 0.9},
    {"min_p": 0.02},
    {"top_k": 50, "top_p": 0.8},
    {"top_k": 50, "min_p": 0.05},
    {"top_p": 0.95, "min_p": 0.05},
    {"top_k": 20, "top_p": 0.9, "min_p": 0.1, "temperature": 0.7},
    {"top_p": 0.999, "temperature": 2.0},
]


@pytest.mark.parametrize("filters", FILTERS)
def test_kept_tokens_and_shares_are_those_of_transformers(kernels: KernelSet, filters: dict):
    logits = torch.randn(1, 300) * 2
    scores = logits / filters.get("temperature", 1.0)
    if "top_k" in filters:
        scores = TopKLogitsWarper(filters["top_k"])(None, scores)
    if "top_p" in filters:
        scores = TopPLogitsWarper(filters["top_p"])(None, scores)
    if "min_p" in filters:
        scores = MinPLogitsWarper(filters["min_p"])(None, scores)
    expected = torch.softmax(scores[0].double(), dim=0)
    assert_drawn(kernels, logits[0], expected, wanted=1500, **filters)


@pytest.mark.parametrize("vocabulary", [1, 2, 37, 5000, 32000])
@pytest.mark.parametrize("spread", [0.1, 1.0, 8.0])
def test_cpu_draws_what_the_reference_draws(cpu, reference, vocabulary: int, spread: float):
    logits = torch.randn(24, vocabulary) * spread
    logits[:, ::7] = logits[:, ::7].round()
    logits[:, 1::11] = -INF
    params = SamplingBatch(
        temperature=torch.tensor([0.0, 0.3, 1.0, 2.0]).repeat(6),
        top_k=torch.tensor([0, 0, 1, 5, 200, 10**6]).repeat(4),
        top_p=torch.tensor([1.0, 0.9, 0.5, 0.999]).repeat_interleave(6),
        min_p=torch.tensor([0.0, 0.0, 0.05]).repeat(8),
        uniforms=torch.rand(24, dtype=torch.float64),
    )
    assert torch.equal(cpu.sample(logits, params)[0], reference.sample(logits, params)[0])


def test_equal_tokens_at_the_edge_of_top_p_are_kept_from_the_lowest_id(kernels: KernelSet):
    shares = draws(kernels, torch.zeros(512), points=128, top_p=0.25)
    assert torch.equal(shares, (torch.arange(512) < 128) / 128)


def test_a_row_draws_the_same_alone_and_in_any_batch(kernels: KernelSet):
    logits, uniforms = torch.randn(9, 1003) * 3, torch.rand(9, dtype=torch.float64)
    settings = {
        "temperature": torch.tensor([1.0, 0.0, 0.7] * 3),
        "top_k": torch.tensor([0, 0, 30] * 3),
        "top_p": torch.tensor([1.0, 1.0, 0.9, 0.8, 1.0, 1.0, 1.0, 0.5, 0.99]),
        "min_p": torch.tensor([0.0] * 8 + [0.1]),
    }
    together, _ = kernels.sample(logits, SamplingBatch(uniforms=uniforms, **settings))
    for row in range(9):
        one = {name: value[row : row + 1] for name, value in settings.items()}
        alone, _ = kernels.sample(
            logits[row : row + 1], SamplingBatch(uniforms=uniforms[row : row + 1], **one)
        )
        assert alone.item() == together[row]


def test_logits_are_left_as_they_were(kernels: KernelSet):
    logits = torch.randn(3, 50)
    before = logits.clone()
    kernels.sample(logits, make_params(3, temperature=0.5, top_k=5, top_p=0.5, min_p=0.1))
    assert torch.equal(logits, before)


def test_single_precision_uniforms_are_accepted(kernels: KernelSet):
    params = make_params(1)
    params = SamplingBatch(
        params.temperature, params.top_k, params.top_p, params.min_p, params.uniforms.float()
    )
    assert kernels.sample(log(0.4, 0.2, 0.4).float()[None], params)[0].tolist() == [1]


def test_no_rows_give_no_ids(kernels: KernelSet):
    ids, finite = kernels.sample(torch.empty(0, 5), make_params(0))
    assert (ids.shape, finite.shape) == ((0,), (0,))


def test_unfit_arguments_are_named(kernels: KernelSet):
    with pytest.raises(ValueError, match="2 rows of logits, parameters for"):
        kernels.sample(torch.zeros(2, 3), make_params(1))
    with pytest.raises(ValueError, match="float64"):
        kernels.sample(torch.zeros(1, 3, dtype=torch.float64), make_params(1))
    with pytest.raises(ValueError, match=r"top_k must be torch\.int64"):
        SamplingBatch(*[torch.ones(1)] * 5)
