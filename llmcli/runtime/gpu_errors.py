"""Turns what torch and Triton raise when a GPU fails into errors that say what happened and what to do.

A CUDA error is reported late, by whatever call comes next, and most leave the process without a usable GPU: none of
them is survived. Called around loading and around every step.
"""

import re

from llmcli.errors import DeviceUnavailableError, DoesNotFitError, EngineError, LLMCliError, quote
from llmcli_kernels.triton_toolchain import explain

CUDA_ERROR = re.compile(r"(?:CUDA error: |Triton Error \[CUDA\]: )(.*)")
ASKED = re.compile(r"Tried to allocate ([\d.]+ \w+)")
FREE = re.compile(r"total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free")
LESS = "use a smaller --kv-cache-memory or --gpu-memory-utilization, or --enforce-eager, or end what else uses the GPU"
FIXES = (
    (
        "ECC",
        "the GPU's memory is damaged: nvidia-smi -q -d ECC tells more; restart the machine, or use --device cpu",
    ),
    (
        "illegal memory access",
        "start again; if it comes back, it is a bug: tell us the model and the command",
    ),
    ("misaligned address", "start again; if it comes back, it is a bug: tell us the model and the command"),
    ("", "nvidia-smi tells whether the GPU is still there; --device cpu does without it"),
)


def gpu_error(error: BaseException, *, loading: bool = False) -> LLMCliError | None:
    """The error for people in the place of one of a GPU; None if `error` is something else.

    Args:
        loading: memory that runs out then is a model that does not fit.
    """
    problem = explain(error)
    if problem is not None:
        return DeviceUnavailableError(problem.reason, fix=problem.fix)
    text = str(error)
    match = CUDA_ERROR.search(text)
    what = quote(match[1].strip()) if match else ""
    if "CUDA out of memory" in text or "out of memory" in what or "ALLOC_FAILED" in what:
        return (DoesNotFitError if loading else EngineError)(
            f"the GPU ran out of memory{_numbers(text)}", fix=LESS
        )
    if match is None:
        return _of_triton(error)
    return EngineError(f"the GPU failed: {what}", fix=next(fix for part, fix in FIXES if part in what))


def _of_triton(error: BaseException) -> LLMCliError | None:
    """A kernel that does not compile, or a tile that wants more than a multiprocessor has."""
    if not type(error).__module__.startswith("triton."):
        return None
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return EngineError(
        f"Triton can not run a kernel on this GPU: {quote(first)}",
        fix="llmcli tune looks for tiles that fit it; --device cpu does without the GPU",
    )


def _numbers(text: str) -> str:
    asked, free = ASKED.search(text), FREE.search(text)
    need = f": {asked[1]} more were needed" if asked else ""
    return need + (f", {free[2]} of {free[1]} are free" if need and free else "")
