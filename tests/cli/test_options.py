"""The shared options: names people know from elsewhere, human numbers, environment variables, ranges."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmcli import StructuredOutput
from llmcli.cli.app import run_command_line
from llmcli.cli.form_options import FormOptions
from llmcli.cli.options import HIDDEN_ALIASES, EngineOptions, SamplingOptions
from llmcli.config import EngineConfig
from llmcli.errors import UsageError
from tests.cli.probe_commands import TABLE

Understood = Callable[..., dict]


@pytest.fixture
def understood(capsys: pytest.CaptureFixture[str]) -> Understood:
    """What the command `show` makes of its arguments."""

    def run(*args: str) -> dict:
        assert run_command_line(["show", *args], TABLE) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The message with which arguments are refused as usage."""

    def run(*args: str) -> str:
        assert run_command_line(["show", *args], TABLE) == 2
        return capsys.readouterr().err

    return run


def test_no_options_are_the_defaults_of_the_engine_and_no_sampling_overrides(understood: Understood) -> None:
    shown = understood()
    assert shown["sampling"] == {}
    assert EngineConfig(**shown["engine"]) == EngineConfig()


@pytest.mark.parametrize(
    ("option", "value", "field", "wanted"),
    [
        ("--ctx-size", "8k", "max_model_len", 8000),
        ("--num-ctx", "8K", "max_model_len", 8192),
        ("--context-length", "4096", "max_model_len", 4096),
        ("--gpu-memory", "0.5", "gpu_memory_utilization", 0.5),
        ("--kv-cache-memory", "1.5GiB", "kv_cache_memory", 3 << 29),
        ("--threads", "3", "num_threads", 3),
        ("--block-size", "32", "block_size", 32),
        ("--dtype", "float32", "dtype", "float32"),
        ("--kv-cache-dtype", "int8", "kv_cache_dtype", "int8"),
        ("--lm-head", "full", "lm_head", "full"),
    ],
)
def test_an_engine_option_reaches_the_config(
    option: str, value: str, field: str, wanted: object, understood: Understood
) -> None:
    assert understood(option, value)["engine"][field] == wanted
    assert understood(f"{option}={value}")["engine"][field] == wanted


@pytest.mark.parametrize(
    ("option", "field", "wanted"),
    [
        ("--enforce-eager", "enforce_eager", True),
        ("--no-async-scheduling", "async_scheduling", False),
        ("--async-scheduling", "async_scheduling", True),
    ],
)
def test_a_switch_reaches_the_config(option: str, field: str, wanted: bool, understood: Understood) -> None:
    assert understood(option)["engine"][field] is wanted


@pytest.mark.parametrize(
    ("option", "value", "field", "wanted"),
    [
        ("-n", "2k", "max_tokens", 2000),
        ("--max-new-tokens", "5", "max_tokens", 5),
        ("--num-predict", "5", "max_tokens", 5),
        ("-t", "0", "temperature", 0.0),
        ("--temp", "0.5", "temperature", 0.5),
        ("--repeat-penalty", "1.1", "repetition_penalty", 1.1),
        ("--frequency-penalty", "-2", "frequency_penalty", -2.0),
        ("--top-k", "-1", "top_k", -1),
        ("--seed", "0", "seed", 0),
        ("--logprobs", "0", "logprobs", 0),
        ("--min-tokens", "0", "min_tokens", 0),
    ],
)
def test_a_sampling_option_reaches_the_overrides(
    option: str, value: str, field: str, wanted: object, understood: Understood
) -> None:
    assert understood(option, value)["sampling"] == {field: wanted}


def test_stop_may_be_repeated_and_may_look_like_an_option(understood: Understood) -> None:
    assert understood("--stop", "a b", "--stop", "--temp")["sampling"] == {"stop": ["a b", "--temp"]}


def test_the_words_for_a_system_prompt_mean_the_same(understood: Understood) -> None:
    for option in ("-s", "--system", "--system-prompt", "--sys", "-sys"):
        assert understood(option, "Be brief.")["system"] == "Be brief."


