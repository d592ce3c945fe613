"""What `llmcli doctor` looks at: checks of the machine, of the hub and of a model, and the paste-ready report.

A check is a small function from facts to a finding (`check.py`); the facts are read beside it, by a function of its
own, so that each branch can be reached without the hardware. Knows no terminal; `cli/doctor.py` runs the checks of
`checklist.py` and prints what they found.
"""
