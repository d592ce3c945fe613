"""Results for programs and for bug reports, and that no secret is in them."""

from pathlib import Path

import pytest

from llmcli.jobs.doctor.check import Result, failed, passed, skipped, warned
from llmcli.jobs.doctor.report import as_json, as_report, redact, shorten_home, summary

HOME = Path("/home/ada")
RESULTS = [
    Result("python", passed("3.12.3", "/home/ada/venv/bin/python"), 0.1),
    Result("hub", failed("no answer", "check the network", "HTTPS_PROXY=http://proxy"), 5.0),
    Result("threads", warned("OMP_NUM_THREADS=1", "unset it"), 0.0),
    Result("GPU kernels", skipped("there is no GPU"), 0.0),
]


def test_json_has_every_check_with_its_fix() -> None:
    record = as_json(RESULTS, "1.2")
    assert (record["llmcli"], record["ok"]) == ("1.2", False)
    assert record["counts"] == {"pass": 1, "warn": 1, "fail": 1, "skip": 1}
    assert record["checks"][1] == {
        "name": "hub",
        "status": "fail",
        "found": "no answer",
        "fix": "check the network",
        "details": ["HTTPS_PROXY=http://proxy"],
        "seconds": 5.0,
    }


def test_without_a_failure_all_is_ok() -> None:
    assert as_json([RESULTS[0], RESULTS[2]], "1.2")["ok"] is True


def test_the_summary_counts_and_leaves_out_what_there_is_none_of() -> None:
    assert summary(RESULTS) == "1 passed, 1 warning, 1 failed, 1 not checked"
    assert summary(RESULTS[:1]) == "1 passed"
    assert summary([RESULTS[2]] * 2) == "2 warnings"


def test_a_report_is_a_folded_block_that_ends_where_it_should() -> None:
    report = as_report([Result("x", passed("```\nbreak out"), 0.0)], ["llmcli 1.2"], {}, HOME)
    assert report.startswith("<details><summary>llmcli doctor: 1 passed</summary>\n\n````text\nllmcli 1.2\n")
    assert report.endswith("\n````\n\n</details>")


def test_a_report_has_results_details_and_allowed_variables_only() -> None:
    environment = {
        "HF_HOME": "/home/ada/hf",
        "HF_TOKEN": "hf_abcdefghij",
        "https_proxy": "http://ada:pw@proxy",
        "LLMCLI_SYSTEM": "You are my therapist.",
        "AWS_SECRET_ACCESS_KEY": "deadbeefdeadbeef",
        "LLMCLI_THREADS": "2",
        "EDITOR": "ed",
    }
    report = as_report(RESULTS, [], environment, HOME)
    for line in ("HF_HOME=~/hf", "HF_TOKEN is set", "HTTPS_PROXY is set", "LLMCLI_THREADS=2"):
        assert line in report.splitlines()
    assert "1 other LLMCLI_ variables are set" in report
    assert "~/venv/bin/python" in report
    for secret in ("hf_abc", "pw@", "therapist", "deadbeef", "EDITOR", "/home/ada"):
        assert secret not in report


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("token hf_AbCdEfGhIjKlMn is bad", "token *** is bad"),
        ("sk-proj-0123456789", "***"),
        ("http://ada:p4ss@proxy:80/x", "http://***@proxy:80/x"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("of account ada (HF_TOKEN)", "of account *** (HF_TOKEN)"),
        (
            "m is gated, and account ada has no access to it",
            "m is gated, and account *** has no access to it",
        ),
        ("ada/m may be fetched by ada", "ada/m may be fetched by ***"),
        ("/home/ada/models, /home/adam", "~/models, /home/adam"),
        ("/scratch/ada/cache", "/scratch/***/cache"),
        ("the model hf_x", "the model hf_x"),
        ("hf-internal-testing/tiny", "hf-internal-testing/tiny"),
    ],
)
def test_secrets_are_taken_out(text: str, clean: str) -> None:
    assert redact(text, HOME, {"USER": "ada"}) == clean


def test_the_value_of_a_secret_variable_is_taken_out_wherever_it_is() -> None:
    environment = {"MY_API_KEY": "correct-horse", "SOME_TOKEN": "no", "LLMCLI_MAX_TOKENS": "131072"}
    assert redact("key correct-horse, no, 131072", HOME, environment) == "key ***, no, 131072"


def test_the_home_folder_is_shortened_only_where_it_is_one() -> None:
    assert shorten_home("/home/ada /home/ada/x /home/adam", HOME) == "~ ~/x /home/adam"
    assert shorten_home("/x", Path("/")) == "/x"
