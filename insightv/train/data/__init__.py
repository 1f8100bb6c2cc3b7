"""Rows to train on: which paths, in which layout, as which files, with which card.

Knows assessed paths and files; knows no run and no model. Start at `sets.py`, then `pairs.py` and `export.py`.
"""
