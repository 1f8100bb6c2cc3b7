"""Where a path ends up: the band that its scores put it in. Pure: no model, no file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from insightv.records import Band, Question, ReasoningPath, Score

ANSWER = "answer"
"""The name of the scorer that holds the answer against the ground truth; only its refusal makes a path wrong."""


def band_of(scores: Sequence[Score], high: float = 80, mid: float = 50) -> Band:
    """The band of one path, from its scores in the order in which the scorers ran.

    In this order of precedence:

    - wrong: the answer check refused it;
    - unscored: some scorer could not judge it (neither value nor verdict), whatever the others said;
    - low: another scorer refused it, be its value what it may: it is not good enough, but its answer is not wrong;
    - unscored: no scorer gave a value;
    - high, mid or low by the value of the last scorer that gave one (thresholds are part of their band).
    """
    if any(score.scorer == ANSWER and score.accepted is False for score in scores):
        return Band.wrong
    if any(score.accepted is None and (score.value is None or score.scorer == ANSWER) for score in scores):
        return Band.unscored
    if any(score.accepted is False for score in scores):
        return Band.low
    values = [score.value for score in scores if score.value is not None]
    if not values:
        return Band.unscored
    if values[-1] >= high:
        return Band.high
    return Band.mid if values[-1] >= mid else Band.low


@dataclass(frozen=True, slots=True)
class AssessedPath:
    """A path, its scores in the order of the scorers, and its band; the band of a path that is not ok is None."""

    path: ReasoningPath
    scores: tuple[Score, ...] = ()
    band: Band | None = None

    @property
    def score(self) -> float | None:
        """The value on 1..100 that the path ranks by: that of the last scorer that gave one."""
        return next((score.value for score in reversed(self.scores) if score.value is not None), None)


@dataclass(frozen=True, slots=True)
class AssessedQuestion:
    """A question and all its paths by index. Its images may be sources still; readers open them when they need them."""

    question: Question
    paths: tuple[AssessedPath, ...]


Assessed = Callable[[], Iterable[AssessedQuestion]]
"""Gives the questions of a run from the start each time it is called, the same ones in the same order."""
