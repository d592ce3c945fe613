"""AWQ checkpoints are read bit for bit, and compute what the dequantised weights compute."""

from pathlib import Path
from typing import Any

import pytest
import torch

from llmcli.model.formats import awq
from tests.awq_truth import load_awq_packing
from tests.tiny_models import (
    awq_checkpoints,
    base_config,
    greedy,
    load_runner,
    logits,
    pack_gemm,
    pack_gemv,
    random_quantized,
)

# Relative error of the logits of a whole model, against float32 and the dequantised weights. A model of random weights
# magnifies rounding: dense and with bfloat16 it is off by 0.059, with 4 bits by 0.040 (torch) and 0.095 (cpu, which
# also rounds activations to int8).
MODEL_LOGITS = {
    ("cpu", "float32"): 5e-6,
    ("cpu", "float16"): 1e-2,
    ("cpu", "bfloat16"): 1.5e-1,
    ("torch", "bfloat16"): 5e-2,
}

CONFIG = base_config(
    hidden_size=256,
    intermediate_size=384,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
)
FORMS = [
    ("gemm", 32),
    ("gemm", 64),
    ("gemm", 128),
    ("gemm", -1),
    ("gemv", 32),
    ("gemv", 64),
    ("gemv", 128),
    ("gemv", -1),
]


@pytest.mark.parametrize(("n", "k", "group"), [(8, 32, 32), (24, 128, 64), (264, 384, 128), (40, 96, 96)])
def test_gemm_integers_zeros_and_scales_equal_autoawqs_own_unpacking(n: int, k: int, group: int) -> None:
    packing = load_awq_packing()
    generator = torch.Generator().manual_seed(n)
    qweight = torch.randint(-(2**31), 2**31, (k, n // 8), generator=generator).to(torch.int32)
    qzeros = torch.randint(-(2**31), 2**31, (k // group, n // 8), generator=generator).to(torch.int32)
    scales = torch.rand(k // group, n, generator=generator).half()
    integers, zeros = packing.reverse_awq_order(*packing.unpack_awq(qweight, qzeros, 4), 4)
    weight = awq.from_gemm(qweight, qzeros, scales, group).plain()
    assert torch.equal(weight.integers(), (integers & 15).t().to(torch.uint8))
    assert torch.equal(weight.zeros, (zeros & 15).t().to(torch.uint8))
    assert torch.equal(weight.scales, scales.t())
    dequantised = packing.dequantize_gemm(qweight, qzeros, scales.float(), 4, group)
    assert torch.equal(weight.dequantize(torch.float32), dequantised.t())


@pytest.mark.parametrize("group", [32, 64, 128, 512])
@pytest.mark.parametrize("form", ["gemm", "gemv"])
def test_both_forms_give_back_what_was_packed(form: str, group: int) -> None:
    matrix = random_quantized(40, 512, group, seed=group)
    parts = (pack_gemm if form == "gemm" else pack_gemv)(matrix)
    read = awq.from_gemm if form == "gemm" else awq.from_gemv
    weight = read(parts["qweight"], parts["qzeros"], parts["scales"].contiguous(), group).plain()
    assert torch.equal(weight.integers(), matrix.q.to(torch.uint8))
    assert torch.equal(weight.zeros, matrix.zeros.to(torch.uint8))
    assert torch.equal(weight.scales, matrix.scales)


@pytest.mark.parametrize(("version", "group"), FORMS)
def test_reference_logits_equal_those_of_the_dequantised_model(
    tmp_path: Path, version: str, group: int
) -> None:
    quantized, dense = awq_checkpoints(tmp_path, CONFIG, version, group)
    ids = list(range(3, 30))
    torch.testing.assert_close(
        logits(load_runner(quantized), ids), logits(load_runner(dense), ids), atol=1e-4, rtol=1e-4
    )
    assert greedy(load_runner(quantized), ids, 32) == greedy(load_runner(dense), ids, 32)


@pytest.mark.parametrize(
    ("skipped", "symmetric"),
    [(("down_proj",), False), (("k_proj", "up_proj"), False), ((), True)],
    ids=["one dense layer", "dense beside int4 in one merged layer", "no zero points"],
)
def test_dense_modules_and_missing_zero_points_are_read(
    tmp_path: Path, skipped: tuple[str, ...], symmetric: bool
) -> None:
    quantized, dense = awq_checkpoints(tmp_path, CONFIG, "gemm", 64, skipped, symmetric)
    ids = list(range(3, 20))
    torch.testing.assert_close(
        logits(load_runner(quantized), ids), logits(load_runner(dense), ids), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(("kernels", "dtype"), sorted(MODEL_LOGITS))
def test_fast_kernels_stay_within_the_error_stated_for_each_dtype(
    tmp_path: Path, kernels: str, dtype: str
) -> None:
    quantized, dense = awq_checkpoints(tmp_path, CONFIG, "gemm", 128)
    ids = list(range(3, 40))
    expected = logits(load_runner(dense), ids)
    actual = logits(load_runner(quantized, kernels, dtype), ids)
    error = (actual - expected).norm() / expected.norm()
    assert error < MODEL_LOGITS[kernels, dtype]


def test_an_older_repository_with_quant_config_json_is_read(tmp_path: Path) -> None:
    import json

    quantized, dense = awq_checkpoints(tmp_path, CONFIG, "gemm", 64)
    config: dict[str, Any] = json.loads((quantized / "config.json").read_text())
    del config["quantization_config"]
    (quantized / "config.json").write_text(json.dumps(config))
    old = {"zero_point": True, "q_group_size": 64, "w_bit": 4, "version": "GEMM"}
    (quantized / "quant_config.json").write_text(json.dumps(old))
    torch.testing.assert_close(
        logits(load_runner(quantized), [4, 5]), logits(load_runner(dense), [4, 5]), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(("n", "k", "group"), [(8, 32, 32), (40, 192, 64), (256, 128, 128)])
def test_what_is_packed_is_what_autoawq_unpacks_bit_for_bit(n: int, k: int, group: int) -> None:
    matrix = random_quantized(n, k, group, seed=n)
    packed = awq.pack_gemm(matrix.q, matrix.zeros, matrix.scales)
    packing = load_awq_packing()
    q, zeros = packing.unpack_awq(packed["qweight"], packed["qzeros"], 4)
    q, zeros = packing.reverse_awq_order(q, zeros, 4)
    assert torch.equal((q & 15).t().long(), matrix.q)
    assert torch.equal((zeros & 15).t().long(), matrix.zeros)
    assert torch.equal(packed["scales"].t(), matrix.scales)
    assert {name: tuple(tensor.shape) for name, tensor in packed.items()} == awq.expected_shapes(
        "gemm", n, k, group
    )


def test_packing_is_undone_bit_for_bit() -> None:
    matrix = random_quantized(40, 192, 64, seed=1)
    q, zeros, scales = awq.unpack_gemm(**awq.pack_gemm(matrix.q, matrix.zeros, matrix.scales))
    assert torch.equal(q.long(), matrix.q)
    assert torch.equal(zeros.long(), matrix.zeros)
    assert torch.equal(scales, matrix.scales)
    again = awq.pack_gemm(q, zeros, scales)
    assert all(torch.equal(again[name], tensor) for name, tensor in pack_gemm(matrix).items())
