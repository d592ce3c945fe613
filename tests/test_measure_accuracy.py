"""`scripts/measure_accuracy.py`: its figures against hand-computed ones, and that damage does not go unnoticed."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llmcli_kernels import select
from scripts.accuracy.measures import Measures, broken_bounds, compare
from scripts.accuracy.teacher_forcing import TeacherForcing, prompt_rows, read_windows, spans
from scripts.accuracy.variants import write_variant
from scripts.measure_accuracy import EXACT, MODES, REFERENCE, main, measure_model, score
from tests.tiny_models import (
    base_config,
    dense_checkpoint,
    stored,
    tiny_chat_model,
    transformers_model,
    write_tokenizer,
)

TEXT = [f"Once there was a cat that had {count} red hats." for count in range(80)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sizes that allow groups of 128."""
    config = base_config(
        vocab_size=300, hidden_size=128, intermediate_size=256, num_attention_heads=4, num_key_value_heads=4
    )
    folder = dense_checkpoint(tmp_path_factory.mktemp("wide"), config, transformers_model(config))
    write_tokenizer(folder, 300)
    return folder


def test_kl_and_loss_are_those_computed_by_hand() -> None:
    # p = (1/2, 1/2) against q = (3/4, 1/4): KL = ln(1/2 / 3/4) / 2 + ln(1/2 / 1/4) / 2 = ln(4/3) / 2.
    measures = compare(torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([1]))
    assert measures.mean_kl == pytest.approx(math.log(4 / 3) / 2, rel=1e-6)
    assert measures.perplexity == pytest.approx(4.0, rel=1e-6)


def test_the_error_of_logits_is_relative_to_their_spread() -> None:
    truth, found = torch.tensor([[7.0, 5.0], [2.0, 0.0]]), torch.tensor([[7.0, 5.5], [0.0, 0.0]])
    measures = compare(truth, found, torch.tensor([0, 0]))
    assert measures.relative_error == pytest.approx(math.sqrt((0.25 + 4.0) / 4.0))
    assert measures.largest_error == 2.0


def test_two_halves_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, found = torch.randn(2, 6, 9, generator=generator)
    targets = torch.randint(9, (6,), generator=generator)
    parts = [compare(truth[rows], found[rows], targets[rows]) for rows in (slice(0, 2), slice(2, 6))]
    whole = compare(truth, found, targets)
    for name in ("perplexity", "relative_error", "largest_error", "top1_agreement", "mean_kl", "largest_kl"):
        assert getattr(parts[0] + parts[1], name) == pytest.approx(getattr(whole, name))


def test_a_logit_that_is_not_a_number_breaks_the_bound() -> None:
    truth = torch.eye(2, 3)
    damaged = truth.clone()
    damaged[1, 1] = torch.nan
    targets = torch.tensor([0, 1])
    modes = {"exact": compare(truth, truth, targets), "damaged": compare(truth, damaged, targets)}
    assert len(broken_bounds(modes, "exact")) == 1


def test_a_window_is_covered_once_in_chunks_and_then_one_by_one() -> None:
    slices = list(spans(512))
    assert [position for start, end in slices for position in range(start, end)] == list(range(512))
    assert [end - start for start, end in slices[:4]] == [128, 128, 128, 64]
    assert {end - start for start, end in slices if start >= prompt_rows(512)} == {1}


def test_windows_are_of_one_length_and_long_enough_together(tiny: Path) -> None:
    windows = read_windows(tiny, TEXT, 300)
    assert {len(window) for window in windows} == {129}
    assert len(windows) == 3
    with pytest.raises(ValueError, match="too short"):
        read_windows(tiny, TEXT[:1], 300)


def test_logits_are_those_of_transformers(wide: Path) -> None:
    ids = read_windows(wide, TEXT, 100)[0][:-1]
    model = transformers_model(json.loads((wide / "config.json").read_text()))
    expected = model(torch.tensor([ids])).logits[0].detach()
    torch.testing.assert_close(TeacherForcing.load(wide, EXACT).logits(ids), expected, rtol=1e-4, atol=1e-4)


def test_a_mode_agrees_with_itself(tiny: Path) -> None:
    truth, same = measure_model(tiny, (REFERENCE, REFERENCE), read_windows(tiny, TEXT, 100))
    assert same.whole == truth.whole
    assert (same.whole.mean_kl, same.whole.largest_error, same.whole.top1_agreement) == (0.0, 0.0, 1.0)
    assert same.whole.tokens == 100


