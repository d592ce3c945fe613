"""A chat template, its variables and sampling defaults in place of a model's own: read early, used, and told."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from llmcli.cli.template_options import TemplateOptions
from llmcli.errors import UsageError

RunProgram = Callable[..., subprocess.CompletedProcess[str]]
SHOUT = "{{ shout }}{% for message in messages %}|{{ message.content }}{% endfor %}|"


def refusal(**options: str) -> str:
    given = TemplateOptions(**options)
    with pytest.raises(UsageError) as raised:
        given.substitutes()
    return str(raised.value)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "shout.jinja"
    path.write_text(SHOUT)
    return path


def test_nothing_is_put_in_place_of_the_models_files_unless_asked() -> None:
    given = TemplateOptions().substitutes()
    assert (given.chat_template, given.template_kwargs, given.generation_defaults) == (None, {}, None)


def test_a_template_is_taken_as_it_is(template: Path) -> None:
    assert TemplateOptions(chat_template=str(template)).substitutes().chat_template == SHOUT


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"caf\xe9", "is not UTF-8 at byte 4"),
        (b"\n", "is empty"),
        (b"one\n{% for x in %}", "chat_template line 2 is not a valid template"),
        (b"x" * (1 << 20) + b"x", "has more than 1,048,576 bytes"),
    ],
)
def test_a_template_that_is_none_is_told_before_a_model_is_looked_for(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "bad.jinja"
    path.write_bytes(content)
    message = refusal(chat_template=str(path))
    assert "--chat-template " in message
    assert said in message


@pytest.mark.parametrize("option", ["chat_template", "generation_config"])
@pytest.mark.parametrize("name", ["missing", ".", "nul\0"])
def test_what_is_no_file_is_told_by_the_option(option: str, name: str) -> None:
    message = refusal(**{option: name})
    assert message.startswith(f"--{option.replace('_', '-')} ")
    assert "can not be read" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{'a': 1}", "is not JSON"),
        ("[1]", "must be a JSON object, got [1]"),
        ('{"a": 1, "a": 2}', "is not JSON"),
        ('{"messages": []}', "can not set messages"),
        ("", "is not JSON"),
    ],
)
def test_variables_that_are_no_object_are_told(text: str, said: str) -> None:
    message = refusal(chat_template_kwargs=text)
    assert "--chat-template-kwargs " in message
    assert said in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "is not such a file"),
        ("{", "is not such a file"),
        ('{"temperature": 5}', "temperature must be a number in 0..2, got 5"),
    ],
)
def test_sampling_defaults_that_can_not_be_are_told(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "defaults.json").write_text(content)
    assert said in refusal(generation_config=str(tmp_path / "defaults.json"))


def test_sampling_defaults_come_from_the_file_and_not_from_the_model(tmp_path: Path) -> None:
    path = tmp_path / "defaults.json"
    path.write_text('{"top_p": 0.5, "max_new_tokens": 7, "do_sample": false, "eos_token_id": 2}')
    given = TemplateOptions(generation_config=str(path)).substitutes()
    assert given.generation_defaults == {"top_p": 0.5, "max_tokens": 7, "temperature": 0.0}
    assert TemplateOptions(generation_config="none").substitutes().generation_defaults == {}


def test_a_chat_is_laid_out_with_the_template_and_its_variables(
    template: Path, tmp_path: Path, run_llmcli: RunProgram
) -> None:
    (tmp_path / "defaults.json").write_text('{"temperature": 0.25, "top_p": 0.5}')
    done = run_llmcli(
        *("chat", "-i", "tiny-chat", "-n", "2", "--top-p", "0.75", "--chat-template", str(template)),
        *(
            "--chat-template-kwargs",
            '{"shout": "hey"}',
            "--generation-config",
            str(tmp_path / "defaults.json"),
        ),
        input="one\n/prompt\n/show template\n/set\n",
    )
    assert done.returncode == 0, done.stderr
    assert "hey|one|" in done.stderr
    assert SHOUT in done.stderr
    assert f"0.25 ({tmp_path / 'defaults.json'})" in done.stderr
    assert "0.75 (flag)" in done.stderr
    assert "generation_config.json)" not in done.stderr


def test_a_run_is_laid_out_with_them_too_and_not_gone_on_with_another(
    template: Path, tmp_path: Path, run_llmcli: RunProgram
) -> None:
    prompts, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
    prompts.write_text("one\n")
    line = ("run", str(prompts), "-o", str(out), "-n", "2", "--chat-template", str(template))
    variables = ("--chat-template-kwargs", '{"shout": "hey hey hey"}')
    done = run_llmcli(*line, *variables, "--generation-config", "none")
    assert done.returncode == 0, done.stderr
    with_it = json.loads(out.read_text())["usage"]["prompt_tokens"]
    plain = run_llmcli(*line, "--overwrite")
    assert plain.returncode == 0, plain.stderr
    assert json.loads(out.read_text())["usage"]["prompt_tokens"] < with_it
    prompts.write_text("one\ntwo\n")
    refused = run_llmcli(*line, *variables, "--resume")
    assert refused.returncode == 2
    assert "chat_template_kwargs.shout was not set" in refused.stderr


def test_a_run_without_the_template_takes_none(template: Path, run_llmcli: RunProgram) -> None:
    done = run_llmcli("run", "--prompt", "hi", "--raw", "--chat-template", str(template))
    assert done.returncode == 2
    assert "--chat-template needs the chat template, and --raw goes without it" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--chat-template", "FILE"], "the template is with the server"),
        (["--generation-config", "none"], "a server has its own defaults"),
    ],
)
def test_a_server_keeps_its_own(
    template: Path, options: list[str], said: str, run_llmcli: RunProgram
) -> None:
    given = [str(template) if word == "FILE" else word for word in options]
    done = run_llmcli("chat", "hi", "--url", "http://127.0.0.1:9/v1", *given)
    assert done.returncode == 2
    assert said in done.stderr


def test_what_a_file_says_of_the_models_here_is_nothing_to_a_server_or_to_raw_prompts(
    template: Path, run_llmcli: RunProgram
) -> None:
    layers = {"LLMCLI_CHAT_TEMPLATE": str(template), "LLMCLI_GENERATION_CONFIG": "none"}
    done = run_llmcli("chat", "hi", "--url", "http://127.0.0.1:9/v1", env=layers)
    assert "127.0.0.1:9" in done.stderr
    assert "can not be used with --url" not in done.stderr
    done = run_llmcli("run", "--prompt", "hi", "--raw", "-n", "1", "--chat-template-kwargs", "{}")
    assert done.returncode == 0, done.stderr


def test_the_defaults_of_a_file_are_not_kept_with_a_chat(tmp_path: Path, run_llmcli: RunProgram) -> None:
    for name, value in (("a.json", 0.25), ("b.json", 0.75)):
        (tmp_path / name).write_text(json.dumps({"temperature": value, "max_new_tokens": 2}))
    first = run_llmcli("chat", "-i", "--generation-config", str(tmp_path / "a.json"), input="hi\n")
    assert first.returncode == 0, first.stderr
    again = run_llmcli(
        "chat", "-i", "--continue", "--generation-config", str(tmp_path / "b.json"), input="/set\n"
    )
    assert again.returncode == 0, again.stderr
    assert f"0.75 ({tmp_path / 'b.json'})" in again.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--reasoning", "on", "--no-think"], "--think is given 2 times"),
        (["--reasoning", "much"], "--reasoning takes on, off, auto, got much"),
        (["--reasoning"], "--reasoning takes on, off, auto, got"),
        (["--thinking-budget", "0"], "--thinking-budget must be at least 1"),
        (["--reasoning-budget", "few"], "must be a whole number"),
    ],
)
def test_wishes_for_thinking_that_can_not_be_are_told(
    options: list[str], said: str, run_llmcli: RunProgram
) -> None:
    done = run_llmcli("chat", "hi", *options)
    assert done.returncode == 2
    assert said in done.stderr
