"""`llmcli run` from the outside: what is refused before a model is loaded, and how a run ends."""

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from llmcli.cli.app import run_command_line
from llmcli.cli.run_job import BatchJob, resume_command
from llmcli.cli.run_options import PromptOptions, ResultOptions
from llmcli.errors import ItemsFailedError, UsageError
from llmcli.hub.models import LocalModel
from llmcli.jobs.batch.input import PromptFile
from llmcli.jobs.batch.job import BatchOptions
from llmcli.jobs.batch.progress import BatchProgress
from llmcli.jobs.batch.requests import LineRules
from llmcli.jobs.batch.resume import ResultFile
from llmcli.ui.console import stderr_console
from tests.jobs.fake_engine import ByteTokenizer, FakeEngine

MODEL = LocalModel("org/name", Path("unused"), "abc", "hub")
STORIES = Path(__file__).parents[2].parent / "shared" / "data" / "models" / "stories260K"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a good prompt file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"prompt": "hi"}\n')
    return tmp_path


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of a command line that exits with 2."""
    code = run_command_line(["run", *arguments])
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["in.jsonl", "-o", "notes", "--resume"], "notes.meta.json is missing", id="C4 resume"),
        pytest.param(["in.jsonl", "--resume"], "--resume needs a file", id="resume to nowhere"),
        pytest.param(["in.jsonl", "-o", "o", "--resume", "--overwrite"], "give one", id="resume or not"),
        pytest.param(["in.jsonl", "-o", "o", "--force"], "--force goes with --resume", id="force alone"),
        pytest.param(
            ["in.jsonl", "-o", "o", "--retry-errors", "--ordered"], "can not be kept", id="retry in order"
        ),
        pytest.param(
            ["in.jsonl", "-o", "o", "--resume", "--format", "text"], "can not be resumed", id="resume text"
        ),
        pytest.param(
            ["in.jsonl", "--prompt", "hi"], "--prompt is given, and so is the file", id="two inputs"
        ),
        pytest.param(["in.jsonl", "in.jsonl"], "cat in.jsonl in.jsonl | llmcli run -", id="two files"),
        pytest.param(["llama3", "why?"], "llmcli chat llama3 'why?'", id="as ollama takes it"),
        pytest.param(["table.csv"], "which column holds the prompts? The first line has: a, b", id="table"),
        pytest.param(["in.parquet"], ".parquet files are not read", id="parquet"),
        pytest.param(["bad.jsonl", "--max-errors", "1"], "the others with --max-errors 2", id="max-errors"),
        pytest.param(["in.jsonl", "--max-errors", "-1"], "--max-errors", id="max-errors -1"),
        pytest.param(["in.jsonl", "-m", "../../etc"], "is not owner/name", id="C16"),
        pytest.param(["in.jsonl", "--max-inflight", "0"], "--max-inflight", id="max-inflight"),
        pytest.param(["in.jsonl", "--null"], "--null goes with --format text", id="null"),
        pytest.param(["in.jsonl", "--raw", "--system", "x"], "--raw goes without it", id="raw and system"),
        pytest.param(["in.jsonl", "--oredered"], "did you mean --ordered?", id="C26 typing error"),
        pytest.param(["bad.jsonl"], "bad.jsonl has 2 bad lines of 3", id="bad lines"),
        pytest.param(["bad.jsonl"], "run the others with --skip-invalid", id="bad lines can be skipped"),
        pytest.param(["bad.jsonl"], "line 3: unknown field 'temprature'", id="bad line is named"),
    ],
)
def test_a_wrong_command_line_is_refused(
    arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in.parquet").touch()
    Path("notes").write_text("precious")
    Path("table.csv").write_text("a,b\n1,2\n")
    Path("bad.jsonl").write_text('{"prompt": "a"}\n{"prompt": 5}\n{"prompt": "b", "temprature": 1}\n')
    assert said in refused(arguments, capsys)
    assert not Path("out.jsonl").exists()


@pytest.mark.parametrize("name", ["TheBloke/Llama-2-7B-Chat-AWQ", "owner/name@main", "llama3", "llama3:8b"])
def test_a_model_in_the_place_of_the_file_is_sent_to_chat(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused([name], capsys)
    assert "`run` takes a prompt file" in said
    assert f"for a conversation: llmcli chat {name}" in said


@pytest.mark.parametrize("name", ["data/in.jsonl", "./name", "a/b/c", "prompts.csv"])
def test_a_missing_file_is_not_taken_for_a_model(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "llmcli chat" not in refused([name], capsys)


def test_a_folder_with_a_model_is_sent_to_chat(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("model").mkdir()
    Path("model/config.json").touch()
    assert "for a conversation: llmcli chat model" in refused(["model"], capsys)


def test_a_refused_line_costs_no_heavy_import(folder: Path) -> None:
    Path("bad.jsonl").write_text("{}")
    code = (
        "import sys\nfrom llmcli.cli.app import run_command_line\n"
        "assert run_command_line(['run', 'bad.jsonl']) == 2\n"
        "heavy = ('torch', 'transformers', 'tokenizers', 'huggingface_hub')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def make_job(folder: Path, *texts: str, **results: Any) -> BatchJob:
    """A validated job on raw prompts, written to out.jsonl."""
    data = "".join(json.dumps({"prompt": text}) + "\n" for text in texts).encode()
    file = PromptFile(io.BytesIO(data), "in.jsonl")
    rules, output = LineRules(models=("org/name",)), folder / "out.jsonl"
    return BatchJob(
        file,
        file.validate(rules),
        rules,
        PromptOptions(raw=True),
        ResultOptions(output=output, **results),
        BatchOptions(max_inflight=16),
        BatchProgress(stderr_console()),
        ResultFile(str(output), "new"),
        "llmcli run in.jsonl -o out.jsonl --resume",
    )


def serve(job: BatchJob, engine: FakeEngine) -> None:
    job.serve(engine, MODEL, {"model": "org/name"})  # type: ignore[arg-type]


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_bytes().splitlines()]


def press_at(steps: set[int]) -> Callable[[int], None]:
    """Ctrl-C before each of these steps."""
    return lambda number: signal.raise_signal(signal.SIGINT) if number in steps else None


def test_a_run_writes_its_records_and_tells_the_sums(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(make_job(folder, "a", "bc"), FakeEngine())
    assert [record["model"] for record in records(folder)] == ["org/name@abc"] * 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "text prompts are sent as they are" in err
    assert "2/2" in err


def test_failed_requests_are_told_at_the_end(folder: Path) -> None:
    with pytest.raises(ItemsFailedError, match="1 of 2 requests failed") as raised:
        serve(make_job(folder, "a", "bc"), FakeEngine(failing={"1": "not finite"}))
    assert raised.value.exit_code == 3
    assert raised.value.fix == f"their records in {folder}/out.jsonl say why; --retry-errors runs them again"
    assert len(records(folder)) == 2


def test_the_first_ctrl_c_lets_running_requests_finish(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine(max_num_seqs=2, before_step=press_at({2}))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(typer.Exit) as raised:
        serve(make_job(folder, *["abcd"] * 50), engine)
    assert raised.value.exit_code == 130
    assert [record["text"] for record in records(folder)] == ["ABCD", "ABCD"]
    said = capsys.readouterr().err
    assert "2 running requests may finish" in said
    assert "stopped: 2 of 50 requests are done" in said
    assert "to go on: llmcli run in.jsonl -o out.jsonl --resume" in said
    assert signal.getsignal(signal.SIGINT) == before


def test_the_second_ctrl_c_stops_at_once_with_whole_records(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine(before_step=press_at({3, 4}))
    with pytest.raises(KeyboardInterrupt):
        serve(make_job(folder, "ab", *["abcdefgh"] * 50), engine)
    assert [record["text"] for record in records(folder)] == ["AB"]
    assert "stopped: 1 of 51 requests are done" in capsys.readouterr().err


def test_a_ctrl_c_after_the_last_request_began_changes_nothing(folder: Path) -> None:
    serve(make_job(folder, "abcd"), FakeEngine(before_step=press_at({2})))
    assert len(records(folder)) == 1


def test_a_system_prompt_for_a_model_without_template_is_refused(folder: Path) -> None:
    job = replace(make_job(folder, "a"), prompts=PromptOptions(system="S"))
    with pytest.raises(UsageError, match="no chat template"):
        serve(job, FakeEngine(tokenizer=ByteTokenizer(chat_template=None)))
    assert not (folder / "out.jsonl").exists()


def run_real(arguments: list[str], **more: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "llmcli", "run", "-m", str(STORIES), "--dtype", "float32", *arguments]
    return subprocess.run(command, capture_output=True, check=False, timeout=300, **more)


@pytest.fixture
def stories() -> Path:
    if not STORIES.is_dir():
        pytest.skip("needs ../shared/data/models/stories260K")
    return STORIES


def test_greedy_ids_are_the_golden_ones(stories: Path, folder: Path) -> None:
    cases = json.loads((stories / "golden_greedy.json").read_text())["cases"]
    common = {"temperature": 0, "max_tokens": 24}
    lines = [{"prompt": case["prompt"], **common} for case in cases]
    lines += [{"prompt_token_ids": case["prompt_ids"], **common} for case in cases]
    Path("golden.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run_real(["golden.jsonl", "-o", "out.jsonl", "--return-token-ids", "--ordered"])
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    for record, case in zip(records(folder), cases * 2, strict=True):
        assert record["token_ids"] == case["output_ids"][:24]
        assert len(record["text"]) > 20
        assert case["text"].startswith(record["text"])


def test_a_pipe_gets_results_alone_and_may_close_early(stories: Path, folder: Path) -> None:
    lines = "".join(json.dumps({"prompt": "Once upon a time", "max_tokens": 2}) + "\n" for _ in range(8))
    done = run_real(["-"], input=lines.encode())
    assert done.returncode == 0, done.stderr
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 8
    Path("many.jsonl").write_text(lines * 500)
    command = f"{sys.executable} -m llmcli run -q -m {stories} many.jsonl | head -n 1"
    piped = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, check=False, timeout=300
    )
    assert (piped.returncode, piped.stderr) == (141, b"")
    assert json.loads(piped.stdout)["error"] is None


def test_a_run_that_was_drained_goes_on_where_it_stopped(folder: Path) -> None:
    texts = ["abcd"] * 20
    with pytest.raises(typer.Exit):
        serve(make_job(folder, *texts), FakeEngine(max_num_seqs=2, before_step=press_at({2})))
    first = (folder / "out.jsonl").read_bytes()
    job = make_job(folder, *texts)
    with ResultFile("out.jsonl", "resume") as output:
        job = replace(job, validation=job.file.validate(job.rules, output.finished), output=output)
        serve(job, FakeEngine())
    assert (folder / "out.jsonl").read_bytes().startswith(first)
    assert sorted(record["index"] for record in records(folder)) == list(range(20))


def test_the_command_to_go_on_is_the_one_that_was_typed() -> None:
    typed = ["run", "my file.jsonl", "-o", "out.jsonl", "--overwrite", "--retry-errors", "-n", "5"]
    assert resume_command(typed, from_pipe=False) == "llmcli run 'my file.jsonl' -o out.jsonl -n 5 --resume"
    assert resume_command(["run", "-"], from_pipe=True) == "... | llmcli run - --resume"


def test_nothing_is_loaded_when_all_is_done(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serve(make_job(folder, "hi"), FakeEngine())
    Path("in.jsonl").write_text('{"prompt": "hi"}\n')
    assert run_command_line(["run", "in.jsonl", "-o", "out.jsonl", "--resume", "-m", "no/such"]) == 0
    assert "all 1 requests of in.jsonl are done in out.jsonl" in capsys.readouterr().err


def test_other_settings_are_refused_by_name_unless_forced(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["run", "in.jsonl", "-o", "out.jsonl", "-n", "2", "-q"]
    assert run_command_line([*common, "--temperature", "0"]) == 0
    Path("in.jsonl").write_text('{"prompt": "hi"}\n{"prompt": "you"}\n')
    capsys.readouterr()
    assert run_command_line([*common, "--resume", "--temperature", "1", "--ordered"]) == 2
    said = capsys.readouterr().err
    assert "sampling.temperature was 0.0, is 1.0" in said
    assert "ordered was false, is true" in said
    assert run_command_line([*common, "--resume", "--temperature", "1", "--ordered", "--force"]) == 0
    assert [record["index"] for record in records(folder)] == [0, 1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("in.json", '[{"prompt": "one"},\n "two"]'),
        ("in.txt", "one\n\ntwo\n"),
        ("in.csv", "id,prompt\n1,one\n2,two\n"),
        ("in.tsv", "question\tlevel\none\teasy\ntwo\thard\n"),
    ],
)
def test_every_kind_of_file_is_answered(name: str, text: str, folder: Path) -> None:
    Path(name).write_text(text)
    assert run_command_line(["run", name, "-o", "out.jsonl", "-n", "2", "-q", "--ordered"]) == 0
    assert [(record["index"], record["error"]) for record in records(folder)] == [(0, None), (1, None)]


def test_prompts_can_be_typed(folder: Path) -> None:
    command = ["run", "--prompt", "one", "--prompt", "two", "-o", "out.jsonl", "-n", "2", "-q"]
    assert run_command_line(command) == 0
    assert sorted(record["index"] for record in records(folder)) == [0, 1]


def test_a_model_that_lines_name_goes_before_a_default_and_one_that_is_typed_before_both(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLMCLI_MODEL", "no/such")
    Path("in.jsonl").write_text('{"prompt": "hi", "model": "tiny-chat"}\n')
    command = ["run", "in.jsonl", "-n", "2", "-q", "--offline"]
    assert run_command_line(command) == 0
    Path("in.jsonl").write_text('{"prompt": "hi"}\n')
    assert run_command_line(command) == 4
    capsys.readouterr()
    Path("in.jsonl").write_text('{"prompt": "hi", "model": "org/other"}\n')
    assert "model 'org/other' is not the one of this run, 'tiny-chat'" in refused(
        ["in.jsonl", "-m", "tiny-chat"], capsys
    )


def test_a_run_holds_its_answers_to_the_form_of_the_flag_or_of_the_line(
    run_llmcli: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    lines = [
        {"prompt": "hi"},
        {"prompt": "hi", "regex": "[0-9]{4}"},
        {"prompt": "hi", "response_format": {"type": "text"}, "max_tokens": 3},
        {"prompt": "hi", "json_schema": {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2}, "n": 2},
    ]
    prompts = "".join(json.dumps(line) + "\n" for line in lines)
    done = run_llmcli("run", "-", "--ordered", "--choice", "yes", "--choice", "no", input=prompts)
    assert done.returncode == 0, done.stderr
    first, number, free, arrays = map(json.loads, done.stdout.splitlines())
    assert first["text"] in ("yes", "no")
    assert number["text"].isdigit()
    assert len(number["text"]) == 4
    assert free["text"] not in ("yes", "no")
    for choice in arrays["choices"]:
        assert set(json.loads(choice["text"])) <= {1, 2}
