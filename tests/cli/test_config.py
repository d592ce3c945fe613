"""`llmcli config`: what is shown, and what becomes of the user's file."""

import json
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Call

COMMENTED = """\
# mine
seed = 1  # kept

[defaults]
# warm
max_tokens = 100 # enough
top-k = 5

[models."org/*"]
temperature = 0.5
"""


def written(call: Call, *args: str) -> None:
    """Change the configuration; nothing is said on stdout."""
    code, out, err = call("config", *args)
    assert (code, out) == (0, ""), err


def refused(call: Call, *args: str) -> str:
    code, out, err = call("config", *args)
    assert (code, out) == (2, ""), err
    return err


def shown(call: Call, *args: str) -> dict[str, tuple[object, str]]:
    """Key -> value and origin, as `config show --json` tells them."""
    code, out, err = call("config", "show", "--json", *args)
    assert code == 0, err
    return {row["key"]: (row["value"], row["origin"]) for row in json.loads(out)}


def test_without_any_setting_nothing_is_shown_but_where_to_look(call: Call) -> None:
    code, out, err = call("config", "show", "-q")
    assert (code, out) == (0, "")
    assert "--all" in err


def test_all_shows_what_is_built_in(call: Call) -> None:
    everything = shown(call, "--all")
    assert everything["model"] == ("tiny-chat", "built-in")
    assert everything["max-num-seqs"] == (64, "built-in")
    assert everything["temperature"] == (None, "built-in")
    assert not {"help", "yes", "overwrite"} & set(everything)


def test_every_layer_is_shown_with_its_origin(
    call: Call, user_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_file.write_text('seed = 1\ntop-k = 2\n[run]\nformat = "openai"\n[models."x/*"]\nmin-p = 0.5\n')
    Path("llmcli.toml").write_text("top-k = 3")
    monkeypatch.setenv("LLMCLI_TOP_P", "0.5")
    assert shown(call) == {
        "seed": (1, f"{user_file} [defaults]"),
        "top-k": (3, "./llmcli.toml [defaults]"),
        "run.format": ("openai", f"{user_file} [run]"),
        "top-p": ("0.5", "environment variable LLMCLI_TOP_P"),
    }


def test_origins_are_a_column_when_asked_for(call: Call, user_file: Path) -> None:
    user_file.write_text("seed = 1")
    assert call("config", "show")[1] == "KEY\tVALUE\nseed\t1\n"
    assert call("config", "show", "--origin")[1] == f"KEY\tVALUE\tORIGIN\nseed\t1\t{user_file} [defaults]\n"


def test_the_settings_of_a_model_are_its_sections_and_its_generation_config(
    call: Call, user_file: Path, tmp_path: Path
) -> None:
    folder = model_folder(tmp_path)
    user_file.write_text(f'[models."{folder}"]\ntop-p = 0.9')
    assert shown(call, str(folder)) == {
        "top-p": (0.9, f'{user_file} [models."{folder}"]'),
        "temperature": (0.6, "model's generation_config.json"),
    }


def model_folder(tmp_path: Path) -> Path:
    """A model's folder as far as `config show` looks."""
    folder = tmp_path / "model"
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "vocab_size": 512,
        "max_position_embeddings": 4096,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text('{"temperature": 0.6, "top_p": 0.8}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_a_wrong_value_for_another_command_is_found_too(call: Call, user_file: Path) -> None:
    user_file.write_text("[run]\ntemperature = 5")
    err = refused(call, "show")
    assert "--temperature must be a number in 0..2, got 5" in err
    assert f"the value comes from {user_file} [run]" in err


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        (["temperature", "0.7"], "[defaults]\ntemperature = 0.7\n"),
        (["max_tokens", "8k"], '[defaults]\nmax-tokens = "8k"\n'),
        (["n-predict", "80"], "[defaults]\nmax-tokens = 80\n"),
        (["top-k=-1"], "[defaults]\ntop-k = -1\n"),
        (["offline", "on"], "[defaults]\noffline = true\n"),
        (["prefix-caching", "false"], "[defaults]\nprefix-caching = false\n"),
        (["stop", "a", "b c"], '[defaults]\nstop = ["a", "b c"]\n'),
        (["system", "Be brief."], '[defaults]\nsystem = "Be brief."\n'),
        (["model", "org/name@v1"], '[defaults]\nmodel = "org/name@v1"\n'),
        (["run.format", "openai"], '[run]\nformat = "openai"\n'),
        (["seed", "5", "-m", "org/*"], '[models."org/*"]\nseed = 5\n'),
    ],
)
def test_set_writes_one_value_that_show_understands(
    args: list[str], wanted: str, call: Call, user_file: Path
) -> None:
    written(call, "set", *args)
    assert user_file.read_text() == wanted
    assert call("config", "show", "--origin")[0] == 0


def test_set_and_unset_change_nothing_else(call: Call, user_file: Path) -> None:
    user_file.write_text(COMMENTED)
    written(call, "set", "max-tokens", "200")
    assert user_file.read_text() == COMMENTED.replace("= 100 #", "= 200 #")
    written(call, "set", "seed", "2")
    assert user_file.read_text() == COMMENTED.replace("= 100 #", "= 200 #").replace("seed = 1 ", "seed = 2 ")
    written(call, "set", "temperature", "0.9", "--model", "org/*")
    assert "temperature = 0.9\n" in user_file.read_text()
    written(call, "unset", "top-k")
    assert "top-k" not in user_file.read_text()
    assert all(comment in user_file.read_text() for comment in ("# mine", "# kept", "# warm", "# enough"))


