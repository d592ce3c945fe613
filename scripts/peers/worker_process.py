"""A peer's child process as its parent sees it: started, asked, stopped while another one is measured.

Knows the lines of `worker.py` and nothing of what is measured.
"""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts.peers.place import ROOT, last_line
from scripts.peers.workload import BenchTest

LONGEST_S = 3600.0  # of one answer


class PeerFailed(Exception):
    """The process could not be started, died, or could not measure; the message says why."""


class WorkerProcess:
    """One running worker. It gets the processor only while it answers: between two tests it is halted.

    Args:
        command: `worker.py`, in the peer's interpreter.
        log: what it writes on stderr is added to this file.

    Raises:
        PeerFailed: it did not get ready.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as errors:
            try:
                self._process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=dict(environment),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    start_new_session=True,
                )
            except OSError as error:
                raise PeerFailed(str(error)) from error
        try:
            self.versions: dict[str, Any] = self._answer()["ready"]
        except BaseException:
            self.close()
            raise
        self._signal(signal.SIGSTOP)

    def measure(self, test: BenchTest) -> dict[str, Any]:
        """The figures of one test: "value", "more", "meter".

        Raises:
            PeerFailed: see there. `alive` tells whether others can still be measured.
        """
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps(asdict(test)) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerFailed(self._death()) from None
        answer = self._answer()
        self._signal(signal.SIGSTOP)
        if "error" in answer:
            raise PeerFailed(answer["error"])
        return answer

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End it and what it started."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        watchdog = threading.Timer(LONGEST_S, self._signal, [signal.SIGKILL])
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise PeerFailed(self._death())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _death(self) -> str:
        return f"its process ended with status {self._process.wait()}: {last_line(self._log)}"

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)
