"""Assessed paths -> the rows of the reason set and of the summary set (paper, section 3).

    spec = ReasonSet(prompt=lambda question: agent.messages(question))
    for row in spec.rows(assessed, Funnel()): ...

Unscored, rejected and failed paths are in neither set: failure is never data. What a model is shown comes from the
agents, through the callables `prompt` and `render`; this file knows no prompt, and none of the ways of writing rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from insightv.agents.replies.reading import Unreadable
from insightv.agents.replies.transcript import TAGS, Tags, check_tags, from_text, to_text
from insightv.assess.bands import Assessed, AssessedPath, AssessedQuestion
from insightv.errors import ConfigError, InsightvError
from insightv.records import Band, Message, Question, ReasoningPath, seed_of
from insightv.train.data.funnel import Funnel, band_of
from insightv.train.data.general import GeneralData, Opener, Render, as_it_is, spread, truth_of
from insightv.train.data.mix import DRAWN, Candidates, draw, limit, quotas, shares_of
from insightv.train.data.rows import NOT_GIVEN, Licence, TrainingRow

NO_TEXT = "cannot be written in the text format"
"""Why a path is left out whose steps could not be read back from its text."""

DEFAULT_MIX: Mapping[str, float] = {"high": 0.4, "mid": 0.2, "low": 0.2, "wrong": 0.2}


class RowSet(Protocol):
    """Something that makes rows of assessed questions."""

    @property
    def name(self) -> str:
        """The set's name: that of its folder."""
        ...

    def rows(self, assessed: Assessed, funnel: Funnel) -> Iterator[TrainingRow]:
        """The rows in order, each path counted in `funnel` on the way."""
        ...

    def settings(self) -> dict[str, object]:
        """What was chosen, for the card."""
        ...


@dataclass(frozen=True)
class ReasonSet:
    """The best paths of the high band: what the reasoning agent learns to write.

    `prompt` gives what the agent is shown of a question, `tags` enclose its reply; `best_per_question` paths by score,
    of equal ones the first. Two paths of a question with the same text give one row.
    """

    prompt: Callable[[Question], Sequence[Message]]
    best_per_question: int = 1
    tags: Tags = TAGS
    open: Opener = as_it_is
    licence: Licence = NOT_GIVEN
    name: str = "reason"

    def __post_init__(self) -> None:
        if self.best_per_question < 1:
            raise ConfigError(f"best_per_question = {self.best_per_question} must be at least 1")
        check_tags(self.tags)

    def settings(self) -> dict[str, object]:
        """What was chosen, for the card."""
        return {"best_per_question": self.best_per_question, "tags": list(self.tags)}

    def rows(self, assessed: Assessed, funnel: Funnel) -> Iterator[TrainingRow]:
        """The rows, question by question as they come, of each the best path first."""
        for item in assessed():
            funnel.read(item)
            chosen = self._choose(item, funnel)
            if chosen:
                question = self.open(item.question)
                prompt, origin = tuple(self.prompt(question)), self.licence.of(question)
                for path, text in chosen:
                    yield TrainingRow(prompt, text, question, path, *origin)

    def _choose(self, item: AssessedQuestion, funnel: Funnel) -> list[tuple[AssessedPath, str]]:
        chosen: list[tuple[AssessedPath, str]] = []
        for path in sorted(item.paths, key=lambda one: (-(one.score or 0), one.path.index)):
            if reason := unusable(path, (Band.high,)):
                funnel.left_out[reason] += 1
                continue
            text = text_of(path.path, self.tags)
            if text is None:
                funnel.left_out[NO_TEXT] += 1
            elif any(text == other for _, other in chosen):
                funnel.left_out["same text as a better path"] += 1
            elif len(chosen) == self.best_per_question:
                funnel.left_out["beyond best_per_question"] += 1
            else:
                chosen.append((path, text))
        return chosen


