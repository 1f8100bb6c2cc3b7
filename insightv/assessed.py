"""A question with its paths after assessment: what the pipeline leaves behind, and what datasets and reports read.

    def assessed() -> Iterator[AssessedQuestion]: ...      # can be called again, and gives the same in the same order

Knows no file and no model. Questions come one at a time, so that a run of any size fits into memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from insightv.records import Band, Question, ReasoningPath, Score


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
