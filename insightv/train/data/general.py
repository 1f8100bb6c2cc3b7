"""Image-question data without paths, to mix among rows of paths: which of it, and where among them.

Knows a question and its answer; the caller says how an agent is shown a question without a path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice

from insightv.errors import ConfigError
from insightv.records import Message, Question, ReasoningPath, seed_of
from insightv.train.data.funnel import Funnel
from insightv.train.data.rows import NOT_GIVEN, Licence, TrainingRow

Opener = Callable[[Question], Question]
"""Opens the images of a question; called once for each question that gives a row."""


Render = Callable[[Question, ReasoningPath], Sequence[Message]]
"""What an agent is shown of a question and a path."""


def as_it_is(question: Question) -> Question:
    """The opener for questions whose images are open already."""
    return question


def truth_of(question: Question) -> str | None:
    """The true answer as given; None where there is none, or a blank one."""
    return question.answer if question.answer and question.answer.strip() else None


@dataclass(frozen=True)
class GeneralData:
    """Image-question data without paths, mixed into the summary set: a question with its answer.

    Each is shown as the agent is shown a question when the reasoning failed, so that it learns to answer that too.
    `questions` can be read from the start again. `share` is the share of all rows of the set that is general
    (0 to below 1); `count`, where given, is the number of rows instead.
    """

    questions: Callable[[], Iterable[Question]]
    share: float = 0.5
    count: int | None = None
    open: Opener = as_it_is
    licence: Licence = NOT_GIVEN

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ConfigError(f"general_share = {self.share} must be at least 0 and below 1")

    def wanted(self, rows: int) -> int:
        """How many rows go with `rows` rows of paths."""
        return self.count if self.count is not None else round(rows * self.share / (1 - self.share))

    def chosen(self, count: int, seed: int, funnel: Funnel) -> list[int]:
        """The positions of `count` questions (or all there are) with an answer, drawn by the seed, in order."""
        funnel.general["wanted"] = count

        def lots() -> Iterator[tuple[int, int]]:
            for position, question in enumerate(self.questions()):
                funnel.general["questions"] += 1
                if truth_of(question) is None:
                    funnel.general["without an answer"] += 1
                else:
                    yield seed_of(seed, "general", question.id), position

        return sorted(position for _, position in nsmallest(count, lots()))

    def rows(self, positions: Sequence[int], render: Render) -> Iterator[TrainingRow]:
        """The rows of the questions at these positions."""
        places = iter(positions)
        place = next(places, None)
        for position, question in enumerate(self.questions()):
            if place is None:
                return
            if position == place:
                place = next(places, None)
                opened = self.open(question)
                none = ReasoningPath(question_id=question.id, index=0, status="failed", code="no_reasoning")
                prompt = tuple(render(opened, none))
                yield TrainingRow(prompt, truth_of(question) or "", opened, None, *self.licence.of(question))


def spread(first: Iterator[TrainingRow], m: int, second: Iterator[TrainingRow], n: int) -> Iterator[TrainingRow]:
    """All of `first` (m rows) with `second` (n rows) spread evenly among them."""
    for i in range(m):
        yield from islice(second, n * (i + 1) // (m + 1) - n * i // (m + 1))
        yield from islice(first, 1)
    yield from second
    yield from first  # nothing is left of it: its own check at the end is to run
