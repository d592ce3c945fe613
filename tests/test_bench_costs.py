"""`scripts/bench_costs.py`: its rooflines against bytes counted by hand, its points, and that all of them are told."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from llmcli.config import EngineConfig, ResolvedConfig
from llmcli.hardware import read_hardware_facts
from llmcli.model.facts import read_model_facts
from llmcli.plan import resolve
from llmcli.scheduler.step import SequenceSlice, Step
from llmcli_kernels import select
from llmcli_kernels.decoder import no_fusion
from scripts.bench_costs import fill, main
from scripts.costs.figures import Figure, Round, table
from scripts.costs.points import GREEDY, Plan, Point, fitting
from scripts.costs.roofline import Roofline
from scripts.costs.timed_runner import TimedRunner, Timing
from tests.tiny_models import (
    awq_checkpoints,
    base_config,
    load_runner,
    save_checkpoint,
    stored,
    tiny_chat_model,
    write_tokenizer,
)

LAYERS = 3
DENSE_LAYER = (240 * 80 + 80 * 80 + 400 * 80 + 80 * 200) * 4  # qkv, o, gate and up, down; float32
DENSE_HEAD = 300 * 80 * 4
DENSE_KV = LAYERS * 2 * 5 * 16 * 4  # of a token: keys and values, heads, size, bytes
AWQ_CONFIG = base_config(
    hidden_size=256,
    intermediate_size=384,
    num_hidden_layers=2,
    num_attention_heads=8,
    num_key_value_heads=2,
    head_dim=32,
    vocab_size=300,
)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_model(tmp_path_factory.mktemp("dense"), num_hidden_layers=LAYERS)


@pytest.fixture(scope="module")
def awq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose layers run as one native program."""
    pytest.importorskip("llvmlite")
    folder, _ = awq_checkpoints(tmp_path_factory.mktemp("awq"), AWQ_CONFIG, "gemm", 128)
    config = json.loads((folder / "config.json").read_text())
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in stored(folder).items()}
    write_tokenizer(save_checkpoint(folder, config, tensors), 300)
    if select("cpu").fuse_decoder is no_fusion:
        pytest.skip("there are no native kernels for this machine")
    return folder


def config_of(folder: Path, **options: Any) -> ResolvedConfig:
    config = EngineConfig(device="cpu", **options)
    return resolve(config, read_model_facts(folder), read_hardware_facts())


def measured(folder: Path, out: Path, *options: str) -> dict[str, Any]:
    path = out / "result.json"
    assert main([str(folder), "--repeats", "2", "--json", str(path), *options]) == 0
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return document


def test_the_bytes_of_a_dense_model_are_those_counted_by_hand(dense: Path, tmp_path: Path) -> None:
    found = measured(dense, tmp_path)
    assert [(p["batch"], p["context"], p["tokens"]) for p in found["contexts"]] == [(1, 128, 1)]
    weights = LAYERS * DENSE_LAYER + DENSE_HEAD
    assert found["contexts"][0]["read_bytes"] == weights + 128 * DENSE_KV
    assert [p["read_bytes"] for p in found["batches"]] == [
        weights + batch * 128 * DENSE_KV for batch in (1, 2, 4, 8, 16, 32, 64)
    ]
    assert found["prompts"][0]["read_bytes"] == weights + 128 * DENSE_KV


