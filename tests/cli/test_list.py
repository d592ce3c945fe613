"""`llmcli list`: what is on this machine."""

import json
from pathlib import Path

import pytest

from llmcli.cli.app import run_command_line
from llmcli.cli.list import ago
from llmcli.config import HardwareFacts
from llmcli.gpu_facts import NoGpu
from tests.fake_hub import make_default, running_hub
from tests.repositories import AWQ, NUM_PARAMETERS, repository


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The fake hub as this user's hub."""
    with running_hub() as running:
        make_default(running, tmp_path, monkeypatch)
        yield running


@pytest.fixture
def cached(hub, capsys):
    """Two models in the cache: dense and AWQ."""
    hub.add("ada/dense", repository())
    hub.add("ada/small-awq", repository(AWQ))
    for name in ("ada/dense", "ada/small-awq"):
        assert run_command_line(["pull", "--quiet", name]) == 0
    capsys.readouterr()


def hub_rows(text: str) -> list[list[str]]:
    """Rows of the listing, split, without the bundled model."""
    return [line.split("\t") for line in text.splitlines()[1:] if "(bundled)" not in line]


def test_the_table_shows_what_a_model_is_and_whether_it_fits(cached, capsys):
    assert run_command_line(["list"]) == 0
    out = capsys.readouterr().out
    header = ["NAME", "QUANT", "SIZE", "PARAMS", "CTX", "FITS", "MODIFIED", "ACCESSED"]
    assert out.splitlines()[0].split("\t") == header
    common = [f"{NUM_PARAMETERS:,}", "4,096", "yes", "just now", "just now"]
    assert [(row[:2], row[3:]) for row in hub_rows(out)] == [
        (["ada/dense", "bfloat16"], common),
        (["ada/small-awq", "awq 4-bit"], common),
    ]


@pytest.mark.parametrize(
    ("free", "cell"), [(0, "no"), (70 << 20, "to ")], ids=["nothing free", "some memory free"]
)
def test_what_does_not_fit_or_only_in_part_is_told(hub, capsys, monkeypatch, free, cell):
    facts = HardwareFacts(
        total_memory=2 * free + 1,
        free_memory=free,
        num_cores=1,
        fast_bfloat16=True,
        native_kernels=False,
        gpu=NoGpu("there is none"),
    )
    monkeypatch.setattr("llmcli.hardware.read_hardware_facts", lambda gpu: facts)
    hub.add("ada/long", repository({"max_position_embeddings": 1 << 20}))
    run_command_line(["pull", "--quiet", "ada/long"])
    capsys.readouterr()
    assert run_command_line(["list"]) == 0
    assert hub_rows(capsys.readouterr().out)[0][5].startswith(cell)


def test_filters_and_order_are_those_that_were_asked_for(cached, capsys):
    assert run_command_line(["list", "-q", "--sort", "name:desc", "--filter", "name=ada/*"]) == 0
    assert capsys.readouterr().out.splitlines() == ["ada/small-awq", "ada/dense"]
    assert run_command_line(["list", "-q", "--filter", "quant=awq*", "--filter", "name=ada/*"]) == 0
    assert capsys.readouterr().out.splitlines() == ["ada/small-awq"]
    assert run_command_line(["list", "--filter", "size>1TB"]) == 0
    assert "no model is left by --filter" in capsys.readouterr().err


def test_a_wrong_filter_is_told_before_the_cache_is_read(cached, capsys):
    assert run_command_line(["list", "--filter", "sise>1GB"]) == 2
    assert "did you mean size?" in capsys.readouterr().err


def test_json_has_numbers_and_paths(cached, capsys):
    assert run_command_line(["list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["ada/dense"]["context"] == rows["ada/dense"]["fits_context"] == 4096
    assert rows["ada/dense"]["size"] > 2 * NUM_PARAMETERS
    assert rows["ada/dense"]["parameters"] == NUM_PARAMETERS
    assert rows["ada/dense"]["fits"] is True
    assert len(rows["ada/dense"]["revision"]) == 40


def test_quiet_prints_names_that_the_other_commands_take(cached, capsys):
    assert run_command_line(["list", "-q"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert {"ada/dense", "ada/small-awq"} <= set(names)
    assert set(names) <= {"ada/dense", "ada/small-awq", "tiny-chat"}


def test_what_can_not_run_is_listed_only_when_asked_for(cached, hub, tmp_path, capsys):
    gguf = tmp_path / "hub" / "models--bob--gguf" / "snapshots" / ("0" * 40)
    gguf.mkdir(parents=True)
    (gguf / "model.gguf").write_bytes(b"x")
    blobs = tmp_path / "hub" / "models--bob--half" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{'0' * 64}.incomplete").write_bytes(b"x" * 2048)
    hub.add("bob/odd", repository({"architectures": ["MambaForCausalLM"]}))
    run_command_line(["pull", "--quiet", "--force", "bob/odd"])
    capsys.readouterr()
    assert run_command_line(["list"]) == 0
    out, err = capsys.readouterr()
    assert "bob/" not in out
    assert "3 more that llmcli can not run: llmcli list --all" in err
    assert run_command_line(["list", "--all", "--filter", "name=bob/*"]) == 0
    rows = hub_rows(capsys.readouterr().out)
    assert [row[:2] for row in rows] == [
        ["bob/gguf", "other"],
        ["bob/half", "unfinished"],
        ["bob/odd", "unsupported"],
    ]
    assert rows[1][2] == "2.0 KiB"


def test_list_opens_no_connection_and_needs_no_cache(hub, capsys):
    assert run_command_line(["list"]) == 0
    assert hub_rows(capsys.readouterr().out) == []
    assert not hub.requests


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (7200, "2 hours ago"),
        (90_000, "1 day ago"),
        (70 * 86_400, "2 months ago"),
    ],
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
