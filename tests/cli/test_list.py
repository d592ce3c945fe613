"""`llmcli list`: what is on this machine."""

import json
from pathlib import Path

import pytest

from llmcli.cli.app import run_command_line
from llmcli.cli.list import ago
from tests.fake_hub import make_default, running_hub

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 512,
    "max_position_embeddings": 4096,
    "dtype": "bfloat16",
}
AWQ = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm"}}


def repository(config: dict[str, object]) -> dict[str, bytes]:
    """The files of a model with this config.json."""
    return {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": b"{}",
        "model.safetensors": b"w" * 2048,
    }


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The fake hub as this user's hub."""
    with running_hub() as running:
        make_default(running, tmp_path, monkeypatch)
        yield running


@pytest.fixture
def cached(hub, capsys):
    """Two models in the cache: dense and AWQ."""
    hub.add("ada/dense", repository(CONFIG))
    hub.add("ada/small-awq", repository(CONFIG | AWQ))
    for name in ("ada/dense", "ada/small-awq"):
        assert run_command_line(["pull", "--quiet", name]) == 0
    capsys.readouterr()


def hub_rows(text: str) -> list[list[str]]:
    """Rows of the listing, split, without the bundled model."""
    return [line.split("\t") for line in text.splitlines()[1:] if "(bundled)" not in line]


def test_the_table_shows_name_quantization_size_context_and_age(cached, capsys):
    assert run_command_line(["list"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["NAME", "QUANT", "SIZE", "CTX", "MODIFIED"]
    assert hub_rows(out) == [
        ["ada/dense", "bfloat16", "2.2 KiB", "4,096", "just now"],
        ["ada/small-awq", "awq 4-bit", "2.3 KiB", "4,096", "just now"],
    ]


def test_json_has_numbers_and_paths(cached, capsys):
    assert run_command_line(["list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["ada/dense"]["context"] == 4096
    assert rows["ada/dense"]["size"] > 2048
    assert len(rows["ada/dense"]["revision"]) == 40


def test_quiet_prints_names_that_the_other_commands_take(cached, capsys):
    assert run_command_line(["list", "-q"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert {"ada/dense", "ada/small-awq"} <= set(names)
    assert set(names) <= {"ada/dense", "ada/small-awq", "tiny-chat"}


def test_other_repositories_are_listed_only_when_asked_for(cached, hub, tmp_path, capsys):
    commit = "0" * 40
    snapshot = tmp_path / "hub" / "models--bob--gguf" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "model.gguf").write_bytes(b"x")
    assert run_command_line(["list", "-q"]) == 0
    assert "bob/gguf" not in capsys.readouterr().out
    assert run_command_line(["list", "-q", "--all"]) == 0
    assert "bob/gguf" in capsys.readouterr().out


def test_a_model_that_is_not_supported_is_told_as_such(hub, capsys):
    hub.add("ada/odd", repository(CONFIG | {"architectures": ["MambaForCausalLM"]}))
    run_command_line(["pull", "--quiet", "ada/odd"])
    capsys.readouterr()
    run_command_line(["list"])
    assert hub_rows(capsys.readouterr().out)[0][:2] == ["ada/odd", "unsupported"]


def test_list_opens_no_connection_and_needs_no_cache(hub, capsys):
    assert run_command_line(["list"]) == 0
    assert hub_rows(capsys.readouterr().out) == []
    assert not hub.requests


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "just now"), (59, "just now"), (60, "1 minute ago"), (7200, "2 hours ago"), (90_000, "1 day ago")],
)
def test_ages_are_in_words(seconds, text):
    assert ago(seconds) == text


def test_ls_is_another_word_for_list(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert run_command_line(["ls", "--json"]) == 0
    listed = capsys.readouterr().out
    assert run_command_line(["list", "--json"]) == 0
    assert capsys.readouterr().out == listed
