"""llmcli: run large language models on your own machine.

    from llmcli import LLM, SamplingParams

The names below are loaded on first use, so that `import llmcli` touches no torch, disk or network.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmcli.llm import LLM
    from llmcli.outputs import CompletionOutput, RequestOutput
    from llmcli.sampling import SamplingParams
    from llmcli.structured import StructuredOutput

__version__ = "0.1.0"
__all__ = ["LLM", "CompletionOutput", "RequestOutput", "SamplingParams", "StructuredOutput", "__version__"]

_HOMES = {
    "LLM": "llmcli.llm",
    "CompletionOutput": "llmcli.outputs",
    "RequestOutput": "llmcli.outputs",
    "SamplingParams": "llmcli.sampling",
    "StructuredOutput": "llmcli.structured",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'llmcli' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
