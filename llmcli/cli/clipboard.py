"""Which program of this machine gives the text of the clipboard. Called by `chat_terminal.py`, for `/paste`.

A terminal can be asked too (OSC 52), but few of them answer, and what comes late would stand in the prompt as if typed.
"""

import os
import shutil
import sys

# Else it writes in the code page of old consoles.
_UTF8 = "[Console]::OutputEncoding = [Text.Encoding]::UTF8; "

# What must be set for the program to work, and how it is called.
_PROGRAMS = (
    ("WAYLAND_DISPLAY", ("wl-paste", "--no-newline")),
    ("DISPLAY", ("xclip", "-selection", "clipboard", "-o")),
    ("DISPLAY", ("xsel", "--clipboard", "--output")),
    ("WSL_DISTRO_NAME", ("powershell.exe", "-NoProfile", "-Command", _UTF8 + "Get-Clipboard -Raw")),
)
_MAC = ("pbpaste",)


def paste_command() -> tuple[str, ...] | None:
    """The command that prints the clipboard, or None."""
    found = [command for variable, command in _PROGRAMS if os.environ.get(variable)]
    if sys.platform == "darwin":
        found.append(_MAC)
    return next((command for command in found if shutil.which(command[0])), None)
