"""A decoder in one native program: the same bits as the operations one by one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from llmcli.runtime.forward import build_batch
from llmcli.runtime.runner import Runner
from llmcli.scheduler.step import SequenceSlice, Step
from llmcli_kernels.decoder import no_fusion
from tests.tiny_models import GREEDY, awq_checkpoints, base_config, greedy, load_runner, logits

pytest.importorskip("llvmlite")

CONFIG = base_config(
    hidden_size=256,
    intermediate_size=384,
    num_hidden_layers=3,
    num_attention_heads=8,
    num_key_value_heads=2,
    head_dim=32,
)
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2: biases": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "tie_word_embeddings": True,
    },
    "qwen3: norms of heads": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"},
    "mistral: a sliding window": {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "sliding_window": 20,
    },
}
IDS = [7 * i % 211 for i in range(60)]


def fused_runner(folder: Path, kernels: str = "cpu", **options: Any) -> Runner:
    runner = load_runner(folder, kernels, "bfloat16", **options)
    if runner.decoder.kernels.fuse_decoder is no_fusion:
        pytest.skip("there are no native kernels for this machine")
    assert runner.decoder._fuse(runner.cache) is not None
    return runner


def unfused_runner(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Runner:
    runner = load_runner(folder, "cpu", "bfloat16", **options)
    monkeypatch.setattr(runner.decoder, "_fuse", lambda cache: None)
    return runner


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("storage", "lm_head"), [("auto", "full"), ("auto", "int8"), ("int8", "int8"), ("fp8", "full")]
)
@torch.inference_mode()
def test_one_program_gives_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, storage: str, lm_head: str
) -> None:
    folder, _ = awq_checkpoints(tmp_path, CONFIG | FAMILIES[family], "gemm", 64)
    options = {"lm_head": lm_head, "kv_cache_dtype": storage, "block_size": 16}
    fused, unfused = fused_runner(folder, **options), unfused_runner(folder, monkeypatch, **options)
    for chunk in (1, 7, 33):
        assert torch.equal(logits(fused, IDS, chunk), logits(unfused, IDS, chunk))
    assert greedy(fused, IDS, 8) == greedy(unfused, IDS, 8)


@pytest.mark.parametrize("lm_head", ["full", "int8"])
@torch.inference_mode()
def test_prompts_and_answers_in_one_step_under_two_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lm_head: str
) -> None:
    config = CONFIG | {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 20,
        "max_window_layers": 1,
    }
    folder, _ = awq_checkpoints(tmp_path, config, "gemm", 64)
    runners = (fused_runner(folder, lm_head=lm_head), unfused_runner(folder, monkeypatch, lm_head=lm_head))
    assert len(set(runners[0].decoder.spec.sliding_windows)) == 2
    blocks = [tuple(range(8 * i, 8 * i + 8)) for i in range(3)]
    steps = [
        Step((SequenceSlice(0, 0, tuple(IDS[:40]), blocks[0]), SequenceSlice(1, 0, (5, 6), blocks[1]))),
        Step(
            (
                SequenceSlice(0, 40, (7,), blocks[0], GREEDY),
                SequenceSlice(1, 2, tuple(IDS[:31]), blocks[1], GREEDY),
                SequenceSlice(2, 0, tuple(IDS[5:26]), blocks[2], GREEDY),
            )
        ),
    ]
    fused, unfused = (
        [runner.decoder.forward(build_batch(step, runner.block_size), runner.cache) for step in steps]
        for runner in runners
    )
    assert fused[1].shape[0] == 3
    assert torch.equal(fused[1], unfused[1])


@torch.inference_mode()
def test_an_avx2_processor_computes_its_own_answer_in_one_program_too(tmp_path: Path) -> None:
    """The same weights and nearly the same numbers: attention multiplies bfloat16 in another way."""
    folder, _ = awq_checkpoints(tmp_path, CONFIG, "gemm", 64)
    best, avx2 = fused_runner(folder), fused_runner(folder, "avx2")
    wanted, found = logits(best, IDS), logits(avx2, IDS)
    assert (found - wanted).norm() < 0.05 * (wanted - wanted.mean()).norm()


@torch.inference_mode()
def test_a_step_that_points_outside_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder, _ = awq_checkpoints(tmp_path, CONFIG, "gemm", 64)
    runner = fused_runner(folder)
    beyond = runner.cache.layers[0].keys.shape[0]
    batch = build_batch(Step((SequenceSlice(0, 0, (5,), (beyond,), GREEDY),)), runner.block_size)
    with pytest.raises(IndexError, match=r"slot \d+ is not in 0"):
        runner.decoder.forward(batch, runner.cache)
    batch = build_batch(Step((SequenceSlice(0, 0, (5, 6), (0,), GREEDY),)), runner.block_size)
    with pytest.raises(ValueError, match="2 rows, 1 positions"):
        runner.decoder.forward(replace(batch, positions=batch.positions[:1]), runner.cache)
    vocab_size = runner.decoder.spec.vocab_size
    for name, value in (("token_ids", vocab_size), ("token_ids", -1), ("sample_rows", 2)):
        wrong = replace(batch, **{name: torch.tensor([0, value])})
        with pytest.raises(IndexError, match=rf"(token id|sampled row) {value} is not in 0\.\."):
            runner.decoder.forward(wrong, runner.cache)


@pytest.mark.parametrize("lm_head", ["full", "int8"])
@torch.inference_mode()
def test_any_rows_can_be_sampled_and_more_than_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lm_head: str
) -> None:
    folder, _ = awq_checkpoints(tmp_path, CONFIG, "gemm", 64)
    runners = (fused_runner(folder, lm_head=lm_head), unfused_runner(folder, monkeypatch, lm_head=lm_head))
    ids = tuple(3 * i % 211 for i in range(90))
    batch = build_batch(Step((SequenceSlice(0, 0, ids, tuple(range(8))),)), 16)
    for rows in ([], [7], [0, 3, 89], list(range(90)), [88]):
        sampled = replace(batch, sample_rows=torch.tensor(rows, dtype=torch.int64))
        one, other = (runner.decoder.forward(sampled, runner.cache) for runner in runners)
        assert one.shape == (len(rows), runners[0].decoder.spec.vocab_size)
        assert torch.equal(one, other)


@torch.inference_mode()
def test_a_short_step_after_a_long_one_is_not_disturbed_by_it(tmp_path: Path) -> None:
    folder, _ = awq_checkpoints(tmp_path, CONFIG, "gemm", 128)
    first = logits(fused_runner(folder), IDS, 5)
    again = fused_runner(folder)
    logits(again, IDS[::-1], 60)
    assert torch.equal(logits(again, IDS, 5), first)


@torch.inference_mode()
def test_the_number_of_threads_changes_no_bit(tmp_path: Path) -> None:
    folder, _ = awq_checkpoints(tmp_path, CONFIG, "gemm", 64)
    before, found = torch.get_num_threads(), []
    kept = fused_runner(folder)
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            found += [logits(runner, IDS, 9) for runner in (kept, fused_runner(folder))]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found)


def test_layers_that_do_not_fit_run_one_operation_after_the_other(tmp_path: Path) -> None:
    """A dense layer; and outputs that are no whole panels of 64."""
    dense, _ = awq_checkpoints(tmp_path / "dense", CONFIG, "gemm", 64, skipped=("o_proj",))
    wide, _ = awq_checkpoints(tmp_path / "wide", CONFIG | {"head_dim": 40}, "gemm", 64)
    for folder in (dense, wide):
        runner = load_runner(folder, "cpu", "bfloat16")
        assert runner.decoder._fuse(runner.cache) is None
        assert len(greedy(runner, IDS, 3)) == 3


def test_float32_is_never_fused(tmp_path: Path) -> None:
    folder, _ = awq_checkpoints(tmp_path, CONFIG, "gemm", 64)
    runner = load_runner(folder, "cpu", "float32")
    assert runner.decoder._fuse(runner.cache) is None
