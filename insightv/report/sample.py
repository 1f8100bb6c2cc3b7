"""Which paths a report shows, and each question with its paths as JSON for the page's browser of paths.

Whole questions are taken. Where there are too many, those whose ids have the smallest hashes stay: an even draw over
the run that does not depend on the order or the time of reading.
"""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass, field
from typing import Any

import orjson

from insightv.assess.bands import AssessedPath, AssessedQuestion
from insightv.records import Question
from insightv.report.markup import clipped
from insightv.report.tally import first_fault, outcome_of
from insightv.strict_json import json_text, plain

_TEXT = 20_000
_DETAIL = 2_000
_PICTURE = "sha256:"


@dataclass(frozen=True, slots=True)
class Shown:
    """A question that is shown: its place in the run, its JSON (without pictures), and the sources of its pictures."""

    place: int
    paths: int
    data: bytes
    pictures: tuple[str, ...]


@dataclass
class Sample:
    """At most `most_paths` paths and `most_bytes` bytes of JSON, but always one question."""

    most_paths: int
    most_bytes: int
    seen: int = 0
    paths: int = 0
    size: int = 0
    _kept: list[tuple[int, int, Shown]] = field(default_factory=list)
    _limit: int = 2**64

    def read(self, assessed: AssessedQuestion) -> None:
        """Take a question in, or leave it out, or others in its place."""
        self.seen += 1
        lot = int.from_bytes(hashlib.sha256(assessed.question.id.encode()).digest()[:8], "big")
        if lot >= self._limit:
            return
        sources = tuple(image for image in assessed.question.images if isinstance(image, str))
        shown = Shown(self.seen, len(assessed.paths), orjson.dumps(question_json(assessed)), sources)
        heapq.heappush(self._kept, (-lot, -self.seen, shown))
        self.paths += shown.paths
        self.size += len(shown.data)
        while len(self._kept) > 1 and (self.paths > self.most_paths or self.size > self.most_bytes):
            lot, _, out = heapq.heappop(self._kept)
            self._limit = -lot
            self.paths -= out.paths
            self.size -= len(out.data)

    def questions(self) -> list[Shown]:
        """Those that are shown, in the order of the run."""
        return sorted((shown for *_, shown in self._kept), key=lambda shown: shown.place)


def picture_digest(source: str) -> str | None:
    """The SHA-256 under which a run keeps the picture, None where the source was never opened."""
    return source.removeprefix(_PICTURE) if source.startswith(_PICTURE) else None


def question_json(assessed: AssessedQuestion) -> dict[str, Any]:
    """A question and its paths; what is empty is left out."""
    question: Question = assessed.question
    return _filled(
        id=question.id,
        text=_clip(question.question),
        answer=_clip(question.answer),
        choices=[_clip(choice) for choice in question.choices or ()],
        paths=[path_json(item) for item in assessed.paths],
    )


def path_json(item: AssessedPath) -> dict[str, Any]:
    """A path; `usage` is prompt, cached and completion tokens and requests, `fault` the first faulty step from 1."""
    path = item.path
    usage = path.usage
    return _filled(
        n=path.index,
        outcome=outcome_of(item),
        code=path.code,
        detail=_clip(path.detail, _DETAIL),
        score=None if item.score is None else round(item.score, 2),
        fault=first_fault(item),
        steps=[[_clip(step.title, _DETAIL), _clip(step.content)] for step in path.steps],
        answer=_clip(path.answer),
        scores=[
            _filled(
                by=score.scorer,
                value=None if score.value is None else round(score.value, 2),
                ok=score.accepted,
                why=_clip(score.reason, _DETAIL),
                more=_details(score.details),
            )
            for score in item.scores
        ],
        model=path.model,
        seed=path.seed,
        usage=[usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.requests],
        flags=[_clip(flag, _DETAIL) for flag in path.flags[:50]],
    )


def _details(details: dict[str, Any]) -> dict[str, Any]:
    """A score's details as text or number by name; keys of calls mean nothing outside the run."""
    found = {}
    for name, value in list(details.items())[:30]:
        if name != "calls" and value is not None:
            small = isinstance(value, int) and abs(value) < 2**53  # a whole number that JavaScript holds exactly
            short = value if small or isinstance(value, bool | float | str) else json_text(value)
            found[clipped(str(name), 100)] = _clip(short, _DETAIL) if isinstance(short, str) else plain(short)
    return found


def _clip(text: str | None, most: int = _TEXT) -> str | None:
    return None if text is None else str(plain(clipped(text, most)))


def _filled(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value != "" and value != []}
