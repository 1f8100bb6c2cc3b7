"""Assessed paths -> rows -> checkpoints. Each module is imported by its own name; this one loads nothing."""
