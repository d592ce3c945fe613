"""What `scripts/measure_accuracy.py` is made of: the models it measures, teacher forcing, the figures."""
