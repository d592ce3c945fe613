"""What a captured graph is given: how many rows, which numbers, whose blocks; and that it changes no answer."""

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from llmcli.runtime.decode_graphs import (
    BUCKETS,
    RowNumbers,
    Run,
    TableRows,
    buckets_up_to,
    is_decode,
    row_numbers,
)
from llmcli.runtime.forward import LastDrawn
from llmcli.runtime.runner import Runner
from llmcli.runtime.sampler import uniform
from llmcli.sampling import SamplingParams
from llmcli.scheduler.step import UNKNOWN, SampledToken, SampleSpec, SequenceSlice, Step
from llmcli_kernels import AttentionBatch
from tests.tiny_models import GREEDY, awq_checkpoints, base_config, load_runner

DRAWN = SampleSpec(
    SamplingParams(temperature=0.7, top_k=9, top_p=0.8, min_p=0.1), seed=3, choice=1, position=4
)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("rows", "largest"), [(1, 1), (2, 2), (3, 4), (5, 8), (9, 12), (17, 24), (64, 64), (256, 256), (999, 256)]
)
def test_graphs_are_made_up_to_the_next_larger_number_of_rows(rows: int, largest: int) -> None:
    assert buckets_up_to(rows) == tuple(bucket for bucket in BUCKETS if bucket <= largest)


def test_a_step_with_a_prompt_or_without_a_draw_is_no_decode() -> None:
    decode = SequenceSlice(0, 4, (9,), (0, 1), GREEDY)
    prompt = SequenceSlice(1, 0, (9, 9), (2,), GREEDY)
    chunk = SequenceSlice(2, 0, (9,), (3,), None)
    assert is_decode(Step((decode,)))
    assert not is_decode(Step((decode, prompt)))
    assert not is_decode(Step((decode, chunk)))


def test_two_rows_of_four_worked_out_by_hand() -> None:
    slices = (
        SequenceSlice(5, 8, (20,), (5, 1, 7), GREEDY),
        SequenceSlice(6, 2, (UNKNOWN,), (4,), DRAWN, late=True),
    )
    last = LastDrawn(torch.tensor([0, 0, 0]), {5: 0, 6: 2})
    numbers = RowNumbers(*row_numbers(slices, (GREEDY, DRAWN), 4, block_size=4, last=last))  # type: ignore[arg-type]
    assert numbers.token_ids.tolist() == [20, UNKNOWN, 0, 0]
    assert numbers.positions.tolist() == [8, 2, 0, 0]
    assert numbers.slots.tolist() == [28, 18, 0, 0]
    assert numbers.late.tolist() == [False, True, False, False]
    assert numbers.sources.tolist() == [0, 2, 0, 0]
    assert numbers.kv_lens.tolist() == [9, 3, 0, 0]
    assert numbers.temperature.tolist() == pytest.approx([0, 0.7, 0, 0])
    assert numbers.top_k.tolist() == [0, 9, 0, 0]
    assert numbers.uniforms.tolist() == [0, uniform(3, 4, 1), 0, 0]


Tables = list[list[tuple[int, ...]]]


@st.composite
def steps_of_tables(draw: st.DrawFn) -> Tables:
    """Block tables of steps that follow each other: sequences grow, leave, join, and come back with other blocks."""
    source = draw(st.randoms(use_true_random=False))
    held: list[tuple[int, ...]] = []
    steps = []
    for _ in range(draw(st.integers(1, 12))):
        held = [blocks for blocks in held if source.random() > 0.15]
        held = [
            (*blocks, source.randrange(99)) if len(blocks) < 6 and source.random() < 0.3 else blocks
            for blocks in held
        ]
        while len(held) < 5 and source.random() < 0.5:
            held.append(tuple(source.randrange(99) for _ in range(source.randint(1, 6))))
        steps.append(list(held))
    return steps


def slices_of(tables: Sequence[tuple[int, ...]]) -> list[SequenceSlice]:
    return [SequenceSlice(n, 0, (0,), blocks, GREEDY) for n, blocks in enumerate(tables)]


@given(steps_of_tables())
def test_every_row_begins_with_the_blocks_of_its_sequence(steps: Tables) -> None:
    rows = TableRows(5, 6, CPU)
    for tables in steps:
        rows.write(slices_of(tables))
        for row, blocks in enumerate(tables):
            assert tuple(rows.on_device[row, : len(blocks)].tolist()) == blocks


def test_only_what_differs_is_written() -> None:
    rows = TableRows(3, 4, CPU)
    assert rows.changes(slices_of([(1, 2), (3,), (4, 5)])) == ([0, 1, 4, 8, 9], [1, 2, 3, 4, 5])
    assert rows.changes(slices_of([(1, 2), (3,), (4, 5)])) == ([], [])
    assert rows.changes(slices_of([(1, 2, 6), (3,)])) == ([2], [6])
    assert rows.changes(slices_of([(4, 5)])) == ([0, 1], [4, 5])


OPTIONS: dict[str, Any] = {"dtype": "float16", "max_model_len": 48, "max_num_seqs": 4, "block_size": 4}
SIZES = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
}
PROMPTS = ((7, 8, 9, 10, 11), (30, 31), (50, 51, 52), (80, 81))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("triton")
    return awq_checkpoints(tmp_path_factory.mktemp("model"), base_config(**SIZES), "gemm", 32)[0]


def make(folder: Path, *, graphs: bool) -> Runner:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_runner(folder, "triton", device=device, graphs=graphs, **OPTIONS)


