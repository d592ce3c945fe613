"""Bad command lines, one row each: the exit code, and what the message says. The ids are those of the test plan.

What needs a server, tensor parallelism or adapters is tested with them.
"""

import json
import os
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.fake_hub import make_default, running_hub

RUN = ["run", "in.jsonl", "-o", "out.jsonl"]
SERVED = ["chat", "hi", "--url", "http://127.0.0.1:1/v1"]
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 512,
}

# id, arguments, exit code, what is said
BAD: list[tuple[str, list[str], int, list[str]]] = [
    ("C1", ["run", "missing.jsonl"], 2, ["no such file: missing.jsonl"]),
    ("C2 folder", ["run", "."], 2, ["is a folder"]),
    ("C2 FIFO", ["run", "fifo"], 2, ["is not a regular file"]),
    ("C3", ["run", "in.jsonl", "-o", "in.jsonl"], 2, ["is the input file"]),
    ("C3 link", ["run", "in.jsonl", "-o", "link", "--overwrite"], 2, ["is the input file"]),
    ("C3 hard link", ["run", "in.jsonl", "-o", "hard", "--overwrite"], 2, ["is the input file"]),
    ("C4", ["run", "in.jsonl", "-o", "old.jsonl"], 2, ["old.jsonl exists", "--overwrite"]),
    ("C5 missing", ["run", "in.jsonl", "-o", "none/out.jsonl"], 2, ["no such folder: none"]),
    ("C7 0", [*RUN, "--max-tokens", "0"], 2, ["--max-tokens must be an integer in 1..2147483647, got 0"]),
    ("C7 -1", [*RUN, "--max-tokens", "-1"], 2, ["--max-tokens", "got -1"]),
    ("C7 1e9", [*RUN, "--max-tokens", "1e9"], 2, ["--max-tokens", "got 1e9"]),
    ("C7 abc", [*RUN, "-n", "abc"], 2, ["--max-tokens", "got abc"]),
    ("C8 -0.1", [*RUN, "--temperature", "-0.1"], 2, ["--temperature must be a number in 0..2, got -0.1"]),
    ("C8 nan", [*RUN, "--temp", "nan"], 2, ["--temperature must be a number in 0..2, got nan"]),
    ("C8 inf", [*RUN, "-t", "inf"], 2, ["--temperature must be a number in 0..2, got inf"]),
    ("C8 2.1", [*RUN, "--temperature=2.1"], 2, ["--temperature must be a number in 0..2, got 2.1"]),
    ("C9 top-p 0", [*RUN, "--top-p", "0"], 2, ["--top-p must be a number above 0 and at most 1, got 0"]),
    ("C9 top-p 1.01", [*RUN, "--top-p", "1.01"], 2, ["--top-p must be", "got 1.01"]),
    ("C9 top-k", [*RUN, "--top-k", "-5"], 2, ["--top-k must be an integer in 0..", "got -5"]),
    ("C9 min-p", [*RUN, "--min-p", "2"], 2, ["--min-p must be a number in 0..1, got 2"]),
    ("C10 2**64", [*RUN, "--seed", str(2**64)], 2, [f"--seed must be an integer in 0..{2**63 - 1}"]),
    ("C10 -1", [*RUN, "--seed", "-1"], 2, ["--seed must be", "got -1"]),
    ("C13 0", [*RUN, "--block-size", "0"], 2, ["--block-size must be one of 4, 8, 16", "got 0"]),
    ("C13 7", [*RUN, "--block-size", "7"], 2, ["--block-size must be one of", "got 7"]),
    ("C14", [*RUN, "--kv-cache-memory", "1kB"], 5, ["need", "there is room for"]),
    ("C15", [*RUN, "--max-model-len", "1m"], 2, ["--max-model-len 1000000 is beyond the model's"]),
    ("C16 up", ["show", "../../etc"], 2, ["is not owner/name or an existing folder"]),
    ("C16 three parts", ["show", "a/b/c"], 2, ["is not owner/name"]),
    ("C16 dash", ["show", "-x"], 2, ["-x"]),
    ("C16 dash after --", ["show", "--", "-x/y"], 2, ["is not owner/name"]),
    ("C16 two slashes", ["show", "a//b"], 2, ["is not owner/name"]),
    ("C16 dots", ["show", "a/.."], 2, ["is not owner/name"]),
    ("C16 NUL", ["show", "a/b\0"], 2, ["is not owner/name", "x00"]),
    ("C16 long", ["show", "a/" + "b" * 300], 2, ["is not owner/name"]),
    ("C16 look-alike", ["show", "Thе/Model"], 2, ["is not owner/name"]),
    ("C16 leading dot", ["show", ".a/b"], 2, ["is not owner/name"]),
    ("C17", ["show", "empty"], 5, ["empty has no config.json", "readme.txt"]),
    ("C18 bin", ["show", "pickled"], 5, ["pytorch_model.bin"]),
    ("C18 gguf", ["show", "foreign"], 5, ["model.gguf"]),
    ("C24 empty", [*SERVED, "--api-key", ""], 2, ["the API key must be visible ASCII"]),
    ("C24 space", [*SERVED, "--api-key", "two words"], 2, ["the API key must be visible ASCII"]),
    ("C24 look-alike", [*SERVED, "--api-key", "kеy"], 2, ["the API key must be visible ASCII"]),
    ("C26 option", ["chat", "--temprature", "1"], 2, ["no such option: --temprature", "--temperature?"]),
    ("C26 command", ["chta"], 2, ["no such command: chta", "did you mean llmcli chat?"]),
    ("C26 subcommand", ["config", "shwo"], 2, ["did you mean llmcli config show?"]),
    ("C26 twice", [*RUN, "-t", "1", "--temp", "1"], 2, ["--temperature is given 2 times"]),
    ("C26 switch twice", [*RUN, "--prefix-caching", "--no-prefix-caching"], 2, ["is given 2 times"]),
    ("C26 conflict", ["chat", "-i", "-st"], 2, ["exclude each other"]),
    ("C26 forms", ["list", "-q", "--json"], 2, ["--format is given 2 times"]),
    ("C26 value", ["list", "--format", "jason"], 2, ["'jason' is not one of", "'jsonl'"]),
    ("C26 no value", ["chat", "--temperature"], 2, ["--temperature", "requires an argument"]),
    ("C26 too many", ["list", "org/name"], 2, ["org/name"]),
    ("C26 missing", ["pull"], 2, ["ID"]),
]