def test_a_new_key_goes_into_its_section(call: Call, user_file: Path) -> None:
    user_file.write_text(COMMENTED)
    written(call, "set", "top-p", "0.5")
    written(call, "set", "min-p", "0.1", "--model", "org/*")
    assert shown(call)["top-p"] == (0.5, f"{user_file} [defaults]")
    assert shown(call, "org/name")["min-p"] == (0.1, f'{user_file} [models."org/*"]')
    assert "min-p" not in shown(call)


def test_a_folder_becomes_the_default_model_with_its_whole_path(call: Call, user_file: Path) -> None:
    Path("my-model").mkdir()
    written(call, "set", "model", "my-model")
    assert shown(call)["model"][0] == str(Path("my-model").resolve())


def test_the_file_is_private_and_a_link_stays_a_link(call: Call, user_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "dotfiles.toml"
    user_file.symlink_to(target)
    written(call, "set", "seed", "1")
    assert user_file.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    target.chmod(0o644)
    written(call, "set", "seed", "2")
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert list(tmp_path.glob(".config-*")) == []


def test_a_variable_that_goes_before_what_is_set_is_told(
    call: Call, user_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCLI_SEED", "7")
    assert "LLMCLI_SEED in the environment goes before it" in call("config", "set", "seed", "1")[2]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["set", "temprature", "1"], "did you mean temperature?"),
        (["set", "temperature", "5"], "--temperature must be a number in 0..2, got 5"),
        (["set", "temperature", "hot"], "--temperature must be a number, got hot"),
        (["set", "temperature", "1", "2"], "temperature takes one value, got 2"),
        (["set", "temperature"], "no value for temperature"),
        (["set", "dtype", "int3"], "'int3' is not one of"),
        (["set", "threads", "5000"], "--threads must be in 1..1024"),
        (["set", "yes", "true"], "--yes is given on the command line"),
        (["set", "format", "openai"], "for `llmcli run` alone it is run.format"),
        (["set", "nope.seed", "1"], "nope.seed is not KEY or COMMAND.KEY"),
        (["set", "list.seed", "1"], "[list]: unknown key seed"),
        (["set", "run.seed", "1", "-m", "org/x"], "leave one of them"),
        (["set", "model", "a//b"], "is not owner/name or an existing folder"),
        (["set", "model", "a/b", "-m", "org/x"], "model can not be set for a model"),
        (["unset", "seed"], "seed is not set in"),
        (["nope"], "no such command: nope"),
    ],
)
def test_what_can_not_be_set_is_refused_and_nothing_is_written(
    args: list[str], said: str, call: Call, user_file: Path
) -> None:
    assert said in refused(call, *args)
    assert not user_file.exists()


def test_a_broken_file_is_told_and_left_as_it_is(call: Call, user_file: Path) -> None:
    user_file.write_text("seed = ")
    for args in (["show"], ["set", "seed", "1"], ["unset", "seed"]):
        assert "line 1" in refused(call, *args)
    assert user_file.read_text() == "seed = "
    assert call("config", "path") == (0, f"{user_file}\n", "")


def test_a_file_that_can_not_be_written_is_told(call: Call, no_configuration: Path, tmp_path: Path) -> None:
    no_configuration.parent.write_text("a file where the folder should be")
    code, _, err = call("config", "set", "seed", "1")
    assert code == 1
    assert "can not be written" in err


def test_edit_opens_a_file_that_explains_itself_and_checks_what_was_written(
    call: Call, user_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITOR", "true")
    monkeypatch.delenv("VISUAL", raising=False)
    assert call("config", "edit")[0] == 0
    assert "[defaults]" in user_file.read_text()
    monkeypatch.setenv("EDITOR", "sh -c 'echo temprature = 1 >> \"$0\"'")
    assert "did you mean temperature?" in refused(call, "edit")
    monkeypatch.setenv("EDITOR", "no-such-editor")
    assert "set EDITOR" in refused(call, "edit")
    monkeypatch.setenv("EDITOR", "false")
    assert call("config", "edit")[0] == 1


def test_without_a_subcommand_help_is_printed(call: Call) -> None:
    code, out, _ = call("config")
    assert code == 0
    assert "unset" in out


def test_a_key_of_a_server_is_set_and_never_shown(
    call: Call, user_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "s3cret" not in call("config", "set", "api-key", "s3cret")[2]
    assert "s3cret" in user_file.read_text()
    assert shown(call)["api-key"][0] == "(hidden)"
    monkeypatch.setenv("LLMCLI_API_KEY", "s3cret")
    assert shown(call)["api-key"] == ("(hidden)", "environment variable LLMCLI_API_KEY")


@pytest.mark.parametrize(
    "line", ["url = 'http://127.0.0.1:1/v1'", "[chat]\nfile = ['~/.netrc']", "api_key = 'x'"]
)
def test_a_project_says_neither_where_prompts_go_nor_which_files_are_read(
    line: str, call: Call, user_file: Path
) -> None:
    user_file.write_text(line)
    assert call("config", "show")[0] == 0
    Path("llmcli.toml").write_text(line)
    said = refused(call, "show")
    assert "is not taken from a project's file" in said
    assert str(user_file) in said
    assert "is not taken from a project's file" in call("chat", "hi")[2]
