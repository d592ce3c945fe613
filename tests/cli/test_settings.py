"""Where the value of an option comes from: flag, environment, project file, user file, or built in."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llmcli.cli.app import run_command_line
from tests.cli.probe_commands import TABLE

Understood = Callable[..., dict]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, which is empty."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def understood(work: Path, capsys: pytest.CaptureFixture[str]) -> Understood:
    """What the command `show` makes of its arguments."""

    def run(*args: str) -> dict:
        assert run_command_line(["show", *args], TABLE) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def refused(work: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The message with which arguments are refused as usage."""

    def run(*args: str) -> str:
        assert run_command_line(["show", *args], TABLE) == 2
        return capsys.readouterr().err

    return run


def test_each_layer_goes_before_the_one_below(
    understood: Understood, user_file: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def temperature(*args: str) -> tuple[object, object]:
        shown = understood(*args)
        return shown["sampling"].get("temperature"), shown["origins"].get("temperature")

    assert temperature() == (None, None)
    user_file.write_text("[defaults]\ntemperature = 0.1\n")
    assert temperature() == (0.1, f"{user_file} [defaults]")
    user_file.write_text('[defaults]\ntemperature = 0.1\n[models."org/*"]\ntemperature = 0.2\n')
    assert temperature() == (0.1, f"{user_file} [defaults]")
    assert temperature("org/name") == (0.2, f'{user_file} [models."org/*"]')
    (work / "llmcli.toml").write_text("temperature = 0.3")
    assert temperature("org/name") == (0.3, "./llmcli.toml [defaults]")
    monkeypatch.setenv("LLMCLI_TEMPERATURE", "0.4")
    assert temperature("org/name") == (0.4, "environment variable LLMCLI_TEMPERATURE")
    assert temperature("org/name", "--temp", "0.5") == (0.5, "flag")


@pytest.mark.parametrize(
    ("line", "field", "wanted"),
    [
        ("max-model-len = '8k'", ("engine", "max_model_len"), 8000),
        ("ctx_size = 8192", ("engine", "max_model_len"), 8192),
        ("kv-cache-memory = '1.5GiB'", ("engine", "kv_cache_memory"), 3 << 29),
        ("gpu-memory-utilization = 0.5", ("engine", "gpu_memory_utilization"), 0.5),
        ("prefix-caching = false", ("engine", "enable_prefix_caching"), False),
        ("kv-bits = 8", ("engine", "kv_cache_dtype"), "int8"),
        ("top-k = -1", ("sampling", "top_k"), -1),
        ("stop = ['a b', 'c']", ("sampling", "stop"), ["a b", "c"]),
        ("stop = 'x'", ("sampling", "stop"), ["x"]),
        ("ignore-eos = true", ("sampling", "ignore_eos"), True),
        ("offline = true", ("model_options", "offline"), True),
    ],
)
def test_a_value_of_a_file_is_read_as_a_flag_would_be(
    line: str, field: tuple[str, str], wanted: object, understood: Understood, user_file: Path
) -> None:
    user_file.write_text(line)
    group, name = field
    assert understood()[group][name] == wanted


def test_false_in_a_stronger_layer_takes_back_true(
    understood: Understood, user_file: Path, work: Path
) -> None:
    user_file.write_text("offline = true")
    (work / "llmcli.toml").write_text("offline = false")
    assert understood()["model_options"]["offline"] is False


def test_a_section_for_another_command_does_not_count(understood: Understood, user_file: Path) -> None:
    user_file.write_text("[show]\nseed = 1\n[fail]\n[wait]\n")
    assert understood()["sampling"] == {"seed": 1}


def test_the_default_model_comes_from_the_file_or_the_environment_unless_one_is_named(
    understood: Understood, user_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_file.write_text('model = "org/name"\n[models."org/name"]\nseed = 1\n[models.tiny-chat]\nseed = 2')
    shown = understood()
    assert (shown["model"], shown["default_model"], shown["sampling"]) == (
        "org/name",
        "org/name",
        {"seed": 1},
    )
    assert understood("org/other")["sampling"] == {}
    assert understood("tiny-chat")["sampling"] == {"seed": 2}
    monkeypatch.setenv("LLMCLI_MODEL", "org/third")
    assert (understood()["model"], understood()["default_model"]) == ("org/third", "org/third")


def test_without_a_default_the_section_of_the_bundled_model_counts(
    understood: Understood, user_file: Path
) -> None:
    user_file.write_text("[models.tiny-chat]\nseed = 2")
    assert understood()["sampling"] == {"seed": 2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("temprature = 1", ["[defaults]: unknown key temprature", "did you mean temperature?"]),
        ("[shwo]\nseed = 1", ["unknown section [shwo]", "did you mean show?"]),
        ("[zzz]\nseed = 1", ["unknown section [zzz]", '[models."owner/name"]']),
        ("[fail]\nseed = 1", ["[fail]: seed is no option of it", "show"]),
        ("no-prefix-caching = true", ["unknown key no-prefix-caching", "write prefix-caching = false"]),
        ("yes = true", ["unknown key yes", "--yes is given on the command line"]),
        ("help = true", ["unknown key help"]),
        ('[models."org/name"]\nmodel = "x/y"', ["model can not be set for a model"]),
        ("[models.org.name]\nseed = 1", ['[models."org/name"]']),
        ("model = 5", ["model must be owner/name or a folder, got 5"]),
        ("offline = 'yes'", ["offline must be true or false, got 'yes'"]),
        ("temperature = true", ["temperature must be a text or a number, got true"]),
        ("temperature = 1979-05-27", ["temperature must be a text or a number"]),
        ("temperature = 'warm'", ["'--temperature'", "must be a number, got warm"]),
        ("temperature = 5", ["--temperature must be a number in 0..2, got 5"]),
        ("max-num-seqs = 0", ["--max-num-seqs must be a positive integer, got 0"]),
        ("top-k = 1.5", ["must be an integer, got 1.5"]),
        ("dtype = 'int3'", ["'int3' is not one of 'auto'"]),
        ('"\\u001b[2J" = 1', ["unknown key \\x1b[2J"]),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_file_key_and_what_to_write(
    text: str, said: list[str], refused: Callable[..., str], user_file: Path
) -> None:
    user_file.write_text(text)
    message = refused()
    for part in [*said, str(user_file.parent)]:
        assert part in message
    assert "\x1b" not in message


def test_a_broken_file_does_not_stop_help(user_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user_file.write_text("=")
    assert run_command_line(["show", "--help"], TABLE) == 0
    assert "--temperature" in capsys.readouterr().out


def test_a_typed_value_out_of_range_is_told_with_its_flag_and_no_origin(refused: Callable[..., str]) -> None:
    assert refused("--temp", "5") == "error: --temperature must be a number in 0..2, got 5.0\n"
    assert refused("--min-tokens", "5", "-n", "3").startswith(
        "error: --min-tokens 5 is greater than --max-tokens 3\n"
    )


def test_a_value_out_of_range_from_the_environment_is_told_with_its_variable(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCLI_TOP_P", "2")
    assert "the value comes from the environment variable LLMCLI_TOP_P" in refused()


def test_an_error_about_the_default_model_tells_where_it_comes_from(
    work: Path, user_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    user_file.write_text('model = "a//b"')
    assert run_command_line(["show"]) == 2
    assert f"the model is your default, from {user_file} [defaults]" in capsys.readouterr().err
    monkeypatch.setenv("LLMCLI_MODEL", "c//d")
    assert run_command_line(["show"]) == 2
    assert "from the environment variable LLMCLI_MODEL" in capsys.readouterr().err
    assert run_command_line(["show", "e//f"]) == 2
    assert "your default" not in capsys.readouterr().err