@pytest.fixture
def files(call: Call) -> None:
    """What the rows name, in the working folder that `call` has made."""
    Path("in.jsonl").write_text('{"prompt": "hi"}\n')
    Path("old.jsonl").touch()
    Path("link").symlink_to("in.jsonl")
    Path("hard").hardlink_to("in.jsonl")
    os.mkfifo("fifo")
    for folder, name in (
        ("empty", "readme.txt"),
        ("pickled", "pytorch_model.bin"),
        ("foreign", "model.gguf"),
    ):
        Path(folder).mkdir()
        (Path(folder) / name).touch()
        if folder != "empty":
            (Path(folder) / "config.json").write_text(json.dumps(CONFIG))


@pytest.mark.parametrize(("args", "code", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_command_line_is_refused_in_words(
    args: list[str], code: int, said: list[str], call: Call, files: None
) -> None:
    got, out, err = call(*args)
    assert (got, out) == (code, ""), err
    for part in said:
        assert part in err
    assert not any(ord(char) < 32 and char != "\n" for char in err)
    assert not Path("out.jsonl").exists() or Path("out.jsonl").stat().st_size == 0
    assert Path("in.jsonl").read_text() == '{"prompt": "hi"}\n'


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_can_not_be_written_to_is_refused_before_the_model_loads(
    call: Call, files: None
) -> None:
    Path("closed").mkdir(mode=0o500)
    code, _, err = call("run", "in.jsonl", "-o", "closed/out.jsonl")
    assert code == 2
    assert "closed" in err


def test_an_empty_input_is_no_error(call: Call) -> None:  # C6
    Path("empty.jsonl").touch()
    code, out, err = call("run", "empty.jsonl", "-o", "out.jsonl")
    assert (code, out) == (0, "")
    assert "0 requests" in err
    assert Path("out.jsonl").read_bytes() == b""


def test_an_unknown_revision_is_not_obtainable(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # C19
    with running_hub() as hub:
        make_default(hub, tmp_path, monkeypatch)
        files = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"w"}
        hub.add("ada/model", files)
        code, out, err = call("pull", "ada/model", "--revision", "nope")
    assert (code, out) == (4, "")
    assert "nope" in err
