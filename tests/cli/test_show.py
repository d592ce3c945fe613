"""`llmcli show`: facts of a model, checked against the files and against safetensors' own reader."""

import json
import re
from pathlib import Path

import pytest

from llmcli.cli.app import run_command_line

MODELS = Path(__file__).parents[2].parent / "shared" / "data" / "models"
TINY = MODELS / "stories260K"


@pytest.fixture
def tiny() -> str:
    """A real small model, where its files are at hand."""
    if not TINY.is_dir():
        pytest.skip(f"{TINY} is not here")
    return str(TINY)


def shown(capsys, *args: str) -> dict[str, object]:
    """What `llmcli show --json` prints."""
    assert run_command_line(["show", *args, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert isinstance(facts, dict)
    return facts


def write_awq(folder: Path) -> int:
    """A model of one layer whose q_proj is packed; returns the number of its weights."""
    import numpy as np
    from safetensors.numpy import save_file

    config = json.loads((TINY / "config.json").read_text()) | {
        "num_hidden_layers": 1,
        "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    name = "model.layers.0.self_attn.q_proj"
    save_file(
        {
            f"{name}.qweight": np.zeros((64, 8), np.int32),
            f"{name}.qzeros": np.zeros((1, 8), np.int32),
            f"{name}.scales": np.zeros((1, 64), np.float16),
            "model.norm.weight": np.zeros(64, np.float16),
        },
        folder / "model.safetensors",
    )
    return 64 * 64 + 64


def test_the_number_of_parameters_is_that_of_the_file(tiny, capsys):
    from safetensors.numpy import load_file

    tensors = load_file(Path(tiny) / "model.safetensors")
    facts = shown(capsys, tiny)
    assert facts["parameters"] == sum(t.size for name, t in tensors.items() if name != "lm_head.weight")


def test_the_shape_is_that_of_config_json(tiny, capsys):
    config = json.loads((Path(tiny) / "config.json").read_text())
    facts = shown(capsys, tiny)
    assert facts["architecture"] == config["architectures"][0]
    assert facts["layers"] == config["num_hidden_layers"]
    assert facts["context"] == config["max_position_embeddings"]
    assert facts["vocabulary"] == config["vocab_size"]
    assert facts["quantization"] is None


def test_the_plan_for_this_machine_is_given(tiny, capsys):
    here = shown(capsys, tiny)["here"]
    assert here["fits"]
    assert "KV cache" in here["memory"]
    assert here["full_length_sequences"] >= 1


def test_packed_weights_are_counted_singly(tiny, tmp_path, capsys):
    num_parameters = write_awq(tmp_path)
    facts = shown(capsys, str(tmp_path))
    assert facts["parameters"] == num_parameters
    assert facts["quantization"]["group_size"] == 64


def test_people_get_one_aligned_line_per_fact(tiny, tmp_path, capsys):
    write_awq(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.7, "top_p": 0.9}')
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert run_command_line(["show", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "quantization   awq, 4 bits, groups of 64, with zero points, gemm" in out
    assert "chat template  yes" in out
    assert "sampling       temperature 0.7, top_p 0.9" in out
    assert {re.match(r"\w+( \w+)*  +", line).end() for line in out.splitlines()} == {15}


def test_a_model_that_does_not_fit_is_shown_all_the_same(tiny, capsys, monkeypatch):
    from llmcli.cli import show
    from llmcli.config import HardwareFacts
    from llmcli.gpu_facts import NoGpu

    none = HardwareFacts(
        total_memory=1 << 20,
        free_memory=0,
        num_cores=1,
        fast_bfloat16=False,
        native_kernels=False,
        gpu=NoGpu("there is none"),
    )
    monkeypatch.setattr(show, "read_hardware_facts", lambda gpu: none)
    assert run_command_line(["show", tiny]) == 0
    assert "does not fit" in capsys.readouterr().out


def test_the_form_of_the_output_head_is_shown_with_its_reason(tiny, capsys):
    here = shown(capsys, tiny)["here"]
    assert (here["lm_head"], here["lm_head_reason"]) == ("full", "as in the checkpoint")
    assert run_command_line(["show", tiny]) == 0
    assert "head here      full (as in the checkpoint)\n" in capsys.readouterr().out


def test_a_gpu_is_shown_with_its_memory_and_what_fits_on_it(tiny, capsys, monkeypatch):
    from llmcli.cli import show
    from llmcli.gpu_facts import GpuFacts

    gpu = GpuFacts(
        name="NVIDIA H200", capability=(9, 0), total_memory=140 << 30, free_memory=139 << 30, num_sms=132
    )
    monkeypatch.setattr(show, "find_gpu", lambda: gpu)
    here = shown(capsys, tiny)["here"]
    assert (here["device"], here["dtype"], here["gpu"]["name"]) == ("cuda", "bfloat16", "NVIDIA H200")
    assert run_command_line(["show", tiny]) == 0
    out = capsys.readouterr().out
    assert "GPU            NVIDIA H200, 139 GiB of 140 GiB free\n" in out
    assert "device here    cuda (NVIDIA H200)\n" in out


def test_a_gpu_that_can_not_be_used_is_shown_with_the_reason(tiny, capsys, monkeypatch):
    from llmcli.cli import show
    from llmcli.gpu_facts import NoGpu

    monkeypatch.setattr(show, "find_gpu", lambda: NoGpu("Triton is not installed", present=True))
    assert run_command_line(["show", tiny]) == 0
    assert "GPU            none to use: Triton is not installed\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [("ada/not-here", 4, "run `llmcli pull ada/not-here` first"), ("nonsense", 2, "not owner/name")],
)
def test_what_is_not_here_is_told_and_not_fetched(capsys, monkeypatch, tmp_path, name, code, message):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert run_command_line(["show", name]) == code
    assert message in capsys.readouterr().err


def test_an_architecture_that_is_not_supported_ends_with_code_5(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"architectures": ["MambaForCausalLM"]}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert run_command_line(["show", str(tmp_path)]) == 5
    assert "MambaForCausalLM" in capsys.readouterr().err
