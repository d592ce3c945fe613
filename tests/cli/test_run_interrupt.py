"""Ctrl-C during `llmcli run`, while the engine is in a call that no signal ends."""

import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE

from tests.conftest import ROOT

PROGRAM = """
import hashlib, sys
from pathlib import Path
from tests.cli.test_run import make_job, serve
from tests.jobs.fake_engine import FakeEngine

def minutes_in_compiled_code(number):
    if number == 3:
        print("computing", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)

serve(make_job(Path(sys.argv[1]), "ab", "abcdefgh"), FakeEngine(before_step=minutes_in_compiled_code))
"""


def press_until_it_ends(process: "subprocess.Popen[str]") -> None:
    for _ in range(100):  # the system may take two quick ones for one
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.3)
            return
    process.kill()


def test_pressed_twice_it_ends_a_run_that_is_in_the_middle_of_a_step(
    tmp_path: Path, program_env: dict[str, str]
) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, env=program_env, stdout=PIPE, stderr=PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "computing\n"
        press_until_it_ends(process)
        _, err = process.communicate()
    assert process.returncode == 130, err
    assert "to go on: llmcli run in.jsonl -o out.jsonl --resume" in err
    records = (tmp_path / "out.jsonl").read_bytes()
    assert [json.loads(line)["text"] for line in records.splitlines(keepends=True)] == ["AB"]
