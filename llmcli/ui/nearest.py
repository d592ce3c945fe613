"""The nearest known name to a mistyped one, as the terminal's modules know it; the search is `llmcli/nearest.py`."""

from llmcli.nearest import did_you_mean

__all__ = ["did_you_mean"]
