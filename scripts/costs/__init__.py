"""What `scripts/bench_costs.py` is made of: the steps it times, how it times them, the roofline, the plot."""
