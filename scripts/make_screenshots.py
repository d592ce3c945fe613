#!/usr/bin/env python3
"""Pictures of the real program for the documentation: SVG files in docs/images/.

    python -m scripts.make_screenshots            # all of them
    python -m scripts.make_screenshots chat run

Each is a shell in a window of tmux, with an empty home folder, in which llmcli is typed and waited for; what the window
shows then becomes the picture. Needs tmux, no network and no GPU. Seeds are fixed, so that a picture changes only
where the program does, and in its timings.
"""

import argparse
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
LIMIT_S = 120.0
LOOK_S = 0.1
PROMPT = "$ "
PROMPTS = (
    {"id": "sum", "prompt": "What is 3 plus 4?", "temperature": 0},
    {"id": "cow", "messages": [{"role": "user", "content": "What sound does a cow make?"}], "temperature": 0},
    {"id": "story", "prompt": "Tell me a story about a boat.", "seed": 7, "max_tokens": 40},
)


@dataclass(frozen=True)
class Step:
    """A line that is typed, and what must be on the screen after it, so many times."""

    line: str
    wait_for: str = PROMPT
    times: int = 1


@dataclass(frozen=True)
class Shot:
    """One picture: its file's name, the size of the window, what is typed."""

    name: str
    columns: int
    rows: int
    steps: tuple[Step, ...]


SHOTS = (
    Shot(
        "chat",
        100,
        40,
        (
            Step("llmcli chat --seed 3", ">>>"),
            Step("Hello!", ">>>", 2),
            Step("Tell me a story about a dragon.", ">>>", 3),
            Step("What is 3 plus 4?", ">>>", 4),
            Step("/bye", PROMPT, 2),
        ),
    ),
    Shot(
        "run",
        110,
        30,
        (
            Step("cat prompts.jsonl", PROMPT, 2),
            Step("llmcli run prompts.jsonl -o answers.jsonl", PROMPT, 3),
            Step("cut -c -95 answers.jsonl", PROMPT, 4),
        ),
    ),
    Shot("doctor", 110, 50, (Step("llmcli doctor tiny-chat --offline --smoke", PROMPT, 2),)),
    Shot("list", 100, 12, (Step("llmcli list", PROMPT, 2),)),
)


def main() -> int:
    """Take the pictures that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [shot.name for shot in SHOTS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; all without one")
    wanted = parser.parse_args().names
    if unknown := set(wanted) - set(names):
        parser.error(f"no picture {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if shutil.which("tmux") is None:
        parser.error("tmux is not installed")
    IMAGES.mkdir(parents=True, exist_ok=True)
    for shot in SHOTS:
        if not wanted or shot.name in wanted:
            path = IMAGES / f"{shot.name}.svg"
            path.write_text(as_svg(shot.name, shot.columns, take(shot)), "utf-8")
            print(path.relative_to(ROOT))
    return 0


def take(shot: Shot) -> list[str]:
    """The lines of the window, with their colours, after all steps; without the empty ones at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="llmcli-pictures-", ignore_cleanup_errors=True) as folder,
        window(Path(folder), shot) as tmux,
    ):
        wait(tmux, PROMPT, 1)
        for step in shot.steps:
            subprocess.run([*tmux, "send-keys", "-l", step.line], check=True)
            subprocess.run([*tmux, "send-keys", "Enter"], check=True)
            wait(tmux, step.wait_for, step.times)
        lines = screen(tmux, "-e")
    while lines and not plain(lines[-1]).strip(" $"):
        lines.pop()
    return lines


@contextmanager
def window(home: Path, shot: Shot) -> Iterator[list[str]]:
    """A shell in a terminal of its own; yields the command that talks to it."""
    (home / "bin").mkdir()
    program = home / "bin" / "llmcli"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m llmcli "$@"\n')
    program.chmod(0o755)
    (home / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in PROMPTS))
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}
    environment = {"LANG": "C.UTF-8"} | kept
    environment |= {
        "HOME": str(home),
        "PATH": f"{home / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "kernels"))),
        "HISTFILE": "",
        "PS1": PROMPT,
        "COLORTERM": "truecolor",
    }
    # Kernels are compiled at the very first use, which is no everyday picture.
    warm_up = [str(program), "chat", "--no-history", "Hello!"]
    subprocess.run(warm_up, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    tmux = ["tmux", "-S", str(home / "socket"), "-f", "/dev/null"]
    size = ["-x", str(shot.columns), "-y", str(shot.rows)]
    shell = ["env", "-i", *(f"{name}={value}" for name, value in environment.items()), "TERM=tmux-256color"]
    start = [
        *tmux,
        "new-session",
        "-d",
        *size,
        "-c",
        str(home),
        shlex.join([*shell, "bash", "--norc", "--noprofile"]),
    ]
    subprocess.run(start, check=True, env=environment | {"TERM": "xterm-256color"})
    try:
        yield tmux
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)


def wait(tmux: Sequence[str], text: str, times: int) -> None:
    """Until so many lines begin with `text`, the last of which is the one to type on.

    Raises:
        SystemExit: that takes too long; the screen is printed.
    """
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        turns = [line for line in screen(tmux) if f"{line} ".startswith(text)]
        if len(turns) >= times:
            time.sleep(5 * LOOK_S)  # for what is drawn below the line, such as a status
            return
        time.sleep(LOOK_S)
    sys.exit(
        "\n".join([*screen(tmux), f"the window does not show {text!r} {times} times after {LIMIT_S:g} s"])
    )


def screen(tmux: Sequence[str], *options: str) -> list[str]:
    """What the window shows, line by line."""
    done = subprocess.run([*tmux, "capture-pane", "-p", *options], check=True, capture_output=True, text=True)
    return done.stdout.split("\n")


def plain(line: str) -> str:
    """A line without its colours."""
    return re.sub(r"\x1b\[[\d;:]*m|\x1b\(B|\x0f", "", line)


def as_svg(name: str, columns: int, lines: Sequence[str]) -> str:
    """A picture of a window with these lines, which loads nothing from elsewhere."""
    from rich.console import Console
    from rich.text import Text

    console = Console(
        record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    for line in lines:
        console.print(Text.from_ansi(line), no_wrap=True, crop=True, soft_wrap=False)
    svg = console.export_svg(title="llmcli", unique_id=f"llmcli-{name}")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.S)


if __name__ == "__main__":
    sys.exit(main())
