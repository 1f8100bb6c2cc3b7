"""What is counted of a run's paths, in one pass, so that all figures of a report balance with each other."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from insightv.assess.bands import ANSWER, AssessedPath, AssessedQuestion
from insightv.records import Band

OUTCOMES = (*(band.value for band in Band), "rejected", "failed")
"""What can become of a path, in the order in which it is drawn everywhere."""

_MOST_CODES = 200
_CHARACTERS = 20


def outcome_of(item: AssessedPath) -> str:
    """A path's band where it has one, else its status; an ok path without a band was not judged."""
    return (item.band or Band.unscored).value if item.path.status == "ok" else item.path.status


@dataclass(slots=True)
class Tally:
    """Counts over the finished questions. `scores`, `steps` and `characters` count (value, outcome).

    `scores` are whole points, `characters` are those of a path's steps, rounded down to 20. `verdicts` counts what the
    answer scorer said of ok paths: right, wrong, unknown; it stays empty in a run without one.
    """

    questions: int = 0
    with_right: int = 0
    with_high: int = 0
    paths: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    codes: Counter[tuple[str, str]] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    unjudged: Counter[tuple[str, str]] = field(default_factory=Counter)
    faulty: int = 0
    scores: Counter[tuple[int, str]] = field(default_factory=Counter)
    steps: Counter[tuple[int, str]] = field(default_factory=Counter)
    characters: Counter[tuple[int, str]] = field(default_factory=Counter)

    @property
    def ok(self) -> int:
        """Paths that came to an answer."""
        return self.paths - self.outcomes["rejected"] - self.outcomes["failed"]

    def read(self, assessed: AssessedQuestion) -> None:
        """Count a question and its paths."""
        self.questions += 1
        right = high = False
        for item in assessed.paths:
            outcome = outcome_of(item)
            self.paths += 1
            self.outcomes[outcome] += 1
            if item.path.status == "ok":
                right |= self._judged(item, outcome)
                high |= item.band is Band.high
            else:
                self._coded(item)
        self.with_right += right
        self.with_high += high

    def _judged(self, item: AssessedPath, outcome: str) -> bool:
        """Count an ok path; whether its answer is right."""
        verdict = next((score.accepted for score in item.scores if score.scorer == ANSWER), None)
        if any(score.scorer == ANSWER for score in item.scores):
            self.verdicts["unknown" if verdict is None else "right" if verdict else "wrong"] += 1
        for score in item.scores:
            if score.accepted is None and score.value is None:
                self.unjudged[(score.scorer, str(score.details.get("failed", "")))] += 1
        if item.score is not None:
            self.scores[(int(item.score), outcome)] += 1
        self.faulty += first_fault(item) is not None
        self.steps[(len(item.path.steps), outcome)] += 1
        characters = sum(len(step.content) for step in item.path.steps)
        self.characters[(characters // _CHARACTERS * _CHARACTERS, outcome)] += 1
        return verdict is True

    def _coded(self, item: AssessedPath) -> None:
        key = (item.path.status, item.path.code or "(no code)")
        if key not in self.codes and len(self.codes) >= _MOST_CODES:
            key = (item.path.status, "(others)")
        self.codes[key] += 1


def first_fault(item: AssessedPath) -> int | None:
    """The first step that the last scorer with an opinion on it found wrong, from 1; None where none is."""
    for score in reversed(item.scores):
        if "first_error" in score.details:
            found = score.details["first_error"]
            known = isinstance(found, int) and not isinstance(found, bool) and 1 <= found <= len(item.path.steps)
            return found if known else None
    return None
