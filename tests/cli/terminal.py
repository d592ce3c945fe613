"""Runs `llmcli` on a pseudo-terminal and gives back what came to the screen."""

import os
import pty
import subprocess
import sys
import termios
from collections.abc import Sequence

GIVE_UP_S = 120.0


def on_terminal(args: Sequence[str], env: dict[str, str], *, columns: int = 80, rows: int = 24) -> str:
    """What a command prints on a terminal of its own, stdout and stderr together, without carriage returns."""
    screen, far_end = pty.openpty()
    termios.tcsetwinsize(far_end, (rows, columns))
    command = [sys.executable, "-m", "llmcli", *args]
    with subprocess.Popen(
        command, stdin=far_end, stdout=far_end, stderr=far_end, env={"TERM": "xterm"} | env
    ) as process:
        os.close(far_end)
        try:
            data = _read_all(screen)
            process.wait(GIVE_UP_S)
        finally:
            process.kill()
            os.close(screen)
    return data.decode().replace("\r\n", "\n")


def _read_all(screen: int) -> bytes:
    parts = []
    while True:
        try:
            part = os.read(screen, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            return b"".join(parts)
        if not part:
            return b"".join(parts)
        parts.append(part)
