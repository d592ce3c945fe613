"""A decoder's layers in one native program: the same bits as the operations one by one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from llmcli.runtime.runner import Runner
from tests.tiny_models import awq_checkpoints, base_config, greedy, load_runner, logits

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


def fused_runner(folder: Path, **options: Any) -> Runner:
    runner = load_runner(folder, "cpu", "bfloat16", **options)
    if trouble := runner.decoder.kernels.trouble():
        pytest.skip(trouble)
    assert runner.decoder._fuse(runner.cache) is not None
    return runner


def unfused_runner(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Runner:
    runner = load_runner(folder, "cpu", "bfloat16", **options)
    monkeypatch.setattr(runner.decoder, "_fuse", lambda cache: None)
    return runner


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("storage", ["auto", "int8", "fp8"])
@torch.inference_mode()
def test_fused_layers_give_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, storage: str
) -> None:
    folder, _ = awq_checkpoints(tmp_path, CONFIG | FAMILIES[family], "gemm", 64)
    fused = fused_runner(folder, kv_cache_dtype=storage, block_size=16)
    unfused = unfused_runner(folder, monkeypatch, kv_cache_dtype=storage, block_size=16)
    for chunk in (1, 7, 33):
        assert torch.equal(logits(fused, IDS, chunk), logits(unfused, IDS, chunk))
    assert greedy(fused, IDS, 8) == greedy(unfused, IDS, 8)


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
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            found.append(logits(fused_runner(folder), IDS, 9))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found)


def test_layers_that_do_not_fit_run_one_operation_after_the_other(tmp_path: Path) -> None:
    """A dense layer, and group sizes that the integer kernels do not know."""
    folder, _ = awq_checkpoints(tmp_path, CONFIG, "gemm", 64, skipped=("o_proj",))
    runner = load_runner(folder, "cpu", "bfloat16")
    assert runner.decoder._fuse(runner.cache) is None
    assert len(greedy(runner, IDS, 3)) == 3


def test_float32_is_never_fused(tmp_path: Path) -> None:
    folder, _ = awq_checkpoints(tmp_path, CONFIG, "gemm", 64)
    runner = load_runner(folder, "cpu", "float32")
    assert runner.decoder._fuse(runner.cache) is None
