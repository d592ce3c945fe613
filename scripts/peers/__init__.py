"""`scripts/bench_peers`: llmcli beside other systems on the same machine, see `__main__.py`."""
