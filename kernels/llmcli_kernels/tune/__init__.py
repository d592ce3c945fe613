"""Finds tile sizes for the GPU at hand: what `llmcli tune` runs, and nothing else does.

    cases.py       what is tuned: an operation on the shapes of a model, and the configs worth a try
    search.py      one setting at a time, from the present config
    tuner.py       a case to its end: every config is checked against the reference before it is timed
    timing.py      how a GPU is timed
    user_table.py  the file of a user's own rows

Knows torch and the kernels' host functions, not the program; nothing is tuned while a model runs.
"""
