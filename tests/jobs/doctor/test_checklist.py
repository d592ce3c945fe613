"""The list of checks: what is asked of what, and what is left out when something below it does not work."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llmcli.config import EngineConfig
from llmcli.errors import LLMCliError
from llmcli.jobs.doctor import checklist
from llmcli.jobs.doctor.check import Finding, run_check
from llmcli.jobs.doctor.checklist import Checklist, Question
from llmcli.jobs.doctor.terminal import TerminalFacts
from tests.fake_hub import FakeHub, make_default, running_hub
from tests.repositories import repository
from tests.tiny_models import tiny_chat_model

TERMINAL = TerminalFacts(on_terminal=(), columns=80, rows=24, encoding="utf-8", environment={})
NO_TORCH = "ModuleNotFoundError: No module named 'torch'"
MODEL_CHECKS = ["model", "access", "config.json", "weights", "tokenizer", "plan"]
Findings = dict[str, Finding]
TORCH_ON_A_CPU = {
    "version": "2.13.0",
    "cuda": None,
    "threads": 1,
    "import_s": 1.0,
    "gpu": None,
    "no_gpu": {"reason": "no NVIDIA driver was found", "fix": "", "present": False},
}


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Findings]:
    """Runs checks by name, all facts of torch given, on a hub that is not there."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(*names: str, apart: object = TORCH_ON_A_CPU, **question: object) -> Findings:
        def call_apart(function: object, **arguments: object) -> object:
            if isinstance(apart, Exception):
                raise apart
            return apart

        monkeypatch.setattr(checklist, "call_apart", call_apart)
        asked = Question(**{"environment": {}, "terminal": TERMINAL, "offline": True} | question)
        checks = Checklist(asked).checks()
        return {check.name: run_check(check).finding for check in checks if not names or check.name in names}

    return run


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: object) -> FakeHub:
    with running_hub() as running:
        make_default(running, tmp_path, monkeypatch)
        yield running


def test_names_are_unique_and_the_model_is_looked_at_only_when_asked() -> None:
    def names(**question: object) -> list[str]:
        return [
            check.name
            for check in Checklist(Question(environment={}, terminal=TERMINAL, **question)).checks()
        ]

    machine = names()
    assert len(set(machine)) == len(machine)
    assert not set(MODEL_CHECKS) & set(machine)
    assert names(model="tiny-chat") == [*machine, *MODEL_CHECKS]
    assert names(model="tiny-chat", smoke=True) == [*machine, *MODEL_CHECKS, "answer"]


def test_offline_the_hub_is_not_asked(ask: Callable[..., Findings]) -> None:
    found = ask("hub", "access", model="ada/model")
    assert {finding.found for finding in found.values()} == {"not checked: --offline"}


def test_a_torch_that_does_not_work_is_told_once(ask: Callable[..., Findings]) -> None:
    found = ask("torch", "GPU", "GPU kernels", apart=LLMCliError(NO_TORCH))
    assert (found["torch"].status, found["torch"].found) == ("fail", NO_TORCH)
    assert found["GPU"].found == found["GPU kernels"].found == "not checked: torch does not work"


def test_without_a_gpu_its_kernels_are_not_run(ask: Callable[..., Findings]) -> None:
    assert ask("GPU kernels")["GPU kernels"].found == "not checked: there is no GPU to run them on"


def test_a_model_that_does_not_exist_is_told_once(ask: Callable[..., Findings]) -> None:
    found = ask(*MODEL_CHECKS, model="nonsense")
    assert found["model"].status == "fail"
    assert "not owner/name" in found["model"].found
    assert {found[name].status for name in MODEL_CHECKS[1:]} == {"skip"}


def test_a_model_that_is_not_here_is_told_once(ask: Callable[..., Findings]) -> None:
    found = ask(*MODEL_CHECKS, model="ada/model")
    assert found["model"].status == "warn"
    assert {found[name].status for name in MODEL_CHECKS[1:]} == {"skip"}


