"""One training from files to a checkpoint, by transformers, TRL and PEFT.

Knows rows in a file and model folders; knows no run. Start at `process.py`, then `fit.py` and `trainers.py`.
"""
