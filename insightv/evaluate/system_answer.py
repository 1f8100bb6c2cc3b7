"""What a system answered to one question, and its form as paths: a run stores nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from insightv.assess.bands import AssessedPath, AssessedQuestion
from insightv.records import Answer, ReasoningPath

P = TypeVar("P", ReasoningPath, AssessedPath)

_FOLLOWED, _OVERRULED = "followed", "overruled"
_SECONDS = "seconds="  # a flag of evaluations made by 0.1.0, which did not keep the calls of an answer


@dataclass(frozen=True)
class SystemAnswer(Generic[P]):
    """`answer` ends with what the system answered; `reasoning` is the path that it wrote before, with its own end.

    `reasoning` is None where the system does not reason apart from answering.
    """

    answer: P
    reasoning: P | None = None


def to_paths(made: SystemAnswer[ReasoningPath]) -> list[ReasoningPath]:
    """The paths of a question of an evaluation: the answer's, then the reasoning's."""
    parts = [part for part in (made.answer, made.reasoning) if part is not None]
    return [part.model_copy(update={"index": index}) for index, part in enumerate(parts)]


def from_paths(assessed: AssessedQuestion) -> SystemAnswer[AssessedPath]:
    """The reverse of `to_paths`, with the grades."""
    return SystemAnswer(*assessed.paths[:2])


def answer_path(blank: ReasoningPath, answer: Answer) -> ReasoningPath:
    """A path without steps that holds a summary agent's answer, its cost and its marks."""
    said = () if answer.followed is None else (_FOLLOWED if answer.followed else _OVERRULED,)
    update = {"answer": answer.text, "usage": answer.usage, "flags": (*answer.flags, *said)}
    return blank.model_copy(update=update)


def said_followed(answer: ReasoningPath) -> bool | None:
    """Whether the summary agent says that it followed the reasoning; None where it does not say."""
    return _FOLLOWED in answer.flags if {_FOLLOWED, _OVERRULED} & set(answer.flags) else None


def flagged_seconds(answer: ReasoningPath) -> float | None:
    """The seconds that 0.1.0 measured for a question; None where it did not, or a later release made the path."""
    found = next((flag for flag in answer.flags if flag.startswith(_SECONDS)), None)
    return None if found is None else float(found.removeprefix(_SECONDS))
