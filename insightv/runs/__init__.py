"""One durable run: its database, its journal, its building and its workers.

Knows order, resume and budgets; knows no prompt and no model.
Start at `builder.py` (where a run is built and resumed), then `session.py`, `journal.py` and `reader.py`.
"""
