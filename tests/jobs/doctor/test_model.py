"""One model: where it is, what its files are worth, and how it would run."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from llmcli.config import GIB, MIB, EngineConfig, HardwareFacts
from llmcli.errors import CheckpointError, DoesNotFitError, UsageError
from llmcli.gpu_facts import GpuFacts, NoGpu
from llmcli.hub.download import obtain
from llmcli.hub.models import bundled_model
from llmcli.hub.names import HubId
from llmcli.jobs.doctor.model import (
    Place,
    check_config,
    check_files,
    check_place,
    check_plan,
    check_smoke,
    check_tokenizer,
    find_place,
)
from llmcli.jobs.doctor.smoke import NUM_TOKENS, generate
from llmcli.model.facts import read_model_facts
from llmcli.model.spec import read_model_spec
from tests.tiny_models import tiny_chat_model

BUNDLED = bundled_model().path
FACTS = read_model_facts(BUNDLED)
MACHINE = HardwareFacts(
    total_memory=16 * GIB,
    free_memory=8 * GIB,
    num_cores=4,
    fast_bfloat16=False,
    native_kernels=True,
    gpu=NoGpu("no NVIDIA driver was found"),
)
H200 = GpuFacts(
    name="NVIDIA H200", capability=(9, 0), total_memory=140 * GIB, free_memory=139 * GIB, num_sms=132
)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return tiny_chat_model(tmp_path / "tiny")


def test_the_bundled_model_is_here(settings) -> None:
    finding = check_place(find_place("tiny-chat", None, settings))
    assert (finding.status, finding.found) == ("pass", "tiny-chat: comes with llmcli")


def test_a_folder_is_here(tiny: Path, settings) -> None:
    place = find_place(str(tiny), None, settings)
    assert check_place(place).found == f"{tiny}: a folder"
    assert place.hub_id is None


def test_a_cached_model_is_here_with_its_commit(hub, settings, notices) -> None:
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"w"}
    commit = hub.add("ada/model", files)
    obtain(HubId("ada/model"), settings, notices)
    place = find_place("ada/model", None, settings)
    assert check_place(place).found == f"ada/model at {commit[:7]}: from the hub, in the cache"
    assert place.hub_id == HubId("ada/model", commit)


def test_a_model_that_is_not_here_is_a_warning_with_the_command(settings) -> None:
    finding = check_place(find_place("ada/model", "v1", settings))
    assert (finding.status, finding.found) == ("warn", "ada/model@v1 is not on this machine")
    assert finding.fix.startswith("llmcli pull ada/model@v1")


def test_an_incomplete_model_names_what_it_lacks() -> None:
    finding = check_place(Place(None, HubId("ada/model"), ("tokenizer.json",)))
    assert finding.found == "ada/model is in the cache, but lacks tokenizer.json"


def test_what_is_neither_a_name_nor_a_folder_is_the_error_of_every_command(settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        find_place("nonsense", None, settings)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        find_place(str(tmp_path), None, settings)


def test_the_config_is_told_with_architecture_and_quantization() -> None:
    finding = check_config(read_model_spec(BUNDLED))
    assert (finding.status, finding.found) == ("pass", "LlamaForCausalLM, AWQ 4-bit (gemm), groups of 64")


def test_a_dense_config_is_told_with_its_dtype(tiny: Path) -> None:
    assert check_config(read_model_spec(tiny)).found.startswith("LlamaForCausalLM, ")
    assert "AWQ" not in check_config(read_model_spec(tiny)).found


def test_whole_files_pass_with_their_size(tiny: Path) -> None:
    from safetensors import safe_open

    with safe_open(tiny / "model.safetensors", "pt") as file:
        count = len(list(file.keys()))
    assert check_files(tiny).found.startswith(f"{count} tensors in 1 safetensors file, ")


def test_a_cut_file_is_the_error_of_every_command(tiny: Path) -> None:
    weights = tiny / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="bytes of data"):
        check_files(tiny)


def test_a_tokenizer_with_a_template_passes(tiny: Path) -> None:
    finding = check_tokenizer(tiny, read_model_spec(tiny))
    assert finding.status == "pass"
    assert finding.found == "300 tokens; the chat template works and takes a system prompt"


def test_a_template_that_refuses_a_system_prompt_passes_and_says_so(tiny: Path) -> None:
    path = tiny / "tokenizer_config.json"
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages }}"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": refusing}))
    assert check_tokenizer(tiny, read_model_spec(tiny)).found.endswith("refuses a system prompt")


def test_without_a_template_there_is_a_warning(tiny: Path) -> None:
    path = tiny / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["chat_template"]
    path.write_text(json.dumps(settings))
    finding = check_tokenizer(tiny, read_model_spec(tiny))
    assert finding.status == "warn"
    assert "no chat template" in finding.found


def test_a_tokenizer_of_another_model_fails(tiny: Path) -> None:
    spec = replace(read_model_spec(tiny), vocab_size=299)
    finding = check_tokenizer(tiny, spec)
    assert (finding.status, finding.found) == ("fail", "the tokenizer has 300 tokens, config.json has 299")


def test_a_model_that_fits_tells_where_it_runs_and_why_each_value_is_what_it_is() -> None:
    finding = check_plan(FACTS, EngineConfig(), MACHINE)
    assert finding.status == "pass"
    assert finding.found.startswith("fits here on the CPU: weights ")
    assert " of 8.0 GiB free; context 1,024 tokens, " in finding.found
    assert "device: cpu (no NVIDIA driver was found)" in finding.details
    assert "threads: 1 (the model is too small for more to pay)" in finding.details
    assert "context: 1,024 (the model's)" in finding.details


def test_a_model_that_fits_on_the_gpu_says_so_and_what_the_cpu_could_do() -> None:
    finding = check_plan(FACTS, EngineConfig(), replace(MACHINE, gpu=H200))
    assert finding.found.startswith("fits here on the GPU: ")
    assert "device: cuda (NVIDIA H200)" in finding.details
    assert finding.details[-1].startswith("--device cpu: context 1,024, ")


def test_a_model_that_fits_with_a_shorter_context_is_a_warning_with_what_holds_more() -> None:
    finding = check_plan(FACTS, EngineConfig(kv_cache_memory=MIB), MACHINE)
    assert finding.status == "warn"
    assert " of 1,024 tokens, " in finding.found
    more = re.fullmatch(r"--kv-cache-dtype int8 gives ([\d,]+) tokens; raise --kv-cache-memory", finding.fix)
    assert more is not None
    assert finding.details[-1].startswith(f"--kv-cache-dtype int8: context {more[1]}, ")


def test_a_model_that_does_not_fit_is_the_error_of_every_command() -> None:
    with pytest.raises(DoesNotFitError, match="does not fit"):
        check_plan(FACTS, EngineConfig(), replace(MACHINE, free_memory=MIB))


def test_the_smoke_test_generates_what_greedy_decoding_does() -> None:
    from llmcli import LLM, SamplingParams
    from llmcli.jobs.doctor.smoke import PROMPT

    answer = generate(str(BUNDLED), "tiny-chat", {"device": "cpu"})
    params = SamplingParams(temperature=0, max_tokens=NUM_TOKENS)
    expected = LLM(device="cpu").chat([{"role": "user", "content": PROMPT}], params, use_tqdm=False)
    assert answer["text"] == expected[0].outputs[0].text
    assert 1 <= answer["tokens"] <= NUM_TOKENS


def test_an_answer_passes_with_its_speed() -> None:
    finding = check_smoke({"text": "Hi\n", "tokens": 16, "load_s": 1.0, "answer_s": 0.5})
    assert finding.status == "pass"
    assert "(32 tok/s" in finding.found
    assert finding.details == ("Hi\\n",)


def test_an_empty_answer_is_a_warning() -> None:
    assert check_smoke({"text": "", "tokens": 0, "load_s": 1.0, "answer_s": 0.0}).status == "warn"