@dataclass(frozen=True)
class SummarySet:
    """Right and wrong paths of all four bands with the true answer: what the summary agent learns to judge by.

    `render` gives what the agent is shown of a question and a path. `mix` holds the shares of the bands, `total` the
    number of rows of paths (None: as many as there are paths to draw from), `per_question` the most paths of one
    question. A band with too few paths gives what it has, and the card says so. `several_runs`: paths of one question
    may stand apart, in one run after the other.
    """

    render: Render
    mix: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_MIX))
    total: int | None = None
    per_question: int = 4
    seed: int = 0
    general: GeneralData | None = None
    open: Opener = as_it_is
    licence: Licence = NOT_GIVEN
    name: str = "summary"
    several_runs: bool = False

    def __post_init__(self) -> None:
        shares_of(self.mix)
        if self.per_question < 1:
            raise ConfigError(f"summary_per_question = {self.per_question} must be at least 1")
        if self.total is not None and self.total < 1:
            raise ConfigError(f"summary_total = {self.total} must be at least 1, or left out")

    def settings(self) -> dict[str, object]:
        """What was chosen, for the card."""
        chosen: dict[str, object] = {"mix": dict(self.mix), "total": self.total, "per_question": self.per_question}
        if self.general is not None:
            chosen |= {"general_share": self.general.share, "general_count": self.general.count}
        return chosen | {"seed": self.seed}

    def rows(self, assessed: Assessed, funnel: Funnel) -> Iterator[TrainingRow]:
        """The rows, question by question as they come, general data spread evenly among them.

        Reads the questions twice: once to draw, once to write.
        """
        candidates = self._candidates(assessed, funnel)
        shares = shares_of(self.mix)
        pool = limit(candidates, shares, self.per_question)
        asked = quotas(shares, len(pool) if self.total is None else self.total)
        drawn = draw(candidates, pool, asked)
        funnel.wanted |= {band.value: count for band, count in asked.items()}
        funnel.left_out["not drawn"] += len(candidates.band) - len(drawn)
        rows = self._path_rows(assessed, drawn, len(candidates.band))
        if self.general is None:
            yield from rows
            return
        count = self.general.wanted(len(drawn))
        positions = self.general.chosen(count, self.seed, funnel) if count else []
        yield from spread(rows, len(drawn), self.general.rows(positions, self.render), len(positions))

    def _candidates(self, assessed: Assessed, funnel: Funnel) -> Candidates:
        candidates, numbers = Candidates(), dict[str, int]()
        for place, item in enumerate(assessed()):
            funnel.read(item)
            number = numbers.setdefault(item.question.id, place) if self.several_runs else place
            for path in item.paths:
                if reason := _not_drawable(item.question, path):
                    funnel.left_out[reason] += 1
                else:
                    lot = seed_of(self.seed, "summary", item.question.id, path.path.index)
                    candidates.add(number, band_of(path), path.score, lot)
        return candidates

    def _path_rows(self, assessed: Assessed, drawn: Sequence[int], total: int) -> Iterator[TrainingRow]:
        """The rows of the paths whose numbers are `drawn`, in order."""
        number, left = -1, iter(drawn)
        wanted = next(left, None)
        for item in assessed():
            chosen: list[AssessedPath] = []
            for path in item.paths:
                if not _not_drawable(item.question, path):
                    number += 1
                    if number == wanted:
                        chosen.append(path)
                        wanted = next(left, None)
            if chosen:
                question = self.open(item.question)
                truth, origin = truth_of(question) or "", self.licence.of(question)
                for path in chosen:
                    yield TrainingRow(tuple(self.render(question, path.path)), truth, question, path, *origin)
        if number + 1 != total:
            raise InsightvError(
                f"the run changed while its summary set was written: {total} paths to draw from at first, then "
                f"{number + 1}; write the set again when nothing writes the run"
            )


@dataclass(frozen=True)
class JudgedPaths:
    """Every path with a verdict, each labelled right or wrong by its answer (TRL's unpaired preferences).

    `prompt` and `tags` as in `ReasonSet`.
    """

    prompt: Callable[[Question], Sequence[Message]]
    tags: Tags = TAGS
    open: Opener = as_it_is
    licence: Licence = NOT_GIVEN
    name: str = "paths"

    def __post_init__(self) -> None:
        check_tags(self.tags)

    def settings(self) -> dict[str, object]:
        """What was chosen, for the card."""
        return {"tags": list(self.tags)}

    def rows(self, assessed: Assessed, funnel: Funnel) -> Iterator[TrainingRow]:
        """The rows, question by question as they come, paths by index."""
        for item in assessed():
            funnel.read(item)
            question: Question | None = None
            for path in item.paths:
                if reason := unusable(path):
                    funnel.left_out[reason] += 1
                elif (text := text_of(path.path, self.tags)) is None:
                    funnel.left_out[NO_TEXT] += 1
                else:
                    question = question or self.open(item.question)
                    right = path.band is not Band.wrong
                    prompt, origin = tuple(self.prompt(question)), self.licence.of(question)
                    yield TrainingRow(prompt, text, question, path, *origin, label=right)


def unusable(path: AssessedPath, bands: Collection[Band] = DRAWN) -> str | None:
    """Why a path cannot be in a set that draws from these bands, None where it can."""
    if path.path.status != "ok":
        return str(path.path.status)
    return None if band_of(path) in bands else f"band {band_of(path)}"


def _not_drawable(question: Question, path: AssessedPath) -> str | None:
    return unusable(path) or (None if truth_of(question) is not None else "no true answer to learn")


def text_of(path: ReasoningPath, tags: Tags) -> str | None:
    """The path in the text format; None where a reader would not get the same steps back (no step, a blank title)."""
    text = to_text(path, tags)
    try:
        steps, complete = from_text(text, tags)
    except Unreadable:
        return None
    told, read = ([(step.title, step.content) for step in some] for some in (path.steps, steps))
    return text if complete and told == read else None
