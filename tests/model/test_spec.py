"""config.json is read strictly: what is out of range, contradicts itself or is not implemented is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmcli.errors import CheckpointError, ModelNotRunnableError, UnsupportedModelError
from llmcli.model.spec import ARCHITECTURES, ModelSpec, read_json_object, read_model_spec
from tests.tiny_models import base_config


def read(folder: Path, remove: tuple[str, ...] = (), **changes: Any) -> ModelSpec:
    config = {name: value for name, value in base_config(**changes).items() if name not in remove}
    (folder / "config.json").write_text(json.dumps(config))
    return read_model_spec(folder)


def awq(**changes: Any) -> dict[str, Any]:
    block = {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"}
    return {"quantization_config": {name: v for name, v in (block | changes).items() if v is not ...}}


WRONG_VALUES: list[tuple[str, Any]] = [
    (name, value)
    for name in (
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
    )
    for value in (0, -1, 10**9, "32", True, 2.0, [3])
] + [
    ("num_hidden_layers", None),
    ("head_dim", 0),
    ("head_dim", "16"),
    ("intermediate_size", 0),
    ("max_position_embeddings", 0),
    ("max_position_embeddings", 10**12),
    ("rms_norm_eps", -1e-5),
    ("rms_norm_eps", 2),
    ("rms_norm_eps", "1e-5"),
    ("tie_word_embeddings", "false"),
    ("attention_bias", 1),
    ("mlp_bias", "yes"),
    ("rope_theta", 0),
    ("rope_theta", 1),
    ("rope_theta", "10000"),
    ("rope_scaling", "linear"),
    ("eos_token_id", 211),
    ("eos_token_id", -1),
    ("eos_token_id", [2, "3"]),
    ("eos_token_id", [2, True]),
    ("bos_token_id", 211),
]


@pytest.mark.parametrize(("key", "value"), WRONG_VALUES)
def test_a_wrong_value_is_refused_with_file_key_and_value(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, **{key: value})
    assert caught.value.exit_code == 5
    assert str(tmp_path / "config.json") in caught.value.what
    assert key in caught.value.what
    if not isinstance(value, list) and value is not None:
        assert str(value) in caught.value.what


@pytest.mark.parametrize(
    "key", ["num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size", "intermediate_size"]
)
def test_a_missing_size_is_refused_by_name(tmp_path: Path, key: str) -> None:
    with pytest.raises(CheckpointError, match=f"{key} is missing"):
        read(tmp_path, remove=(key,))


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"hidden_size": 81}, "hidden_size 81 is not a multiple of num_attention_heads 5"),
    ({"hidden_size": 81, "head_dim": None}, "hidden_size 81 is not a multiple of num_attention_heads 5"),
    ({"num_key_value_heads": 3}, "num_attention_heads 5 is not a multiple of num_key_value_heads 3"),
    ({"head_dim": 15}, "head_dim 15 is odd"),
    ({"hidden_size": 75}, "head_dim 15 is odd"),
]


@pytest.mark.parametrize(("changes", "message"), CONTRADICTIONS)
def test_sizes_that_contradict_each_other_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path, **changes)


UNSUPPORTED: list[tuple[dict[str, Any], str, str]] = [
    ({"architectures": ["GemmaForCausalLM"]}, "GemmaForCausalLM", "supported: LlamaForCausalLM"),
    ({"architectures": ["LlamaForCausalLM", "X"]}, "LlamaForCausalLM", "supported: LlamaForCausalLM"),
    ({"architectures": "LlamaForCausalLM"}, "LlamaForCausalLM", "supported: LlamaForCausalLM"),
    ({"architectures": [["x"]]}, "x", "supported: LlamaForCausalLM"),
    ({"architectures": [], "model_type": "bert"}, "bert", "supported: LlamaForCausalLM"),
    ({"architectures": None, "model_type": None}, "null", "supported: LlamaForCausalLM"),
    ({"hidden_act": "gelu"}, "hidden_act gelu", "supported: silu"),
    ({"hidden_act": ["silu"]}, "hidden_act", "supported: silu"),
    ({"rope_scaling": {"type": "su", "factor": 2.0}}, "rope type su", "supported: default, linear"),
    ({"rope_scaling": {"type": ["linear"]}}, "rope type", "supported: default, linear"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5", "supported: 1.0"),
    ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "per kind of layer", ""),
    ({"quantization_config": {"quant_method": "gptq"}}, "gptq", "supported: awq"),
    ({"quantization_config": {"bits": 4}}, "None", "supported: awq"),
    (awq(bits=3), "3 bits", "supported: 4 bits"),
    (awq(bits=8), "8 bits", "supported: 4 bits"),
    (awq(bits="4"), "4 bits", "supported: 4 bits"),
    (awq(group_size=0), "group_size 0", "supported: 32, 64, 128, -1"),
    (awq(group_size=48), "group_size 48", "supported: 32, 64, 128, -1"),
    (awq(group_size=64.0), "group_size 64.0", "supported: 32, 64, 128, -1"),
    (awq(group_size=True), "group_size True", "supported: 32, 64, 128, -1"),
    (awq(version="gemv_fast"), "gemv_fast", "supported: gemm, gemv"),
    (awq(version="marlin"), "marlin", "supported: gemm, gemv"),
    (awq(version=None), "none", "supported: gemm, gemv"),
]


@pytest.mark.parametrize(("changes", "shown", "fix"), UNSUPPORTED)
def test_what_is_not_implemented_is_refused_with_what_is(
    tmp_path: Path, changes: dict[str, Any], shown: str, fix: str
) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        read(tmp_path, **changes)
    assert caught.value.exit_code == 5
    assert str(tmp_path / "config.json") in caught.value.what
    assert shown in caught.value.what
    assert fix in caught.value.fix


def test_the_list_of_supported_architectures_is_complete(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        read(tmp_path, architectures=["Other"])
    assert all(name in caught.value.fix for name in ARCHITECTURES)


BAD_AWQ_BLOCKS: list[tuple[Any, str]] = [
    ([1], "quantization_config must be an object"),
    (awq(zero_point="yes")["quantization_config"], "zero_point must be true or false, got yes"),
    (awq(modules_to_not_convert="lm_head")["quantization_config"], "modules_to_not_convert must be a list"),
    (awq(modules_to_not_convert=[1])["quantization_config"], "modules_to_not_convert must be a list"),
]


@pytest.mark.parametrize(("block", "message"), BAD_AWQ_BLOCKS)
def test_a_malformed_awq_block_is_refused(tmp_path: Path, block: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path, quantization_config=block)


def test_an_awq_block_without_zero_point_or_version_has_autoawqs_defaults(tmp_path: Path) -> None:
    quantization = read(tmp_path, **awq(zero_point=..., version=...)).quantization
    assert quantization is not None
    assert (quantization.zero_point, quantization.version) == (True, "gemm")


BAD_FILES: list[tuple[bytes, str]] = [
    (b"", "not valid JSON"),
    (b"[1, 2]", "must hold a JSON object, found list"),
    (b"null", "must hold a JSON object, found NoneType"),
    (b'{"vocab_size": NaN}', "NaN is not a finite number"),
    (b'{"vocab_size": 1e999}', "not a finite number"),
    (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
    (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "nesting deeper than 64"),
    (b'{"a": ' + b"9" * 5000 + b"}", "5000 digits"),
    (b'{"a": "\xff"}', "byte 8 is not UTF-8"),
    (b"version https://git-lfs.github.com/spec/v1\n", "not valid JSON"),
    (b"<!DOCTYPE html>", "not valid JSON"),
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES)
def test_a_config_that_is_no_strict_json_object_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_model_spec(tmp_path)
    assert str(tmp_path / "config.json") in caught.value.what


def test_a_config_that_is_missing_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_model_spec(tmp_path)
    (tmp_path / "config.json").write_bytes(b" " * 1001)
    with pytest.raises(CheckpointError, match="1,001 bytes, at most 1,000"):
        read_json_object(tmp_path / "config.json", 1000)


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = tmp_path / "canary"
    monkeypatch.syspath_prepend(str(tmp_path))
    code = f"open({str(canary)!r}, 'w').write('run')\n"
    for name in ("modeling_evil.py", "configuration_evil.py", "__init__.py", "conftest.py"):
        (tmp_path / name).write_text(code)
    spec = read(
        tmp_path,
        auto_map={"AutoConfig": "configuration_evil.C", "AutoModelForCausalLM": "evil/repo--modeling_evil.M"},
        trust_remote_code=True,
        text_config={"trust_remote_code": True, "auto_map": {"AutoConfig": "configuration_evil.C"}},
        _attn_implementation_internal="evil/kernels",
        _attn_implementation="evil/kernels",
    )
    assert spec == read(tmp_path)
    assert not canary.exists()


def test_control_characters_of_a_config_are_shown_escaped_and_cut(tmp_path: Path) -> None:
    with pytest.raises(ModelNotRunnableError) as caught:
        read(tmp_path, hidden_act="\x1b[2J" + "x" * 10_000)
    assert "\x1b" not in str(caught.value)
    assert r"\x1b[2J" in str(caught.value)
    assert len(str(caught.value)) < 600


FAMILIES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"qkv_bias": False, "o_bias": False, "mlp_bias": False, "qk_norm": False}),
    ({"attention_bias": True, "mlp_bias": True}, {"qkv_bias": True, "o_bias": True, "mlp_bias": True}),
    ({"architectures": ["Qwen2ForCausalLM"]}, {"qkv_bias": True, "o_bias": False, "qk_norm": False}),
    ({"architectures": ["Qwen3ForCausalLM"]}, {"qkv_bias": False, "qk_norm": True, "head_dim": 128}),
    ({"architectures": ["MistralForCausalLM"]}, {"sliding_windows": (4096,) * 3, "qkv_bias": False}),
    ({"architectures": ["MistralForCausalLM"], "sliding_window": None}, {"sliding_windows": (None,) * 3}),
    ({"sliding_window": 8}, {"sliding_windows": (None,) * 3}),
    ({"architectures": ["Qwen2ForCausalLM"], "sliding_window": 8}, {"sliding_windows": (None,) * 3}),
    (
        {
            "architectures": ["Qwen2ForCausalLM"],
            "sliding_window": 8,
            "use_sliding_window": True,
            "max_window_layers": 2,
        },
        {"sliding_windows": (None, None, 8)},
    ),
    (
        {
            "architectures": ["Qwen3ForCausalLM"],
            "sliding_window": 8,
            "use_sliding_window": True,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        {"sliding_windows": (8, None, 8)},
    ),
    ({"architectures": None}, {"architecture": "LlamaForCausalLM"}),
    ({"num_key_value_heads": None}, {"num_kv_heads": 5}),
    ({"eos_token_id": [2, 7]}, {"eos_ids": (2, 7)}),
    ({"eos_token_id": None}, {"eos_ids": ()}),
    ({"eos_token_id": 1}, {"eos_ids": (1,), "bos_id": 1}),
    ({"bos_token_id": None}, {"bos_id": None}),
    ({"bos_token_id": []}, {"bos_id": None}),
    ({"torch_dtype": "bfloat16"}, {"checkpoint_dtype": "bfloat16"}),
    ({"dtype": "float16", "torch_dtype": "bfloat16"}, {"checkpoint_dtype": "float16"}),
]


@pytest.mark.parametrize(("changes", "expected"), FAMILIES)
def test_flags_follow_from_the_family_and_the_config(
    tmp_path: Path, changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    spec = read(tmp_path, **changes)
    assert {name: getattr(spec, name) for name in expected} == expected


@pytest.mark.parametrize(
    "kinds", [["full_attention"], "full_attention", ["chunked_attention"] * 3, [[], [], []]]
)
def test_kinds_of_layers_that_are_not_known_are_refused(tmp_path: Path, kinds: Any) -> None:
    qwen = {"architectures": ["Qwen2ForCausalLM"], "sliding_window": 8, "use_sliding_window": True}
    with pytest.raises(CheckpointError, match="layer_types"):
        read(tmp_path, layer_types=kinds, **qwen)
