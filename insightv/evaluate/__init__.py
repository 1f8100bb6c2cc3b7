"""How good is it, and how sure are we: systems on held-out questions, the pilot, the audit of judges.

Knows systems, outcomes and intervals; trains nothing and prints nothing.
Start at `evaluation.py`, then `systems.py`, `results.py` and `statistics.py`.
"""

from insightv.evaluate.evaluation import Evaluation
from insightv.evaluate.results import Result, compare, read_result

__all__ = ["Evaluation", "Result", "compare", "read_result"]
