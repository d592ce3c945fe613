"""`llmcli show`: facts of a model, checked against the files and against safetensors' own reader."""

import json
import re
from pathlib import Path

import pytest

from llmcli.cli.app import run_command_line
from llmcli.config import HardwareFacts
from llmcli.gpu_facts import GpuFacts, NoGpu
from llmcli.hub.remote import MAX_TRIES
from tests.fake_hub import Fault, make_default, running_hub
from tests.repositories import AWQ, NUM_PARAMETERS, TEMPLATE, repository

H200 = GpuFacts(
    name="NVIDIA H200", capability=(9, 0), total_memory=140 << 30, free_memory=139 << 30, num_sms=132
)
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
    assert "chat template  yes: system prompt, no tools, no thinking" in out
    assert "sampling       temperature 0.7, top_p 0.9" in out
    facts, table = out.split("\n\n")
    assert {re.match(r"\w+( \w+)*  +", line).end() for line in facts.splitlines()} == {15}
    assert table.splitlines()[0].split("  ")[0] == "DEVICE"


def machine(free: int) -> HardwareFacts:
    """One with so much memory, and no GPU."""
    return HardwareFacts(
        total_memory=2 * free + 1,
        free_memory=free,
        num_cores=1,
        fast_bfloat16=True,
        native_kernels=False,
        gpu=NoGpu("there is none"),
    )


def test_a_model_that_does_not_fit_is_shown_all_the_same(tiny, capsys, monkeypatch):
    monkeypatch.setattr("llmcli.hardware.read_hardware_facts", lambda gpu: machine(0))
    assert run_command_line(["show", tiny]) == 0
    assert "does not fit" in capsys.readouterr().out


def test_the_form_of_the_output_head_is_shown_with_its_reason(tiny, capsys):
    here = shown(capsys, tiny)["here"]
    assert (here["lm_head"], here["lm_head_reason"]) == ("full", "as in the checkpoint")
    assert run_command_line(["show", tiny]) == 0
    assert "head here      full (as in the checkpoint)\n" in capsys.readouterr().out


def test_a_gpu_is_shown_with_its_memory_and_what_fits_on_it(tiny, capsys, monkeypatch):
    monkeypatch.setattr("llmcli.runtime.gpu.find_gpu", lambda: H200)
    here = shown(capsys, tiny)["here"]
    assert (here["device"], here["dtype"], here["gpu"]["name"]) == ("cuda", "bfloat16", "NVIDIA H200")
    assert run_command_line(["show", tiny]) == 0
    out = capsys.readouterr().out
    assert "GPU            NVIDIA H200, 139 GiB of 140 GiB free\n" in out
    assert "device here    cuda (NVIDIA H200)\n" in out


def test_a_gpu_that_can_not_be_used_is_shown_with_the_reason(tiny, capsys, monkeypatch):
    monkeypatch.setattr("llmcli.runtime.gpu.find_gpu", lambda: NoGpu("Triton is not installed", present=True))
    assert run_command_line(["show", tiny]) == 0
    assert "GPU            none to use: Triton is not installed\n" in capsys.readouterr().out


def test_an_architecture_that_is_not_supported_ends_with_code_5(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"architectures": ["MambaForCausalLM"]}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert run_command_line(["show", str(tmp_path)]) == 5
    assert "MambaForCausalLM" in capsys.readouterr().err


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The fake hub as this user's hub, with a model of each kind."""
    with running_hub() as running:
        make_default(running, tmp_path, monkeypatch)
        running.add("ada/dense", repository() | {"LICENSE": b"do as you like\n"})
        running.add("ada/awq", repository(AWQ))
        yield running


def test_a_model_on_the_hub_is_shown_without_fetching_its_weights(hub, capsys, tmp_path):
    facts = shown(capsys, "ada/awq")
    assert facts["parameters"] == NUM_PARAMETERS
    assert facts["quantization"]["group_size"] == 64
    assert (facts["source"], facts["path"], facts["url"]) == ("hub", None, f"{hub.url}/ada/awq")
    assert (facts["licence"], facts["gate"]) == ("apache-2.0", "")
    assert facts["here"]["fits"]
    assert facts["generation_defaults"] == {"temperature": 0.7}
    assert facts["chat_template"]["system"]
    assert all(last is not None for _, last in hub.ranges("model.safetensors"))
    assert not (tmp_path / "hub").exists()


def test_on_the_hub_and_in_the_cache_a_model_is_the_same(hub, capsys):
    there = shown(capsys, "ada/dense")
    assert run_command_line(["pull", "--quiet", "ada/dense"]) == 0
    capsys.readouterr()
    here = shown(capsys, "ada/dense")
    same = set(there) - {"path", "here"}
    assert {key: here[key] for key in same} == {key: there[key] for key in same}


