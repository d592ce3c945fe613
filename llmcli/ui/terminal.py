"""The terminal while an answer is written: keys typed ahead wait, unseen, for the next prompt.

Knows only terminal modes; entered by `cli/chat.py` around a session.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_PLAIN_PASTE = b"\x1b[?2004l"


@contextmanager
def type_ahead(descriptor: int) -> Iterator[None]:
    """Keep keys as they are typed, without echo, until a prompt reads them; Ctrl-C still interrupts.

    Args:
        descriptor: of a terminal. Where there are no terminal modes (Windows) nothing is changed.
    """
    try:
        import termios
    except ImportError:
        yield
        return
    before = termios.tcgetattr(descriptor)
    during = termios.tcgetattr(descriptor)
    during[0] &= ~termios.ICRNL  # Enter stays Enter, and does not become the Ctrl-J that begins a new line
    during[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(descriptor, termios.TCSANOW, during)
    try:
        yield
    finally:
        os.write(descriptor, _PLAIN_PASTE)  # the prompt leaves pastes marked, for what is pasted ahead
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
