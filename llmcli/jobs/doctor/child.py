"""Calls a function in another process, so that what crashes or hangs there does not end this one.

Knows nothing of what is called; arguments and result are JSON. The checks that load torch, compile, or run a model
use it.
"""

import contextlib
import importlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from llmcli.errors import LLMCliError, quote

# The same places to import from, and not the folder that the user happens to be in.
START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from llmcli.jobs.doctor.child import answer
answer(sys.argv[2])
"""
DEATHS = {
    "SIGILL": "an instruction that this processor does not have",
    "SIGKILL": "most often the system, because memory ran out",
    "SIGSEGV": "a crash in compiled code",
    "SIGBUS": "a file that was cut while it was mapped, or a full /dev/shm",
}


def call_apart(function: Callable[..., Any], *, limit_s: float, **arguments: Any) -> Any:
    """What `function(**arguments)` returns, in a new interpreter.

    Args:
        function: of a module's top level.
        limit_s: seconds until the process is ended.

    Raises:
        LLMCliError: it took too long, died, or raised: an error of ours with its own text.
    """
    request = json.dumps([function.__module__, function.__qualname__, arguments])
    command = [sys.executable, "-P", "-c", START, json.dumps(sys.path), request]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired:
        raise LLMCliError(
            f"no answer within {limit_s:g} s", fix="see whether a driver or a disk hangs: dmesg | tail"
        ) from None
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        reply = json.loads(lines[-1])
        if error := reply.get("error"):
            raise LLMCliError(error["what"], why=error["why"], fix=error["fix"])
        return reply["result"]
    raise _death(done)


def answer(request: str) -> None:
    """In the new process: call what was asked for, and print one line of JSON as the last one."""
    module, name, arguments = json.loads(request)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            reply = {"result": getattr(importlib.import_module(module), name)(**arguments)}
        except LLMCliError as error:
            reply = {"error": {"what": error.what, "why": error.why, "fix": error.fix}}
    print(json.dumps(reply), flush=True)


def _death(done: subprocess.CompletedProcess[str]) -> LLMCliError:
    """The error for a process that gave no answer; the last line of what it wrote often tells why."""
    last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "")
    if done.returncode >= 0:
        return LLMCliError(quote(last, 400) or f"the process ended with exit code {done.returncode}")
    name = next((s.name for s in signal.Signals if s.value == -done.returncode), f"signal {-done.returncode}")
    cause = f", {DEATHS[name]}" if name in DEATHS else ""
    return LLMCliError(f"the process died of {name}{cause}", why=quote(last, 400))
