"""`llmcli tune`: what it says without a GPU, and what it finds, keeps and shows with one (here: the interpreter)."""

import importlib.util
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from llmcli.cli import tune as command
from llmcli.cli.app import run_command_line
from llmcli.gpu_facts import GpuFacts, NoGpu
from llmcli.runtime import gpu as gpu_module
from llmcli.runtime.tuning import Tuning, shape_of
from llmcli.runtime.tuning_file import user_tuning_file
from llmcli_kernels.tune.cases import Load, cases_for
from llmcli_kernels.tune.tuner import Case
from llmcli_kernels.tuning import load_table

H200 = GpuFacts(
    name="NVIDIA H200",
    capability=(9, 0),
    total_memory=1 << 37,
    free_memory=1 << 37,
    num_sms=132,
    triton="3.9.0",
)
TINY = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "vocab_size": 64,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "float16",
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose GPU may be Triton's interpreter; a case has three configs, each faster than the last."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    seconds = (1e-3 * 0.9**turn for turn in itertools.count())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(gpu_module, "find_gpu", lambda: H200)
    monkeypatch.setattr(
        command,
        "_start",
        lambda gpu, file, spec: Tuning(
            gpu, file, tiny_cases(spec), on_warning=command._say, timer=lambda calls: next(seconds)
        ),
    )
    return tmp_path


def tiny_cases(spec) -> list[Case]:
    """Attention of a few tokens, with 8 and with 16 bits."""
    load = Load(decodes=(((1, 20),),))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cases = cases_for((shape_of(spec),), device, load)
    return [
        replace(case, space={"num_warps": (4, 8)}) for case in cases if case.operation == "attention_decode"
    ]


@pytest.fixture
def model(tmp_path) -> str:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY))
    (folder / "model.safetensors").write_bytes(b"")
    return str(folder)


def test_the_file_is_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_tuning_file("NVIDIA H200") == tmp_path / "llmcli" / "tuning" / "NVIDIA H200.json"


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "..", "", "GPU\x00\n"])
def test_no_name_of_a_gpu_leads_out_of_the_folder(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = user_tuning_file(name)
    assert file.parent == tmp_path / "llmcli" / "tuning"
    assert file.resolve().parent == file.parent.resolve()
    assert file.name.isprintable()


@pytest.mark.parametrize(
    ("found", "fix"),
    [
        (NoGpu("the driver is asleep", "wake it"), "wake it"),
        (NoGpu("the driver is asleep"), "the kernels of the CPU need no tuning"),
    ],
)
def test_without_a_gpu_the_reason_and_what_to_do_are_told(monkeypatch, capsys, found, fix):
    monkeypatch.setattr(gpu_module, "find_gpu", lambda: found)
    assert run_command_line(["tune"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"error: there is no GPU to tune for: the driver is asleep\n  {fix}\n")


def test_a_model_that_is_not_here_is_told_before_the_gpu_is_looked_for(monkeypatch, capsys, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(gpu_module, "find_gpu", lambda: pytest.fail("looked for a GPU"))
    assert run_command_line(["tune", "ada/not-here"]) == 4
    assert "run `llmcli pull ada/not-here` first" in capsys.readouterr().err


def test_what_was_found_is_shown_and_kept_where_the_kernels_look_for_it(machine, model, capsys):
    assert run_command_line(["tune", model]) == 0
    out, err = capsys.readouterr()
    file = user_tuning_file(H200.name)
    assert "µs" in out
    assert f"kept in {file}" in err
    table, base = load_table((9, 0), file), load_table((9, 0))
    assert [row.config["num_warps"] for row in table.rows["attention_decode"][:2]] == [8, 8]
    assert table.rows["attention_decode"][2:] == base.rows["attention_decode"]
    assert json.loads(file.read_text())["about"]["gpu"] == "NVIDIA H200"


def test_json_has_every_case_with_both_configs(machine, model, capsys):
    assert run_command_line(["tune", model, "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert err == ""
    assert result["finished"]
    assert Path(result["file"]) == user_tuning_file(H200.name)
    for case in result["cases"]:
        assert case["before"].keys() == case["after"].keys()
        assert case["after_s"] < case["before_s"]


def test_ctrl_c_keeps_and_shows_what_was_found(machine, model, capsys, monkeypatch):
    from llmcli.runtime import tuning

    real, calls = tuning.tune, itertools.count()

    def interrupted(*args, **kwargs):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(tuning, "tune", interrupted)
    assert run_command_line(["tune", model, "--json"]) == 130
    out, err = capsys.readouterr()
    assert err.endswith("interrupted\n")
    assert len(json.loads(out)["cases"]) == 1
    assert not json.loads(out)["finished"]
    assert user_tuning_file(H200.name).exists()


def test_a_file_of_another_version_is_replaced_and_the_user_told(machine, model, capsys):
    file = user_tuning_file(H200.name)
    file.parent.mkdir(parents=True)
    file.write_text('{"operations": {"gone": [{"up_to": {}, "config": {}}]}}')
    assert run_command_line(["tune", model]) == 0
    assert "is not used and will be replaced" in capsys.readouterr().err
    assert "gone" not in file.read_text()


def test_a_gpu_that_can_not_go_on_ends_the_command(machine, model, capsys, monkeypatch):
    from llmcli.runtime import tuning

    def crash(*args, **kwargs):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nand more")

    monkeypatch.setattr(tuning, "tune", crash)
    assert run_command_line(["tune", model]) == 1
    assert "an illegal memory access was encountered\n  the GPU can not go on" in capsys.readouterr().err


def test_a_folder_that_can_not_be_written_is_told(machine, model, capsys):
    (machine / "cache").write_text("a file")
    assert run_command_line(["tune", model]) == 1
    assert "can not be written" in capsys.readouterr().err