def test_licence_and_gate_of_a_cached_model_are_asked_for_unless_offline(hub, capsys):
    assert run_command_line(["pull", "--quiet", "ada/dense"]) == 0
    hub.repos["ada/dense"].gated = frozenset()
    capsys.readouterr()
    assert (shown(capsys, "ada/dense")["licence"], shown(capsys, "ada/dense")["gate"]) == (
        "apache-2.0",
        "manual",
    )
    hub.requests.clear()
    assert shown(capsys, "ada/dense", "--offline")["licence"] is None
    assert not hub.requests


def test_a_hub_that_is_down_hides_only_the_licence_of_a_cached_model(hub, capsys):
    assert run_command_line(["pull", "--quiet", "ada/dense"]) == 0
    capsys.readouterr()
    hub.fail(hub.repos["ada/dense"].commit("main"), *[Fault("status", 500)] * MAX_TRIES)
    assert shown(capsys, "ada/dense")["licence"] is None


def test_the_table_has_a_row_for_each_way_that_does_better(hub, capsys, monkeypatch):
    hub.add("ada/long", repository({"max_position_embeddings": 1 << 20}))
    monkeypatch.setattr("llmcli.hardware.read_hardware_facts", lambda gpu: machine(70 << 20))
    assert run_command_line(["show", "ada/long"]) == 0
    _, table = capsys.readouterr().out.split("\n\n")
    first, second = (re.split("  +", line) for line in table.splitlines()[1:])
    assert first[:2] == ["cpu", "-"]
    assert second[:2] == ["cpu", "--kv-cache-dtype int8"]
    assert int(first[5].replace(",", "")) < int(second[5].replace(",", "")) < 1 << 20
    assert shown(capsys, "ada/long")["here"]["what_would_help"] == [
        f"--kv-cache-dtype int8 gives {second[5]} tokens"
    ]


def test_the_device_may_be_chosen(hub, capsys, monkeypatch):
    monkeypatch.setattr("llmcli.runtime.gpu.find_gpu", lambda: H200)
    assert shown(capsys, "ada/dense", "--device", "cpu")["here"]["device"] == "cpu"
    assert {way["device"] for way in shown(capsys, "ada/dense")["here"]["ways"]} == {"cuda", "cpu"}
    monkeypatch.setattr("llmcli.runtime.gpu.find_gpu", lambda: NoGpu("there is none"))
    assert run_command_line(["show", "ada/dense", "--device", "cuda"]) == 2
    assert "--device cuda: there is none" in capsys.readouterr().err


@pytest.mark.parametrize("pulled", [False, True], ids=["on the hub", "in the cache"])
def test_one_part_alone_is_printed_as_it_is(hub, capsys, pulled):
    if pulled:
        assert run_command_line(["pull", "--quiet", "ada/dense"]) == 0
        capsys.readouterr()
    for option, text in (
        ("--template", TEMPLATE),
        ("--config", repository()["config.json"].decode()),
        ("--params", "temperature 0.7"),
        ("--license", "do as you like\n"),
    ):
        assert run_command_line(["show", "ada/dense", option]) == 0
        assert capsys.readouterr().out == f"{text}\n"


def test_a_licence_without_a_file_is_told_by_its_name(hub, capsys):
    assert run_command_line(["show", "ada/awq", "--license"]) == 0
    assert capsys.readouterr().out == "apache-2.0\n"
    assert run_command_line(["show", "--license"]) == 0
    assert capsys.readouterr().out == "apache-2.0\n"


@pytest.mark.parametrize("options", [("--template", "--config"), ("--json", "--template")])
def test_two_parts_at_once_exclude_each_other(hub, capsys, options):
    assert run_command_line(["show", "ada/awq", *options]) == 2
    assert f"{options[0]} and {options[1]} exclude each other" in capsys.readouterr().err


def test_the_variable_that_other_programs_name_a_file_of_settings_by_is_no_wish_for_config_json(
    capsys, monkeypatch
):
    monkeypatch.setenv("LLMCLI_CONFIG", "/etc/llmcli.toml")
    assert run_command_line(["show", "tiny-chat"]) == 0
    assert capsys.readouterr().out.startswith("model ")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["ada/dnese"], 4, "did you mean ada/dense"),
        (["nonsense"], 2, "not owner/name"),
        (["ada/dense@v9"], 4, "has no revision 'v9'"),
        (["ada/dense", "--offline"], 4, "not in the cache, and the network is off"),
    ],
)
def test_what_can_not_be_found_is_told(hub, capsys, arguments, code, message):
    assert run_command_line(["show", *arguments]) == code
    assert message in capsys.readouterr().err


def test_a_gated_model_says_how_to_get_access(hub, capsys):
    hub.repos["ada/dense"].gated = frozenset()
    assert run_command_line(["show", "ada/dense"]) == 4
    assert "is gated, and no token was sent" in capsys.readouterr().err


def test_an_architecture_on_the_hub_that_is_not_supported_is_told_by_the_models_name(hub, capsys):
    hub.add("ada/odd", repository({"architectures": ["MambaForCausalLM"]}))
    assert run_command_line(["show", "ada/odd"]) == 5
    assert 'ada/odd/config.json: architecture ["MambaForCausalLM"]' in capsys.readouterr().err