@pytest.mark.parametrize("option", ["--no-prefix-caching", "--no-enable-prefix-caching"])
def test_prefix_caching_can_be_switched_off(option: str, understood: Understood) -> None:
    assert understood(option)["engine"]["enable_prefix_caching"] is False
    assert understood("--enable-prefix-caching")["engine"]["enable_prefix_caching"] is True


def test_every_option_is_read_from_its_environment_variable(
    understood: Understood, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCLI_MAX_TOKENS", "1k")
    monkeypatch.setenv("LLMCLI_JSON", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shown = understood()
    assert (shown["sampling"], shown["json"], shown["model_options"]["offline"]) == (
        {"max_tokens": 1000},
        True,
        True,
    )
    assert understood("-n", "7")["sampling"] == {"max_tokens": 7}


def test_a_wrong_value_from_the_environment_is_told_with_its_variable(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCLI_TEMPERATURE", "warm")
    message = refused()
    assert "must be a number, got warm" in message
    assert "environment variable LLMCLI_TEMPERATURE" in message


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["--max-tokens", "0"], "1..2147483647, got 0"),
        (["--max-tokens", "-1"], "whole number"),
        (["--max-tokens", "1e9"], "got 1e9"),
        (["--max-tokens", "abc"], "got abc"),
        (["--temperature", "-0.1"], "0..2, got -0.1"),
        (["--temperature", "nan"], "0..2, got nan"),
        (["--temperature", "inf"], "0..2, got inf"),
        (["--temperature", "2.1"], "0..2, got 2.1"),
        (["--top-p", "0"], "above 0 and at most 1, got 0"),
        (["--top-p", "1.01"], "above 0 and at most 1, got 1.01"),
        (["--top-k", "-5"], "got -5"),
        (["--min-p", "2"], "0..1, got 2"),
        (["--seed", str(2**64)], f"0..{2**63 - 1}, got {2**64}"),
        (["--seed", "-1"], "got -1"),
        (["--block-size", "0"], "4, 8, 16, 32, 64, 128, got 0"),
        (["--block-size", "7"], "4, 8, 16, 32, 64, 128, got 7"),
        (["--max-num-seqs", "0"], "positive integer, got 0"),
        (["--dtype", "int3"], "'auto', 'float32', 'bfloat16', 'float16'"),
        (["--stop", ""], "1 to 256 characters"),
        (["--gpu-memory-utilization", "1.5"], "above 0 and at most 1"),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_range_and_the_value(
    args: list[str], part: str, refused: Callable[..., str]
) -> None:
    assert part in refused(*args)


def test_help_hides_the_aliases(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["show", "--help"], TABLE) == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    assert {"--max-tokens", "--temperature", "--kv-cache-dtype", "--system"} <= set(words)
    assert not [alias for aliases in HIDDEN_ALIASES.values() for alias in aliases if alias in words]


def test_the_bundles_can_be_used_without_a_command_line() -> None:
    assert EngineOptions(threads=2).config().num_threads == 2
    assert SamplingOptions(stop=["x"], temperature=0.0).overrides() == {"stop": ("x",), "temperature": 0.0}


PERSON = '{"type": "object", "properties": {"name": {"type": "string"}}}'


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ({"json_schema": PERSON}, StructuredOutput("json_schema", PERSON)),
        ({"json_schema": "{}"}, StructuredOutput.json_object()),
        ({"json_schema": "@person.json"}, StructuredOutput("json_schema", PERSON)),
        ({"json_schema": "person.json"}, StructuredOutput("json_schema", PERSON)),
        ({"regex": "[a-z]+"}, StructuredOutput.regex("[a-z]+")),
        ({"choice": ["yes", "no"]}, StructuredOutput.choice(["yes", "no"])),
        ({"grammar": "yes.gbnf"}, StructuredOutput.grammar('root ::= "yes"')),
        ({"grammar": 'root ::= "no"'}, StructuredOutput.grammar('root ::= "no"')),
    ],
    ids=str,
)
def test_the_form_of_an_answer_is_an_option(
    options: dict[str, Any], form: StructuredOutput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "person.json").write_text(PERSON + "\n")
    (tmp_path / "yes.gbnf").write_text('root ::= "yes"\n')
    assert FormOptions(**options).form({}) == form


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--json-schema", "{"], ["--json-schema is not JSON: column 2"]),
        (["-j", '{"type": "thing"}'], ["--json-schema can not be used", "thing", "at /type in the schema"]),
        (["-jf", "none.json"], ["--json-schema none.json can not be read", "a schema begins with {"]),
        (["--regex", "a(b"], ["--regex can not be used: unclosed group", "at character 2 of a(b"]),
        (["--regex", ""], ["--regex is empty"]),
        (["--json-schema", ""], ["--json-schema is empty"]),
        (["--choice", ""], ["--choice must be a list of texts"]),
        (
            ["--choice", "a", "--regex", "a"],
            ["--regex and --choice are both given", "keep one of them"],
        ),
        (["--grammar", "none.gbnf"], ["--grammar none.gbnf can not be read"]),
        (["--grammar", "root ::= ("], ["--grammar is no GBNF"]),
    ],
    ids=str,
)
def test_a_wrong_form_is_refused_with_its_option_before_a_model_is_read(
    args: list[str],
    parts: list[str],
    refused: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused(*args)
    assert [part for part in parts if part not in message] == []


FILE, VARIABLE = "~/.config/llmcli/config.toml [defaults]", "environment variable LLMCLI_REGEX"


@pytest.mark.parametrize(
    ("origins", "chosen"),
    [
        ({"regex": FILE}, "json_schema"),
        ({"regex": VARIABLE}, "json_schema"),
        ({"regex": VARIABLE, "json_schema": FILE}, "regex"),
        ({"json_schema": FILE}, "regex"),
    ],
)
def test_of_two_forms_a_flag_goes_before_the_environment_and_that_before_a_file(
    origins: dict[str, str], chosen: str
) -> None:
    assert FormOptions(json_schema="{}", regex="a").chosen(origins) == chosen


def test_two_forms_of_files_are_told_with_where_they_come_from() -> None:
    with pytest.raises(UsageError, match="--json-schema and --regex are both given") as error:
        FormOptions(json_schema="{}", regex="a").form({"regex": FILE, "json_schema": FILE})
    assert error.value.why == f"--json-schema comes from {FILE}\n--regex comes from {FILE}"


def test_a_flag_replaces_the_form_of_the_environment_and_a_wrong_one_there_is_told_with_its_variable(
    run_llmcli: Callable[..., Any],
) -> None:
    three, broken = {"LLMCLI_REGEX": "[0-9]{3}"}, {"LLMCLI_REGEX": "a(b"}
    done = run_llmcli("chat", "hi", "--choice", "left", "--choice", "right", env=three)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("left", "right")
    done = run_llmcli("chat", "-i", input="/set\n", env=three)
    assert "form" in done.stderr
    assert "regex [0-9]{3} (environment variable LLMCLI_REGEX)" in done.stderr
    done = run_llmcli("chat", "hi", env=broken)
    assert done.returncode == 2
    assert "--regex can not be used: unclosed group" in done.stderr
    assert "at character 2 of a(b" in done.stderr
    assert "the value comes from the environment variable LLMCLI_REGEX" in done.stderr


def test_a_form_of_a_stronger_section_replaces_that_of_a_weaker_one(
    understood: Understood, user_file: Path
) -> None:
    user_file.write_text('choice = ["a"]\n[show]\nregex = "b"\n[models."org/x"]\njson-schema = "{}"\n')
    assert "regex" in understood()["origins"]
    assert "choice" not in understood()["origins"]
    assert set(understood("org/x")["origins"]) & {"regex", "choice", "json_schema"} == {"json_schema"}
