"""Native sampling draws what the reference draws, for rows of every kind and length, with any threads.

Its weights are float32, the reference's float64. So where a uniform number, or top-p's share, is within the bound of
the table of a border between two tokens, the token of either side is right; everywhere else the ids are equal.
"""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from llmcli_kernels import SamplingBatch
from llmcli_kernels.sampling import reference
from tests.kernels.bounds import RELATIVE_ERROR

pytest.importorskip("llvmlite")

from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import words
from llmcli_kernels.native.program import Program
from llmcli_kernels.sampling.native import NativeSample, stage
from llmcli_kernels.sampling.native.slot import slot_bytes

BOUND = RELATIVE_ERROR["sampling"][torch.float32]
INF = math.inf
JUST_BELOW_ONE = 1 - 2**-53
MOST_THREADS = 4
TEMPERATURES = (1.0, 1e-4, 0.3, 2.5, 100.0)
FILTERS = tuple(
    itertools.product((0, 1, 7, 200, 10**6), (1.0, 0.999, 0.9, 0.3, 1e-30), (0.0, 0.02, 0.6, 1.0))
)
LENGTHS = (1, 2, 7, 15, 16, 17, 211, 255, 256, 257, 511, 513, 1500)


def make_params(rows: int, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, uniform=0.5) -> SamplingBatch:
    def column(value, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(value, dtype=dtype).expand(rows)

    return SamplingBatch(
        temperature=column(temperature, torch.float32),
        top_k=column(top_k, torch.int64),
        top_p=column(top_p, torch.float32),
        min_p=column(min_p, torch.float32),
        uniforms=column(uniform, torch.float64),
    )


def batch(rows: int, start: int = 0) -> SamplingBatch:
    """Rows of all temperatures and filters in turn; some uniform numbers are the smallest or the largest."""
    chosen = [FILTERS[(start + row) % len(FILTERS)] for row in range(rows)]
    top_k, top_p, min_p = zip(*chosen, strict=True)
    uniforms = torch.rand(rows, dtype=torch.float64)
    uniforms[3::17], uniforms[5::17] = 0.0, JUST_BELOW_ONE
    temperatures = [TEMPERATURES[row % 5 if row % 3 else 0] for row in range(rows)]
    return make_params(rows, temperatures, top_k, top_p, min_p, uniforms)


def rows_of_logits(rows: int, vocabulary: int) -> Tensor:
    """Peaked, flat, with many ties and bans, in turn."""
    logits = torch.randn(rows, vocabulary) * torch.tensor([1.0, 0.1, 4.0, 30.0]).repeat(rows)[:rows, None]
    logits[1::3] = (logits[1::3] * 2).round() / 2
    logits[2::3, 1::2] = -INF
    logits += torch.tensor([0.0, -50.0, 300.0]).repeat(rows)[:rows, None]
    return logits


def assert_right(host: Host, logits: Tensor, params: SamplingBatch) -> Tensor:
    """The ids are the reference's, or its for numbers that are off by less than the bound. Returns which differ."""
    ids, finite = NativeSample(host)(logits, params)
    expected, expected_finite = reference.sample(logits, params)
    assert torch.equal(finite, expected_finite)
    differs = ids != expected
    if differs.any():
        lowest, highest = expected, expected
        for sign, step in itertools.product((-BOUND, BOUND), repeat=2):
            near = replace(
                params,
                top_p=(params.top_p.double() + sign).float(),
                uniforms=(params.uniforms + step).clamp(0, 1),
            )
            ids_near, _ = reference.sample(logits, near)
            lowest, highest = torch.minimum(lowest, ids_near), torch.maximum(highest, ids_near)
        assert ((lowest <= ids) & (ids <= highest)).all()
        assert (logits.gather(1, ids[:, None])[:, 0] > -INF)[finite].all()
    return differs


@pytest.mark.parametrize("vocabulary", LENGTHS)
def test_rows_of_every_kind_draw_what_the_reference_draws(host: Host, vocabulary: int):
    logits = rows_of_logits(100, vocabulary)
    assert assert_right(host, logits, batch(100, start=7 * vocabulary)).float().mean() <= 0.02


@pytest.mark.parametrize("vocabulary", [32000, 50257])
@pytest.mark.parametrize("spread", [0.1, 1.0, 8.0])
def test_long_rows_draw_what_the_reference_draws(host: Host, vocabulary: int, spread: float):
    logits = torch.randn(20, vocabulary) * spread
    logits[:, ::7] = logits[:, ::7].round()
    assert_right(host, logits, batch(20, start=int(10 * spread)))


SHAPES = {
    "equal": torch.zeros(1500),
    "two values": torch.tensor([0.0, -3.0]).repeat(750),
    "one apart": torch.cat((torch.full((1499,), -2.0), torch.zeros(1))),
    "far apart": torch.cat((torch.tensor([0.0, -25.0]), torch.full((1498,), -28.0))),
    "even steps": torch.linspace(40, -40, 1500),
    "halving steps": -(2.0 ** torch.linspace(-20, 10, 1500)),
    "neighbouring floats": (0x40000000 + torch.arange(1500, dtype=torch.int32)).view(torch.float32),
    "neighbouring floats, descending": (0x40000000 - torch.arange(1500, dtype=torch.int32)).view(
        torch.float32
    ),
    "neighbours near zero, mixed": torch.arange(1500) * 7919 % 1500 * 2.0**-50,
    "both zeros": torch.tensor([-0.0, 0.0, -1.0]).repeat(500),
    "large numbers": torch.tensor([1e37, 9e36, -1e37]).repeat(500),
    "the largest numbers": torch.tensor([1.0, -1.0]).repeat(750) * torch.finfo(torch.float32).max,
    "the lowest number": torch.full((1500,), torch.finfo(torch.float32).min),
    "few above -inf": torch.cat((torch.tensor([0.5, -INF, 0.0]), torch.full((1497,), -INF))),
    "sharing out half of the weight": torch.cat((torch.zeros(1), torch.full((1499,), -math.log(1499)))),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_odd_distributions_draw_what_the_reference_draws(host: Host, shape: str):
    logits = SHAPES[shape].expand(100, -1).contiguous()
    assert_right(host, logits, replace(batch(100), temperature=torch.ones(100)))


# With and without many ties; float64 weights tell numbers from each other that are not much smaller than these.
LOGITS = st.one_of(
    st.integers(-80, 80).map(lambda n: n / 8),
    st.floats(-30, 30, width=32).map(lambda x: x if abs(x) > 2**-20 else 0.0),
    st.just(-INF),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    row=st.lists(LOGITS, min_size=1, max_size=600),
    uniform=st.one_of(st.floats(0, JUST_BELOW_ONE), st.sampled_from([0.0, 0.25, 0.5, JUST_BELOW_ONE])),
    temperature=st.one_of(st.sampled_from([0.0, 1e-4, 1.0, 100.0]), st.floats(0.0625, 5, width=32)),
    top_k=st.one_of(st.integers(0, 40), st.integers(0, 700)),
    top_p=st.one_of(st.floats(0, 1, width=32), st.sampled_from([1.0, 0.5, 0.25])),
    min_p=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(2**-20, 1, width=32)),
)
def test_any_row_draws_what_the_reference_draws(host: Host, row: list[float], **params):
    assert_right(host, torch.tensor([row]), make_params(1, **params))


@pytest.mark.parametrize("vocabulary", [1, 7, 16, 211, 32000])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_one_bad_logit_anywhere_flags_its_row_alone(host: Host, vocabulary: int, temperature: float):
    bad = itertools.product((math.nan, INF), {0, vocabulary // 2, vocabulary - 1})
    cases = [(value, place) for value, place in bad]
    logits = torch.randn(2 * len(cases) + 1, vocabulary)
    for row, (value, place) in enumerate(cases):
        logits[2 * row, place] = value
    logits[-1] = -INF
    ids, finite = NativeSample(host)(logits, make_params(len(logits), temperature, top_k=3, top_p=0.9))
    assert finite.tolist() == [False, True] * len(cases) + [False]
    assert (ids[~finite] == 0).all()


@pytest.mark.parametrize("vocabulary", [1, 7, 211, 4096, 32000])
def test_greedy_takes_the_lowest_of_the_largest_wherever_it_is(host: Host, vocabulary: int):
    places = sorted({0, vocabulary // 3, vocabulary // 2, vocabulary - 1})
    logits = torch.randn(2 * len(places), vocabulary).clamp(max=5)
    for row, place in enumerate(places * 2):
        logits[row, place] = 7.0
        logits[row, -1] = 7.0
    ids, finite = NativeSample(host)(logits, make_params(len(logits), temperature=0.0))
    assert ids.tolist() == places * 2
    assert finite.all()


@pytest.mark.parametrize("top_k", [1, 3, 2200, 10**6, 2**62])
def test_tied_tokens_at_top_p_are_kept_from_the_lowest_id(host: Host, top_k: int):
    logits = torch.full((2, 3000), -INF)
    logits[:, 500:2700] = 0.0
    kept = 0.75 * 2200
    uniforms = [JUST_BELOW_ONE, 1000 / kept + 1e-9]
    params = make_params(2, top_k=top_k, top_p=0.75, uniform=uniforms)
    assert NativeSample(host)(logits, params)[0].tolist() == [500 + kept - 1, 1500]


def test_tokens_tied_at_min_p_are_all_kept_where_top_p_would_split_tokens_below(host: Host):
    logits = torch.tensor([[0.0] * 4 + [-1e-4] * 1000 + [-20.0]])
    params = make_params(1, top_p=4.5 / 1004, min_p=1.0, uniform=0.9)
    assert NativeSample(host)(logits, params)[0].tolist() == [3]


def test_min_p_is_exact(host: Host):
    shares = torch.rand(200, dtype=torch.float64).clamp(min=1e-6).float()
    logits = torch.stack([torch.zeros(200), shares.double().log().float()], dim=1)
    kept = torch.exp(logits[:, 1].double()) >= shares.double()
    ids, _ = NativeSample(host)(logits, make_params(200, min_p=shares, uniform=JUST_BELOW_ONE))
    assert torch.equal(ids, kept.long())
    assert 0 < kept.sum() < 200


def test_a_temperature_that_has_no_inverse_takes_the_largest(host: Host):
    logits = torch.randn(3, 100)
    params = make_params(3, temperature=[1e-30, 1e-40, 1e-45], top_p=0.9, uniform=0.7)
    assert torch.equal(NativeSample(host)(logits, params)[0], logits.argmax(dim=1))


@pytest.mark.parametrize("vocabulary", [1, 17, 1500, 32000])
@pytest.mark.parametrize("temperature", [math.nan, -1.0, -INF, -1e-30])
def test_a_temperature_that_is_not_above_zero_takes_the_largest(host: Host, vocabulary: int, temperature):
    logits = rows_of_logits(100, vocabulary)
    params = replace(batch(100), temperature=torch.full((100,), temperature))
    ids, finite = NativeSample(host)(logits, params)
    assert finite.any()
    assert torch.equal(ids[finite], logits.argmax(dim=1)[finite])


@pytest.mark.parametrize("vocabulary", [1, 17, 1500, 32000])
def test_at_an_infinite_temperature_all_tokens_that_are_not_banned_are_alike(host: Host, vocabulary: int):
    logits = rows_of_logits(100, vocabulary)
    ids, finite = NativeSample(host)(logits, replace(batch(100), temperature=torch.full((100,), INF)))
    assert ((ids >= 0) & (ids < vocabulary)).all()
    assert (logits.gather(1, ids[:, None])[:, 0] > -INF)[finite].all()


@pytest.mark.parametrize("vocabulary", [1, 17, 1500, 32000])
@pytest.mark.parametrize(
    ("uniform", "inside"),
    [(-1e-9, 0.0), (-INF, 0.0)] + [(u, JUST_BELOW_ONE) for u in (1.0, 7.0, INF, math.nan)],
)
def test_a_uniform_number_outside_counts_as_the_nearest_inside(host: Host, vocabulary: int, uniform, inside):
    logits, params = rows_of_logits(100, vocabulary), batch(100)
    ids, expected = (
        NativeSample(host)(logits, replace(params, uniforms=torch.full((100,), u, dtype=torch.float64)))[0]
        for u in (uniform, inside)
    )
    assert torch.equal(ids, expected)


@pytest.mark.parametrize("name", ["top_k", "top_p", "min_p"])
@pytest.mark.parametrize("value", [math.nan, -INF, -3.0, INF])
def test_no_filter_leads_out_of_the_row(host: Host, name: str, value: float):
    logits, params = rows_of_logits(100, 1500), batch(100)
    changed = (
        torch.full((100,), -(2**62) if value < 0 else 2**62) if name == "top_k" else torch.full((100,), value)
    )
    ids, _ = NativeSample(host)(logits, replace(params, **{name: changed}))
    assert ((ids >= 0) & (ids < 1500)).all()


@pytest.mark.parametrize("vocabulary", [211, 32000])
def test_a_row_draws_the_same_in_any_batch_with_any_threads_on_both_machines(
    host: Host, code_folder: Path, vocabulary: int
):
    logits, params = rows_of_logits(37, vocabulary), batch(37, start=3)
    threads, (expected, _) = torch.get_num_threads(), NativeSample(Host(code_folder))(logits, params)
    sample = NativeSample(host)
    try:
        for number in range(1, MOST_THREADS + 1):
            torch.set_num_threads(number)
            for rows in (slice(0, 37), slice(7, 8), slice(3, 30)):
                names = ("temperature", "top_k", "top_p", "min_p", "uniforms")
                part = SamplingBatch(*(getattr(params, name)[rows] for name in names))
                assert torch.equal(sample(logits[rows], part)[0], expected[rows])
    finally:
        torch.set_num_threads(threads)


def test_what_its_memory_held_before_does_not_matter(host: Host):
    sample = NativeSample(host)
    for vocabulary in (3000, 5, 1009, 300, 3000):
        logits, params = rows_of_logits(30, vocabulary), batch(30, start=vocabulary)
        expected = NativeSample(host)(logits, params)[0]
        assert torch.equal(sample(logits, params)[0], expected)


def test_a_program_follows_the_number_of_rows_and_stays_within_its_memory(host: Host):
    vocabulary, slots, guard = 1001, 2, 4096
    logits, params = rows_of_logits(6, vocabulary), batch(6, start=40)
    params = SamplingBatch(
        params.temperature.contiguous(),
        params.top_k,
        params.top_p,
        params.min_p.contiguous(),
        params.uniforms,
    )
    expected = NativeSample(host)(logits, params)[0]
    ids, finite, rows = torch.empty(6, dtype=torch.int64), torch.empty(6, dtype=torch.bool), words(0)
    memory = torch.full((slots * slot_bytes(vocabulary) + guard,), 0x5A, dtype=torch.uint8)
    arrays = (
        logits,
        ids,
        finite,
        params.temperature,
        params.top_k,
        params.top_p,
        params.min_p,
        params.uniforms,
    )
    addresses = tuple(array.data_ptr() for array in arrays)
    program = Program(host, [stage(host, addresses, rows.data_ptr(), vocabulary, memory.data_ptr(), slots)])
    for number in (2, 6, 1):
        rows[0] = number
        ids.fill_(-1)
        program.run()
        assert torch.equal(ids[:number], expected[:number])
        assert (ids[number:] == -1).all()
    assert (memory[-guard:] == 0x5A).all()


@pytest.mark.parametrize("vocabulary", [1, 16, 17, 600])
@pytest.mark.parametrize("top_k", [0, 1, 2])
def test_lists_of_all_tokens_fit(host: Host, vocabulary: int, top_k: int):
    """All logits are equal: each list is as long as it can be."""
    logits, kept = torch.zeros(5, vocabulary), math.ceil(0.999 * vocabulary)
    uniforms = torch.tensor([0.0, 0.3, 0.51, 0.99, JUST_BELOW_ONE], dtype=torch.float64)
    ids, _ = NativeSample(host)(logits, make_params(5, top_k=top_k, top_p=0.999, uniform=uniforms))
    assert ids.tolist() == [math.floor(uniform * kept) for uniform in uniforms.tolist()]