def blocks_of(seq_id: int, end: int) -> tuple[int, ...]:
    return tuple(range(12 * seq_id, 12 * seq_id + -(-end // OPTIONS["block_size"])))


def specs_at(position: int) -> list[SampleSpec]:
    """Greedy, drawn at random, and two with what is done to logits outside of a graph."""
    # Two tokens take turns, as the one that was drawn last is penalised.
    special = SamplingParams(temperature=0, logit_bias={5: 90.0, 6: 90.0}, frequency_penalty=2.0, logprobs=2)
    odd_ids = bytes([0b10101010] * 38)
    return [
        SampleSpec(SamplingParams(temperature=0), 0, 0, position),
        SampleSpec(SamplingParams(temperature=1.5, top_p=0.9), 1, 0, position),
        SampleSpec(special, 2, 0, position, (1, 2), (3,), (4,)),
        SampleSpec(SamplingParams(temperature=0), 0, 0, position, allowed=odd_ids),
    ]


def tokens_of(runner: Runner, *, special: bool, late: bool, count: int) -> list[tuple[SampledToken, ...]]:
    """Prompts, then steps of one token each, known or still on the device."""
    kinds = 4 if special else 2
    prompts = PROMPTS[:kinds]
    drawn = [
        runner.run(
            Step(
                tuple(
                    SequenceSlice(n, 0, prompt, blocks_of(n, len(prompt)), spec)
                    for n, (prompt, spec) in enumerate(zip(prompts, specs_at(0), strict=False))
                )
            )
        ).tokens
    ]
    for position in range(1, count):
        slices = []
        for n, spec in enumerate(specs_at(position)[:kinds]):
            start = len(PROMPTS[n]) + position - 1
            token_id = UNKNOWN if late else drawn[-1][n].token_id
            if spec.params.uses_history and not late:
                spec = spec._replace(output_ids=(*spec.output_ids, token_id))
            slices.append(SequenceSlice(n, start, (token_id,), blocks_of(n, start + 1), spec, late))
        drawn.append(runner.run(Step(tuple(slices))).tokens)
    return drawn


@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul:RuntimeWarning")
@pytest.mark.parametrize(
    "special", [False, True], ids=["plain", "with penalties, log-probabilities and a form"]
)
def test_graphs_draw_what_single_operations_draw(folder: Path, special: bool) -> None:
    expected = tokens_of(make(folder, graphs=False), special=special, late=False, count=4)
    for late in (False, True):
        assert tokens_of(make(folder, graphs=True), special=special, late=late, count=4) == expected
    if special:
        assert all(tokens[3].token_id % 2 for tokens in expected)
        drawn = [tokens[2].token_id for tokens in expected]
        assert set(drawn) == {5, 6}
        assert drawn[:-1] != drawn[1:]


def test_a_mask_may_come_after_the_graph_was_started(folder: Path) -> None:
    odd_ids = GREEDY._replace(allowed=bytes([0b10101010] * 38))
    plain, masked = (Step((SequenceSlice(0, 0, (9,), (0,), spec),)) for spec in (GREEDY, odd_ids))
    expected = make(folder, graphs=False).run(masked)
    assert expected.tokens[0].token_id % 2
    assert make(folder, graphs=True).begin(plain)(masked)() == expected


def test_what_a_graph_reads_outlives_the_function_that_was_captured(folder: Path) -> None:
    runner = make(folder, graphs=True)
    assert runner._graphs is not None
    read: list[weakref.ref[Any]] = []

    def capture(run: Run) -> Run:
        output = run()
        cells = [cell.cell_contents for cell in run.__closure__ or ()]
        read.extend(weakref.ref(one) for one in cells if isinstance(one, Tensor | AttentionBatch))
        return lambda: output

    runner._graphs._capture = capture
    runner.run(Step((SequenceSlice(0, 0, (9,), (0,), GREEDY),)))
    assert read
    assert all(one() is not None for one in read)


def test_a_token_may_come_from_a_step_of_more_rows_than_any_graph_has(folder: Path) -> None:
    drawn = []
    for late in (False, True):
        runner = load_runner(
            folder,
            "triton",
            device="cuda" if torch.cuda.is_available() else "cpu",
            graphs=True,
            **OPTIONS | {"max_num_seqs": 300, "max_num_batched_tokens": 300},
        )
        assert runner._graphs is not None
        runner._graphs._buckets = (1,)  # the others take long in the interpreter
        runner._last = LastDrawn(torch.arange(300, device=runner.device) % 290, {0: 299})
        part = SequenceSlice(0, 0, (UNKNOWN if late else 299 % 290,), (0,), GREEDY, late)
        drawn.append(runner.run(Step((part,))).tokens)
    assert drawn[0] == drawn[1]


@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul:RuntimeWarning")
def test_rows_that_fill_up_write_nothing(folder: Path) -> None:
    runner = make(folder, graphs=True)
    for layer in runner.cache.layers:
        layer.keys.fill_(float("nan"))
        layer.values.fill_(float("nan"))
    slices = [SequenceSlice(n, 0, (9 + n,), (1 + n,), GREEDY) for n in range(3)]
    assert all(token.finite for token in runner.run(Step(tuple(slices))).tokens)
    for layer in runner.cache.layers:
        for part in (layer.keys, layer.values):
            written = ~part.isnan().all(dim=3).all(dim=1)  # [blocks, block size]
            assert written.nonzero().tolist() == [[1, 0], [2, 0], [3, 0]]
