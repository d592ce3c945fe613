"""Makes Triton's interpreter patch its language once a launch instead of at every call between kernel functions.

The interpreter (seen in 3.9.0) looks through all of `triton.language` whenever one function of a kernel calls
another, which takes most of the time of kernels made of small functions. What is patched already is left alone here.
"""

import importlib.util
import os
from typing import Any


def interpreted() -> bool:
    """Whether Triton's kernels run in its interpreter."""
    return importlib.util.find_spec("triton") is not None and os.environ.get("TRITON_INTERPRET") == "1"


def hasten() -> None:
    """Replace how kernel functions call each other; may be called again, and does nothing on a GPU."""
    if not interpreted():
        return
    import triton.language as tl
    from triton.runtime import interpreter

    def call(function: interpreter.InterpretedFunction, *args: Any, **kwargs: Any) -> Any:
        found = [value for value in function.fn.__globals__.values() if value is tl or value is tl.core]
        if any(tl.core.is_builtin(language.arange) for language in found):
            interpreter._patch_lang(function.fn)
        return function.rewrite()(*args, **kwargs)

    interpreter.InterpretedFunction.__call__ = call