def test_a_damaged_weight_breaks_the_bounds(tiny: Path) -> None:
    windows = read_windows(tiny, TEXT, 100)
    reference, exact, damaged = (TeacherForcing.load(tiny, mode) for mode in (REFERENCE, EXACT, EXACT))
    damaged.decoder.weights.layers[1].down.weight[:, 5] += 0.5  # type: ignore[attr-defined]
    truth = [reference.logits(window[:-1]) for window in windows]
    modes = {}
    for name, model in (("exact", exact), ("damaged", damaged)):
        found = (model.logits(window[:-1]) for window in windows)
        modes[name] = sum(score(windows, truth, found).values(), Measures())
    assert [sentence.split(":")[0] for sentence in broken_bounds(modes, "exact")] == ["damaged"]
    assert broken_bounds(modes, "damaged")[0].startswith("damaged: relative error")


def test_outliers_change_the_activations_and_not_the_function(wide: Path, tmp_path: Path) -> None:
    write_variant(wide, tmp_path / "outliers", quantize=False, outliers=True)
    ids = read_windows(wide, TEXT, 100)[0]
    plain, outliers = (TeacherForcing.load(folder, EXACT) for folder in (wide, tmp_path / "outliers"))
    torch.testing.assert_close(outliers.logits(ids), plain.logits(ids), rtol=1e-3, atol=1e-3)
    for norm in ("input_norm", "post_norm"):
        factors = [getattr(model.decoder.weights.layers[2], norm).abs() for model in (outliers, plain)]
        assert sorted((factors[0] / factors[1]).round().tolist()) == [1.0] * 124 + [100.0] * 4


def test_quantizing_stays_near_the_weights_and_is_the_same_for_every_mode(wide: Path, tmp_path: Path) -> None:
    write_variant(wide, tmp_path / "awq", quantize=True, outliers=False)
    models = [TeacherForcing.load(folder, REFERENCE) for folder in (wide, tmp_path / "awq")]
    weights = [model.decoder.weights.layers[0].down for model in models]
    eye = torch.eye(256)
    dense, int4 = (weight(eye) for weight in weights)
    assert 0.02 < float((int4 - dense).norm() / dense.norm()) < 0.15  # 4 bits
    assert models[1].linear_formats() == {"DenseLinear": 1, "Int4Weight": 12}
    assert not broken_bounds(
        {
            result.mode.name: result.whole
            for result in measure_model(tmp_path / "awq", MODES[:2], read_windows(wide, TEXT, 100))
        },
        EXACT.name,
    )


def test_matrices_whose_sizes_do_not_divide_stay_dense(tiny: Path, tmp_path: Path) -> None:
    config = base_config(
        vocab_size=300, hidden_size=64, num_attention_heads=4, num_key_value_heads=4, intermediate_size=172
    )
    dense_checkpoint(tmp_path / "odd", config, transformers_model(config))
    write_variant(tmp_path / "odd", tmp_path / "awq", quantize=True, outliers=False)
    quantization = json.loads((tmp_path / "awq" / "config.json").read_text())["quantization_config"]
    assert quantization["group_size"] == 64
    assert len(quantization["modules_to_not_convert"]) == 9


@pytest.mark.parametrize(("sharpness", "code"), [(0.01, 0), (100.0, 1)])
def test_the_script_exits_with_1_where_rounding_decides_the_perplexity(
    sharpness: float, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, text, result = (
        tiny_chat_model(tmp_path / "model"),
        tmp_path / "text.txt",
        tmp_path / "result.json",
    )
    tensors = stored(folder)
    tensors["lm_head.weight"] *= sharpness
    save_file(tensors, folder / "model.safetensors")
    text.write_text("\n".join(TEXT))
    assert main([str(folder), "--tokens", "64", "--text", str(text), "--json", str(result)]) == code
    written, out = json.loads(result.read_text())["models"][0], capsys.readouterr().out
    assert [mode["tokens"] for mode in written["modes"]] == [64] * len(MODES)
    assert written["modes"][0]["parts"].keys() == {"prompt", "one by one"}
    assert all(mode.name in out for mode in MODES)
    assert bool(written["broken"]) == bool(code)
    assert all(sentence in out for sentence in written["broken"])


def test_every_mode_names_kernels_that_exist() -> None:
    assert all(select("cpu", mode.kernels).name == mode.kernels for mode in MODES)
