"""Whole models from dense to 4 bits: against autoawq and transformers, stopped anywhere, refused in time."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from llmcli import LLM, SamplingParams
from llmcli.errors import (
    CheckpointError,
    LLMCliError,
    MissingExtraError,
    OutputError,
    UnsupportedModelError,
    UsageError,
)
from llmcli.hub.models import LocalModel
from llmcli.jobs.quantize.job import LayerDone, QuantizeResult, quantize
from llmcli.jobs.quantize.plan import QuantizePlan
from tests.quantize.small_models import FAMILIES, all_tensors, dequantized, small_config, small_model
from tests.tiny_models import load_runner, logits, save_checkpoint, stored, transformers_model

QUICK = {"group_size": 32, "calib_samples": 6, "calib_seqlen": 32, "device": "cpu", "threads": 1}


class Stopped(KeyboardInterrupt):
    """Ctrl-C, at a place that a test chooses."""


def run(
    folder: Path, out: Path, stop_after: int | None = None, name: str = "", **changes: Any
) -> QuantizeResult:
    def on_layer(done: LayerDone) -> None:
        if done.number == stop_after:
            raise Stopped

    model = LocalModel(name or str(folder), folder, None, "hub" if name else "folder")
    return quantize(model, QuantizePlan(out=out, **(QUICK | changes)), lambda line: None, on_layer)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(folder: Path, out: Path, **changes: Any) -> str:
    with pytest.raises(LLMCliError) as caught:
        run(folder, out, **changes)
    return str(caught.value)


@pytest.mark.parametrize("zero_point", [True, False])
@pytest.mark.parametrize("method", ["awq", "rtn"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_result_loads_and_computes_what_its_dequantised_weights_do(
    tmp_path, family, method, zero_point
) -> None:
    folder, out = small_model(tmp_path / "dense", **FAMILIES[family]), tmp_path / "out"
    run(folder, out, method=method, zero_point=zero_point, dtype="float32", evaluate=False)
    reference = transformers_model(small_config(**FAMILIES[family]))
    missing, unexpected = reference.load_state_dict(dequantized(out), strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    ids = torch.randint(0, 300, (20,), generator=torch.Generator().manual_seed(2)).tolist()
    with torch.inference_mode():
        expected = reference(torch.tensor([ids])).logits[0]
    found = logits(load_runner(out), ids)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_rounding_alone_moves_weights_by_as_much_as_it_says(tmp_path, family) -> None:
    folder, out = small_model(tmp_path / "dense", **FAMILIES[family]), tmp_path / "out"
    result = run(folder, out, method="rtn", evaluate=False)
    before, after = stored(folder), dequantized(out)
    for index, error in enumerate(result.errors):
        names = [n for n in before if n.startswith(f"model.layers.{index}.") and n.endswith("_proj.weight")]
        assert len(names) == 7
        moved = sum(float((before[name] - after[name]).square().sum()) for name in names)
        size = sum(float(before[name].square().sum()) for name in names)
        assert error == pytest.approx(math.sqrt(moved / size), rel=1e-3)
        assert error < 0.12


def test_config_tokenizer_card_and_weights_are_all_there_and_nothing_else(tmp_path) -> None:
    folder, out = small_model(tmp_path / "dense", torch_dtype="float32"), tmp_path / "out"
    (folder / "generation_config.json").write_text('{"temperature": 0.5}')
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Small\n")
    (folder / "model.py").write_text("no")
    run(folder, out, name="org/small")
    assert sorted(contents(out)) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = json.loads((out / "config.json").read_text())
    assert config["quantization_config"] == {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 32,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": ["lm_head"],
    }
    assert config["torch_dtype"] == "float16"
    card = (out / "README.md").read_text()
    assert card.startswith(
        "---\nbase_model: org/small\nbase_model_relation: quantized\nlicense: apache-2.0\n"
    )
    assert "llmcli quantize --method awq" in card
    assert all(t.dtype in (torch.float16, torch.int32) for t in all_tensors(out).values())


def test_the_result_generates(tmp_path) -> None:
    folder, out = small_model(tmp_path / "dense"), tmp_path / "out"
    run(folder, out, evaluate=False)
    params = SamplingParams(temperature=0, max_tokens=4)
    (answer,) = LLM(out, num_threads=1).generate("hello", params, use_tqdm=False)
    assert answer.outputs[0].token_ids


@pytest.mark.parametrize("method", ["awq", "rtn"])
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_run_stopped_after_any_layer_goes_on_to_the_same_bytes(tmp_path, method, layer) -> None:
    folder = small_model(tmp_path / "dense", tie_word_embeddings=True)
    run(folder, tmp_path / "whole", method=method)
    with pytest.raises(Stopped):
        run(folder, tmp_path / "out", method=method, stop_after=layer)
    assert not (tmp_path / "out").exists()
    result = run(folder, tmp_path / "out", method=method, resume=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert len(result.errors) == 3
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("done", [0, 1, 2, 3, 4])
def test_a_run_killed_before_it_recorded_a_stage_does_that_stage_again(tmp_path, done) -> None:
    folder, out = small_model(tmp_path / "dense"), tmp_path / "out"
    run(folder, tmp_path / "whole")
    with pytest.raises(Stopped):
        run(folder, out, stop_after=3)
    state_file = tmp_path / "out.partial" / "quantize-state.json"
    state = json.loads(state_file.read_text())
    assert state["done"] == 4
    state |= {"done": done, "errors": state["errors"][: max(done - 1, 0)]}
    state_file.write_text(json.dumps(state))
    run(folder, out, resume=True)
    assert contents(out) == contents(tmp_path / "whole")


def test_what_an_earlier_run_has_done_is_neither_lost_nor_mixed_with_something_else(tmp_path) -> None:
    folder, other = small_model(tmp_path / "dense"), small_model(tmp_path / "other", rope_theta=20000.0)
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        run(folder, out, stop_after=1)
    assert "add --resume to go on with it, or --overwrite" in refusal(folder, out)
    assert "begun with --group-size 32, now it is 64" in refusal(
        folder, out, resume=True, group_size=64, skip=("down_proj",)
    )
    assert "begun with the calibration text" in refusal(folder, out, resume=True, calib_samples=2)
    assert "begun with another model" in refusal(other, out, resume=True)
    run(folder, out, resume=True)


def test_a_folder_that_is_there_is_replaced_only_when_asked_and_when_the_new_one_is_whole(tmp_path) -> None:
    folder, out = small_model(tmp_path / "dense"), tmp_path / "out"
    run(folder, out, method="rtn")
    before = contents(out)
    assert "is there already, and not empty" in refusal(folder, out)
    with pytest.raises(Stopped):
        run(folder, out, overwrite=True, stop_after=2)
    assert contents(out) == before
    run(folder, out, overwrite=True)
    assert contents(out) != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dense", "out"]


def test_a_folder_that_is_no_model_is_never_replaced(tmp_path) -> None:
    folder, out = small_model(tmp_path / "dense"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    assert "no model's folder" in refusal(folder, out, overwrite=True)
    assert "a file" in refusal(folder, out / "thesis.txt", overwrite=True)
    (tmp_path / "new.partial").mkdir()
    (tmp_path / "new.partial" / "thesis.txt").write_text("years of work")
    assert "not from `llmcli quantize`" in refusal(folder, tmp_path / "new", overwrite=True)
    assert (tmp_path / "new.partial" / "thesis.txt").exists()


@pytest.mark.parametrize("place", [".", "inside", ".."])
def test_the_models_own_folder_is_no_place_for_the_result(tmp_path, place) -> None:
    folder = small_model(tmp_path / "around" / "dense")
    assert "overlap" in refusal(folder, folder / place, overwrite=True)


def test_a_second_process_is_kept_out(tmp_path) -> None:
    folder, out = small_model(tmp_path / "dense"), tmp_path / "out"
    with pytest.raises(Stopped):
        run(folder, out, stop_after=1)
    from filelock import FileLock

    with FileLock(tmp_path / "out.partial" / "quantize.lock"):
        assert "another process" in refusal(folder, out, resume=True)
    run(folder, out, resume=True)


def test_an_unknown_architecture_is_refused_before_weights_are_opened(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    (tmp_path / "model.safetensors").write_bytes(b"not even safetensors")
    with pytest.raises(UnsupportedModelError, match="GPT2LMHeadModel"):
        run(tmp_path, tmp_path.parent / "out")


def test_a_quantized_model_is_refused(tmp_path) -> None:
    run(small_model(tmp_path / "dense"), tmp_path / "once", evaluate=False)
    assert "quantized already" in refusal(tmp_path / "once", tmp_path / "twice")


def test_sizes_that_groups_do_not_divide_are_refused_with_what_would_do(tmp_path) -> None:
    folder = small_model(tmp_path / "dense")
    said = refusal(folder, tmp_path / "out", group_size=64)
    assert "mlp.down_proj has 64 outputs and 96 inputs" in said
    assert "use --group-size 32" in said
    odd = small_model(tmp_path / "odd", intermediate_size=100)
    said = refusal(odd, tmp_path / "out")
    assert "--skip lm_head,gate_proj,up_proj,down_proj" in said
    run(odd, tmp_path / "out", skip=("gate_proj", "up_proj", "down_proj"))
    names = all_tensors(tmp_path / "out")
    assert "model.layers.0.mlp.up_proj.weight" in names
    assert "model.layers.0.self_attn.o_proj.qweight" in names
    assert logits(load_runner(tmp_path / "out", dtype="float32"), [1, 2, 3]).isfinite().all()


@pytest.mark.parametrize("method", ["awq", "rtn"])
def test_a_damaged_weight_is_named_and_what_was_done_is_kept(tmp_path, method) -> None:
    folder, out = small_model(tmp_path / "dense"), tmp_path / "out"
    tensors = stored(folder)
    tensors["model.layers.1.self_attn.k_proj.weight"][0, 0] = math.inf
    save_checkpoint(folder, small_config(), tensors)
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.self_attn\.k_proj\.weight"):
        run(folder, out, method=method)
    assert json.loads((tmp_path / "out.partial" / "quantize-state.json").read_text())["done"] == 2
    assert not out.exists()


def test_values_beyond_float16_are_refused_with_what_would_do(tmp_path) -> None:
    folder, out = small_model(tmp_path / "dense"), tmp_path / "out"
    tensors = stored(folder)
    tensors["model.norm.weight"][0] = 1e5
    save_checkpoint(folder, small_config(), tensors)
    said = refusal(folder, out)
    assert "model.norm.weight does not fit" in said
    assert "--dtype bfloat16" in said
    assert run(folder, out, dtype="bfloat16", overwrite=True).bytes_after


def test_a_missing_tensor_is_named_before_anything_is_written(tmp_path) -> None:
    folder = small_model(tmp_path / "dense")
    tensors = stored(folder)
    del tensors["model.layers.2.mlp.up_proj.weight"]
    save_checkpoint(folder, small_config(), tensors)
    assert "lacks tensor model.layers.2.mlp.up_proj.weight" in refusal(folder, tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


def test_files_in_and_out_may_be_many(tmp_path) -> None:
    folder = small_model(tmp_path / "dense")
    run(folder, tmp_path / "one")
    tensors = stored(folder)
    (folder / "model.safetensors").unlink()
    weight_map = {name: f"model-{index % 3}.safetensors" for index, name in enumerate(sorted(tensors))}
    for file in set(weight_map.values()):
        save_file({n: tensors[n].clone() for n in tensors if weight_map[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    run(folder, tmp_path / "many", shard_bytes=40_000)
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 3
    one, many = all_tensors(tmp_path / "one"), all_tensors(tmp_path / "many")
    assert one.keys() == many.keys()
    assert all(torch.equal(one[name], many[name]) for name in one)
    assert logits(load_runner(tmp_path / "many", dtype="float32"), [1, 2]).isfinite().all()


def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path, monkeypatch) -> None:
    folder, out = small_model(tmp_path / "dense"), tmp_path / "out"
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(OutputError, match="needs"):
        run(folder, out)
    monkeypatch.undo()
    run(folder, out, resume=True)


def test_autoawq_is_asked_for_only_where_it_is_installed(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "awq", None)
    folder = small_model(tmp_path / "dense")
    with pytest.raises(MissingExtraError, match="autoawq") as caught:
        run(folder, tmp_path / "out", method="autoawq")
    assert 'pip install "llmcli[quantize]"' in caught.value.fix
    assert "no --sym" in refusal(folder, tmp_path / "out", method="autoawq", zero_point=False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bits": 3}, "--bits 3 is not supported\nsupported: 4"),
        ({"group_size": 16}, "supported: 32, 64, 128"),
        ({"device": "tpu"}, "--device tpu"),
        ({"calib_samples": 0}, "--calib-samples must be at least 1"),
        ({"calib_seqlen": 3}, "--calib-seqlen must be at least 16"),
        ({"threads": 0}, "--threads must be at least 1"),
        ({"resume": True, "overwrite": True}, "give one of them"),
        ({"calib_dataset": "c4"}, "--calib-dataset c4 is not known"),
        ({"eval_dataset": "none.txt"}, "--eval-dataset none.txt: there is no such file"),
    ],
)
def test_what_can_not_be_done_is_refused_with_what_can(changes, said) -> None:
    with pytest.raises(UsageError) as caught:
        QuantizePlan(out=Path("out"), **changes)
    assert said in str(caught.value)


# Perplexity on held-out stories, at most so many times that of the dense model.
REAL = {
    ("TinyStories-656K", "awq"): ({"group_size": 128}, 1.2),
    ("TinyStories-656K", "rtn"): ({"group_size": 128}, 1.2),
    ("stories260K", "awq"): ({"group_size": 32, "skip": ("mlp",)}, 1.1),
    ("stories260K", "rtn"): ({"group_size": 32, "skip": ("mlp",)}, 1.1),
}


@pytest.mark.parametrize(("name", "method"), REAL)
def test_real_models_lose_little(tmp_path, shared_data, name, method) -> None:
    stories = (shared_data / "corpora" / "tinystories_sample_4M.txt").read_text()
    (tmp_path / "calibration.txt").write_text(stories[:60_000])
    (tmp_path / "held_out.txt").write_text(stories[-60_000:])
    changes, most = REAL[name, method]
    result = run(
        shared_data / "models" / name,
        tmp_path / "out",
        method=method,
        calib_dataset=str(tmp_path / "calibration.txt"),
        eval_dataset=str(tmp_path / "held_out.txt"),
        **({"calib_samples": 32, "calib_seqlen": 256} | changes),
    )
    assert result.perplexity_before is not None
    assert result.perplexity_after is not None
    assert 0.99 < result.perplexity_after / result.perplexity_before < most
    assert result.bytes_after < result.bytes_before