def test_a_config_that_can_not_be_used_is_told_once(ask: Callable[..., Findings], tmp_path: Path) -> None:
    folder = tmp_path / "mamba"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["MambaForCausalLM"]}')
    (folder / "model.safetensors").write_bytes(b"")
    found = ask(*MODEL_CHECKS, model=str(folder))
    assert found["config.json"].status == "fail"
    assert "MambaForCausalLM" in found["config.json"].found
    assert {found[name].found for name in ("weights", "tokenizer", "plan")} == {
        "not checked: config.json can not be used"
    }


def test_weights_that_can_not_be_read_are_told_once(ask: Callable[..., Findings], tmp_path: Path) -> None:
    folder = tiny_chat_model(tmp_path / "tiny")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    found = ask(*MODEL_CHECKS, "answer", model=str(folder), smoke=True)
    assert found["weights"].status == "fail"
    assert {found[name].found for name in ("plan", "answer")} == {"not checked: see above"}
    assert found["tokenizer"].status == "pass"


def test_a_model_that_does_not_fit_is_not_let_answer(ask: Callable[..., Findings], tmp_path: Path) -> None:
    folder, config = tiny_chat_model(tmp_path / "tiny"), EngineConfig(max_model_len=999_999)
    found = ask("plan", "answer", model=str(folder), smoke=True, config=config)
    assert found["plan"].status == "fail"
    assert found["answer"].found == "not checked: see above"


def test_a_whole_model_passes_everything(ask: Callable[..., Findings], tmp_path: Path) -> None:
    found = ask(*MODEL_CHECKS, model=str(tiny_chat_model(tmp_path / "tiny")))
    statuses = {name: finding.status for name, finding in found.items()}
    assert statuses == dict.fromkeys(MODEL_CHECKS, "pass") | {"access": "skip"}


def test_with_a_hub_access_and_account_are_told(
    ask: Callable[..., Findings], hub: FakeHub, tmp_path: Path
) -> None:
    hub.add("ada/model", {"config.json": b"{}"})
    (tmp_path / "token").write_text("hf_secret_token")
    found = ask("hub", "token", "access", model="ada/model", offline=False)
    assert {name: finding for name, finding in found.items() if finding.status != "pass"} == {}
    assert found["token"].found == "of account ada (the saved login)"
    assert found["access"].found == "ada/model may be fetched by ada"
    assert "hf_secret" not in str(found)


def test_without_an_answer_of_the_hub_access_is_not_asked(
    ask: Callable[..., Findings], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = ask("hub", "access", model="ada/model", offline=False)
    assert found["hub"].status == "fail"
    assert "refused the connection" in found["hub"].found
    assert found["access"].found == "not checked: the hub does not answer"


def test_a_model_that_is_on_the_hub_is_judged_by_its_outline(
    ask: Callable[..., Findings], hub: FakeHub
) -> None:
    hub.add("ada/model", repository())
    found = ask(*MODEL_CHECKS, model="ada/model", offline=False)
    assert {name: finding.status for name, finding in found.items()} == {
        "model": "warn",
        "access": "pass",
        "config.json": "pass",
        "weights": "pass",
        "tokenizer": "skip",
        "plan": "pass",
    }
    assert found["config.json"].found == "LlamaForCausalLM, bfloat16"
    assert "context 4,096 tokens" in found["plan"].found
    assert all(last is not None for _, last in hub.ranges("model.safetensors"))


def test_a_model_on_the_hub_that_is_not_supported_is_told_by_its_name(
    ask: Callable[..., Findings], hub: FakeHub
) -> None:
    hub.add("ada/odd", repository({"architectures": ["MambaForCausalLM"]}))
    found = ask(*MODEL_CHECKS, model="ada/odd", offline=False)
    assert found["config.json"].status == "fail"
    assert found["config.json"].found.startswith('ada/odd/config.json: architecture ["MambaForCausalLM"]')
    assert found["plan"].found == "not checked: config.json can not be used"


def test_a_model_that_the_hub_does_not_give_is_told_once(ask: Callable[..., Findings], hub: FakeHub) -> None:
    hub.add("ada/model", repository())
    hub.repos["ada/model"].gated = frozenset({"hf_good"})
    found = ask(*MODEL_CHECKS, model="ada/model", offline=False)
    assert found["access"].status == "fail"
    assert {found[name].found for name in ("config.json", "weights", "plan")} == {"not checked: see above"}
