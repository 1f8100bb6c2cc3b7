"""The two agents as one object: a question in, a path and an answer out, also as a stream.

Knows the agents and their deadline; keeps no run and trains nothing.
Start at `reasoner.py`, then `paths.py` (reasoning) and `answers.py` (the summary).
"""

from insightv.events import AnswerDone, AnswerText, Event, PathDone, PathText, StepStarted, StepText
from insightv.reasoner.reasoner import Reasoner

__all__ = ["AnswerDone", "AnswerText", "Event", "PathDone", "PathText", "Reasoner", "StepStarted", "StepText"]
