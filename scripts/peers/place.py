"""Where the heavy things lie: sources, environments, models and logs, all below one folder outside of the repository.

Standard library only; knows no peer.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.peers.workload import Model

ROOT = Path(__file__).resolve().parents[2]
TELL_EVERY_S = 20.0


class SetupError(Exception):
    """A step of the setup failed; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of `--work`."""

    folder: Path

    def dense(self, model: Model) -> Path:
        return self.folder / "models" / model.shape

    def awq(self, model: Model) -> Path:
        return self.folder / "models" / f"{model.shape}-awq"

    def gguf(self, model: Model) -> Path:
        return self.folder / "models" / f"{model.shape}-q4_0.gguf"

    def log(self, name: str) -> Path:
        path = self.folder / "logs" / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def portable(self, text: str) -> str:
        """`text` without this machine's folders, fit to be kept in a result."""
        for folder, name in (
            (self.folder, "WORK"),
            (ROOT, "."),
            (Path(sys.prefix), "ENV"),
            (Path.home(), "~"),
        ):
            text = text.replace(str(folder), name)
        return text

    def run(self, name: str, command: Sequence[str | Path]) -> None:
        """Run one step of the setup to its end; its output goes to a log, its last line now and then to stderr.

        Raises:
            SetupError: it can not be started, or failed.
        """
        log = self.log(name)
        say(
            f"{name}: {' '.join(Path(part).name if Path(part).is_absolute() else part for part in map(str, command))}"
        )
        with log.open("ab") as output:
            try:
                process = subprocess.Popen(
                    [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output
                )
            except OSError as error:
                raise SetupError(f"{name}: {error}") from error
            started = time.monotonic()
            try:
                while not _ends(process):
                    say(f"{name}: {time.monotonic() - started:.0f} s, {last_line(log)[:120]}")
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if process.returncode:
            raise SetupError(f"{name}: {last_line(log)} (all of it in {log})")


def _ends(process: "subprocess.Popen[bytes]") -> bool:
    try:
        process.wait(TELL_EVERY_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    lines = log.read_bytes()[-8000:].decode(errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def say(line: str) -> None:
    print(f"bench_peers: {line}", file=sys.stderr, flush=True)