def test_the_bytes_of_a_4_bit_model_are_those_counted_by_hand(awq: Path, tmp_path: Path) -> None:
    sizes = ((384, 256), (256, 256), (768, 256), (256, 384))
    # half a byte a weight, a float16 scale and a byte of zero a group of 128, and a bias in bfloat16 for each output
    layer = sum(n * k // 2 + n * k // 128 * 3 + n * 2 for n, k in sizes)
    head = 320 * (256 + 4)  # int8 with a float32 scale a row, filled up to whole panels of 64 rows
    kv = 2 * 2 * 2 * 32 * 2  # layers, keys and values, heads, size, bytes
    point = measured(awq, tmp_path)["contexts"][0]
    assert point["read_bytes"] == 2 * layer + head + 128 * kv


def test_a_prompt_reads_the_weights_in_every_step_and_the_head_in_the_last(dense: Path) -> None:
    steps = Point(1, 100, 100).steps(config_of(dense, max_num_batched_tokens=40), 300)
    assert [step.num_tokens for step in steps] == [40, 40, 20]
    roofline = Roofline(layers=1000, lm_head=100, kv_per_token=1, windows=(None,))
    assert roofline.read_bytes(steps) == 3 * 1000 + 100 + 40 + 80 + 100


def test_a_sliding_window_bounds_what_a_layer_reads() -> None:
    roofline = Roofline(layers=0, lm_head=0, kv_per_token=1, windows=(None, 4))
    decode, chunk = (Step((SequenceSlice(0, start, (1,) * (10 - start), (0,), GREEDY),)) for start in (9, 7))
    assert roofline.read_bytes([decode]) == 10 + 4
    assert roofline.read_bytes([chunk]) == 10 + 6


def test_points_end_where_the_context_ends(dense: Path) -> None:
    plan = Plan.within(config_of(dense, max_model_len=100))
    assert plan.contexts == (Point(1, 100),)
    assert plan.prompts == (Point(1, 100, 100),)
    assert len(plan.points) == 8  # a point of two series is measured once
    assert fitting((128, 256, 512), 300) == [128, 256]


def test_sequences_share_no_block_and_stay_below_the_number_that_is_filled(dense: Path) -> None:
    (step,) = Point(5, 33).steps(config_of(dense, block_size=16), 300)
    blocks = [block for part in step.slices for block in part.block_ids]
    assert sorted(blocks) == list(range(Point(5, 33).num_blocks(16)))
    assert {(part.start, part.end) for part in step.slices} == {(32, 33)}


@pytest.mark.parametrize("storage", ["auto", "int8"])
def test_the_cache_is_written_before_it_is_read(dense: Path, storage: str) -> None:
    cache = load_runner(dense, "cpu", kv_cache_dtype=storage).cache
    fill(cache, 4)
    assert all(part[:4].float().std() > 0.5 for kv in cache.layers for part in (kv.keys, kv.values))
    assert all(kv.key_scales is None or bool((kv.key_scales[:4] == 1).all()) for kv in cache.layers)


def test_shares_are_those_of_the_program_scaled_to_its_time() -> None:
    kernels = {
        "gather + rms_norm + quantise": 0.5,
        "attend": 1.0,
        "merge": 1.0,
        "product": 5.0,
        "add_rms_norm": 0.5,
        "gather + quantise": 0.1,
        "lm_head": 1.9,
    }
    shares = Timing(whole=10.0, lm_head=1.0, program=5.0, kernels=kernels).shares()
    assert shares == pytest.approx(
        {"attention": 0.1, "product": 0.25, "norm": 0.05, "lm_head": 0.2, "rest": 0.4}
    )


def test_the_parts_of_native_layers_are_all_known_and_add_up(awq: Path) -> None:
    runner = load_runner(awq, "cpu", "bfloat16", block_size=16)
    fill(runner.cache, 16)
    timed = TimedRunner(runner)
    timing = timed.run(Point(2, 100).steps(config_of(awq), 300))
    assert timed.has_native_program
    assert timing.program + timing.lm_head < timing.whole
    named = {"attention", "product", "quantise", "norm", "rope", "silu", "lm_head", "rest"}
    assert set(timing.shares()) == named
    assert sum(timing.shares().values()) == pytest.approx(1)
    assert min(timing.shares().values()) > 0


def test_what_is_reached_is_taken_within_a_round() -> None:
    point = Point(4, 128)
    rounds = [
        Round(100.0, {point: Timing(2.0, 0.1, 0.0)}, {}),  # 1 s of reading in 2 s
        Round(50.0, {point: Timing(3.0, 0.1, 0.0)}, {}),  # 2 s in 3 s
        Round(25.0, {point: Timing(5.0, 0.1, 0.0)}, {}),  # 4 s in 5 s
    ]
    figure = Figure.of(point, 100, rounds)
    assert (figure.median_s, figure.roofline_s) == (3.0, 2.0)
    assert figure.reached == pytest.approx(2 / 3)
    assert figure.tokens_per_s == pytest.approx(4 / 3)
    line = table("", [figure])[-1].split()
    assert line[:4] == ["4", "128", "3000.00", "2000.00..5000.00"]


def test_every_point_is_in_the_table(awq: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(awq, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    rows = [tuple(map(int, line.split()[:2])) for line in lines if line.strip()[:1].isdecimal()]
    batches = [(batch, 128) for batch in (1, 2, 4, 8, 16, 32, 64)]
    assert rows == [(1, 128), *batches, (1, 128)]
    assert sum("attention" in line and "rest" in line for line in lines) == 3
    assert all(len(p["seconds"]) == len(found["rounds"]) == 2 for p in found["batches"])
    assert found["environment"]["threads"] == torch.get_num_threads()


def test_a_model_without_native_layers_is_told_of(
    dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(measured(dense, tmp_path)["prompts"][0]["shares"]) == {"lm_head", "rest"}
    assert "not one native program" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_the_plot_has_both_panels_and_the_roofline(awq: Path, tmp_path: Path) -> None:
    measured(awq, tmp_path, "--plot", str(tmp_path / "costs.svg"))
    text = (tmp_path / "costs.svg").read_text("utf-8")
    for label in ("context, tokens", "sequences in the batch", "roofline", "attention"):
        assert label in text


def test_a_plot_without_matplotlib_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["no-such-model", "--plot", str(tmp_path / "costs.svg")]) == 2
    assert "'.[plot]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--repeats", "0"], "1..1000"), (["--json", "no/such/folder/x.json"], "there is no folder")],
)
def test_a_wrong_option_is_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["model", *options])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
