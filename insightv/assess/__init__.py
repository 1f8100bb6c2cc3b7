"""Is this path good? The answer against the truth, the path itself by a judge, and the band of both.

Knows scorers and rules; knows no run, and makes no path.
Start at `answer.py` and `path.py` (where a score is read), then `rules/decide.py` and `bands.py`.
"""
