"""Every tensor must be there once, in the shape and dtype that config.json implies, and be finite where it scales."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmcli import LLM
from llmcli.errors import CheckpointError, ModelNotRunnableError, UnsupportedModelError
from llmcli.model.spec import read_model_spec
from llmcli.model.weights import load_weights
from llmcli_kernels import select
from tests.tiny_models import (
    awq_checkpoints,
    base_config,
    dense_checkpoint,
    save_checkpoint,
    stored,
    tiny_chat_model,
    transformers_model,
    write_tokenizer,
)

Tensors = dict[str, torch.Tensor]
CONFIG = base_config(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=40,
)
Q = "model.layers.1.self_attn.q_proj"
DOWN = "model.layers.0.mlp.down_proj"


@pytest.fixture(scope="module")
def dense() -> Tensors:
    return dict(transformers_model(CONFIG).state_dict())


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Tensors]:
    folder, _ = awq_checkpoints(tmp_path_factory.mktemp("awq"), CONFIG, "gemm", 32)
    return json.loads((folder / "config.json").read_text()), stored(folder)


def load(folder: Path) -> None:
    load_weights(folder, read_model_spec(folder), select("cpu", "reference"), torch.float32)


def refused(folder: Path, config: dict[str, Any], tensors: Tensors) -> ModelNotRunnableError:
    save_checkpoint(folder, config, tensors)
    with pytest.raises(ModelNotRunnableError) as caught:
        load(folder)
    assert caught.value.exit_code == 5
    assert str(folder) in caught.value.what
    return caught.value


DENSE_FAULTS: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "missing": (lambda t: t.pop(f"{Q}.weight"), f"lacks tensor {Q}.weight of shape \\[64, 64\\]"),
    "missing norm": (lambda t: t.pop("model.norm.weight"), "lacks tensor model.norm.weight"),
    "missing head": (lambda t: t.pop("lm_head.weight"), "lacks tensor lm_head.weight of shape \\[40, 64\\]"),
    "swapped sizes": (
        lambda t: t.update({f"{DOWN}.weight": t[f"{DOWN}.weight"].t()}),
        f"tensor {DOWN}.weight in .* has shape \\[96, 64\\], config.json implies \\[64, 96\\]",
    ),
    "one dimension more": (
        lambda t: t.update({"model.norm.weight": t["model.norm.weight"][None]}),
        "model.norm.weight in .* has shape \\[1, 64\\]",
    ),
    "fewer rows in the embedding": (
        lambda t: t.update({"model.embed_tokens.weight": t["model.embed_tokens.weight"][:39]}),
        "model.embed_tokens.weight in .* has shape \\[39, 64\\], config.json implies \\[40, 64\\]",
    ),
    "extra tensor": (
        lambda t: t.update({"model.layers.2.mlp.up_proj.weight": torch.zeros(3, 4)}),
        "has 1 tensors without a place in a LlamaForCausalLM: model.layers.2.mlp.up_proj.weight \\[3, 4\\]",
    ),
    "a bias that the config denies": (
        lambda t: t.update({f"{Q}.bias": torch.zeros(64)}),
        f"without a place in a LlamaForCausalLM: {Q}.bias",
    ),
    "int4 that the config denies": (
        lambda t: t.update({f"{Q}.qweight": torch.zeros(64, 8, dtype=torch.int32)}),
        f"without a place in a LlamaForCausalLM: {Q}.qweight",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DENSE_FAULTS.values(), ids=DENSE_FAULTS.keys())
def test_a_tensor_that_does_not_fit_the_config_is_refused(
    tmp_path: Path, dense: Tensors, damage: Callable[[Tensors], Any], message: str
) -> None:
    tensors = dict(dense)
    damage(tensors)
    with pytest.raises(CheckpointError, match=message):
        raise refused(tmp_path, CONFIG, tensors)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8, torch.bool, torch.float8_e4m3fn, torch.int32])
def test_a_dense_tensor_of_another_dtype_is_refused(
    tmp_path: Path, dense: Tensors, dtype: torch.dtype
) -> None:
    error = refused(tmp_path, CONFIG, dense | {f"{Q}.weight": dense[f"{Q}.weight"].to(dtype)})
    assert isinstance(error, UnsupportedModelError)
    assert f"tensor {Q}.weight in {tmp_path / 'model.safetensors'} has dtype" in error.what
    assert error.fix == "supported: F32, F16, BF16"


def test_unused_tables_of_older_checkpoints_are_no_fault(tmp_path: Path, dense: Tensors) -> None:
    tables = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.zeros(8) for i in range(2)}
    load(save_checkpoint(tmp_path, CONFIG, dense | tables))


def test_a_tied_matrix_is_found_under_either_name_or_both(tmp_path: Path, dense: Tensors) -> None:
    names = ("model.embed_tokens.weight", "lm_head.weight")
    matrix = dense[names[0]]
    rest = {name: tensor for name, tensor in dense.items() if name not in names}
    for number, present in enumerate([names, names[:1], names[1:]]):
        folder = tmp_path / str(number)
        tensors = rest | dict.fromkeys(present, matrix)
        save_checkpoint(folder, CONFIG | {"tie_word_embeddings": True}, tensors)
        weights = load_weights(folder, read_model_spec(folder), select("cpu", "reference"), torch.float32)
        assert torch.equal(weights.embedding, matrix)
        assert torch.equal(weights.lm_head(torch.eye(64)), matrix.t())


def replace(tensors: Tensors, name: str, value: torch.Tensor) -> None:
    tensors[name] = value


def poison(tensors: Tensors, value: float) -> None:
    tensors[f"{Q}.scales"] = tensors[f"{Q}.scales"].clone()
    tensors[f"{Q}.scales"][1, 5] = value


def drop_layer(tensors: Tensors) -> None:
    for part in ("qweight", "qzeros", "scales"):
        del tensors[f"{Q}.{part}"]


def words(rows: int, columns: int) -> torch.Tensor:
    return torch.zeros(rows, columns, dtype=torch.int32)


AWQ_FAULTS: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "qweight missing": (lambda t: t.pop(f"{Q}.qweight"), f"lacks tensor {Q}.qweight of shape \\[64, 8\\]"),
    "qzeros missing": (lambda t: t.pop(f"{Q}.qzeros"), f"lacks tensor {Q}.qzeros of shape \\[2, 8\\]"),
    "scales missing": (lambda t: t.pop(f"{Q}.scales"), f"lacks tensor {Q}.scales of shape \\[2, 64\\]"),
    "a layer missing": (drop_layer, f"lacks tensor {Q}"),
    "qweight as gemv stores it": (
        lambda t: replace(t, f"{DOWN}.qweight", words(64, 12)),
        f"{DOWN}.qweight in .* has shape \\[64, 12\\], config.json implies \\[96, 8\\]",
    ),
    "qzeros of another group size": (
        lambda t: replace(t, f"{Q}.qzeros", words(1, 8)),
        f"{Q}.qzeros in .* has shape \\[1, 8\\], config.json implies \\[2, 8\\]",
    ),
    "scales of another layer": (
        lambda t: replace(t, f"{Q}.scales", t[f"{DOWN}.scales"]),
        f"{Q}.scales in .* has shape \\[3, 64\\], config.json implies \\[2, 64\\]",
    ),
    "qweight of bytes": (
        lambda t: replace(t, f"{Q}.qweight", t[f"{Q}.qweight"].to(torch.int8)),
        f"{Q}.qweight in .* has dtype I8, expected I32",
    ),
    "scales in float32": (
        lambda t: replace(t, f"{Q}.scales", t[f"{Q}.scales"].float()),
        f"{Q}.scales in .* has dtype F32, expected F16",
    ),
    "scale NaN": (lambda t: poison(t, float("nan")), f"{Q}.scales in .* has NaN or infinity"),
    "scale infinite": (lambda t: poison(t, float("inf")), f"{Q}.scales in .* has NaN or infinity"),
    "dense and quantized": (
        lambda t: replace(t, f"{Q}.weight", torch.zeros(64, 64)),
        f"without a place in a LlamaForCausalLM: {Q}.qweight",
    ),
}


@pytest.mark.parametrize(("damage", "message"), AWQ_FAULTS.values(), ids=AWQ_FAULTS.keys())
def test_a_quantized_layer_that_does_not_hold_together_is_refused(
    tmp_path: Path,
    quantized: tuple[dict[str, Any], Tensors],
    damage: Callable[[Tensors], Any],
    message: str,
) -> None:
    config, tensors = quantized[0], dict(quantized[1])
    damage(tensors)
    with pytest.raises(CheckpointError, match=message):
        raise refused(tmp_path, config, tensors)


def test_a_scale_of_zero_is_a_dead_channel_and_accepted(
    tmp_path: Path, quantized: tuple[dict[str, Any], Tensors]
) -> None:
    config, tensors = quantized[0], dict(quantized[1])
    poison(tensors, 0.0)
    load(save_checkpoint(tmp_path, config, tensors))


def awq_config(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return config | {"quantization_config": config["quantization_config"] | changes}


def test_a_quantized_module_that_the_config_calls_dense_is_refused(
    tmp_path: Path, quantized: tuple[dict[str, Any], Tensors]
) -> None:
    config = awq_config(quantized[0], modules_to_not_convert=["layers.1.self_attn"])
    error = refused(tmp_path, config, quantized[1])
    assert f"{Q} is quantized in" in error.what
    assert "modules_to_not_convert" in error.what


def test_a_group_size_that_does_not_divide_a_layer_is_refused(
    tmp_path: Path, quantized: tuple[dict[str, Any], Tensors]
) -> None:
    error = refused(tmp_path, awq_config(quantized[0], group_size=128), quantized[1])
    assert "self_attn.q_proj of 64 x 64 can not be AWQ with group size 128: sizes do not divide" in error.what


def test_a_group_size_other_than_that_of_the_tensors_is_refused(
    tmp_path: Path, quantized: tuple[dict[str, Any], Tensors]
) -> None:
    error = refused(tmp_path, awq_config(quantized[0], group_size=64), quantized[1])
    assert "self_attn.q_proj.qzeros" in error.what
    assert "has shape [2, 8], config.json implies [1, 8]" in error.what


def test_zero_points_are_needed_unless_the_config_says_there_are_none(
    tmp_path: Path, quantized: tuple[dict[str, Any], Tensors]
) -> None:
    without = {name: tensor for name, tensor in quantized[1].items() if not name.endswith("qzeros")}
    assert "qzeros" in refused(tmp_path, quantized[0], without).what
    load(save_checkpoint(tmp_path, awq_config(quantized[0], zero_point=False), without))


def test_a_file_that_only_the_safetensors_library_refuses_is_no_traceback(
    tmp_path: Path, dense: Tensors
) -> None:
    path = save_checkpoint(tmp_path, CONFIG, dense) / "model.safetensors"
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length]) | {"__metadata__": [1]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(CheckpointError, match=r"model\.safetensors can not be mapped"):
        load(tmp_path)


def test_weights_own_their_memory_once_the_files_are_gone(tmp_path: Path, dense: Tensors) -> None:
    folder = save_checkpoint(tmp_path, CONFIG, dense)
    weights = load_weights(folder, read_model_spec(folder), select("cpu", "reference"), torch.float32)
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.write(b"\xff" * (folder / "model.safetensors").stat().st_size)
    assert torch.equal(weights.norm, dense["model.norm.weight"])
    assert torch.equal(weights.embedding, dense["model.embed_tokens.weight"])
    assert torch.equal(weights.layers[0].down(torch.eye(96)), dense[f"{DOWN}.weight"].t())


def test_each_layer_is_told_as_it_is_loaded(tmp_path: Path, dense: Tensors) -> None:
    folder = save_checkpoint(tmp_path, CONFIG, dense)
    told: list[tuple[int, int]] = []
    load_weights(
        folder,
        read_model_spec(folder),
        select("cpu", "reference"),
        torch.float32,
        on_layer=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 2), (2, 2)]


def test_a_tokenizer_larger_than_the_vocabulary_is_refused_with_both_numbers(tmp_path: Path) -> None:
    config = base_config(vocab_size=290)
    dense_checkpoint(tmp_path, config, transformers_model(config))
    write_tokenizer(tmp_path, 300)
    with pytest.raises(CheckpointError, match="tokenizer has 300 tokens, the model 290"):
        LLM(tmp_path, num_threads=1)


def test_an_embedding_larger_than_the_tokenizer_is_padding(tmp_path: Path) -> None:
    config = base_config(vocab_size=320)
    dense_checkpoint(tmp_path, config, transformers_model(config))
    write_tokenizer(tmp_path, 300)
    assert LLM(tmp_path, num_threads=1, dtype="float32").engine.spec.vocab_size == 320


def test_a_model_without_any_end_of_sequence_id_is_refused(tmp_path: Path) -> None:
    folder = tiny_chat_model(tmp_path, eos_token_id=None)
    assert LLM(folder, num_threads=1).engine.eos_ids == {2}  # the tokenizer's
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="names no end-of-sequence token") as caught:
        LLM(folder, num_threads=1)
    assert "eos_token_id" in caught.value.fix


def test_code_beside_the_weights_is_not_run_and_no_connection_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_chat_model(tmp_path / "model")
    canary = tmp_path / "canary"
    (folder / "modeling_evil.py").write_text(f"open({str(canary)!r}, 'w')")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Model"}
    config["_attn_implementation_internal"] = "evil/kernels"
    (folder / "config.json").write_text(json.dumps(config))

    def connect(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", connect)
    LLM(folder, num_threads=1)
    assert not canary.exists()
