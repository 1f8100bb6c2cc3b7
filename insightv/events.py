"""What a `Reasoner` tells while it works, in this order: the steps as they are written, the path, the answer."""

from __future__ import annotations

from dataclasses import dataclass

from insightv.records import Answer, ReasoningPath


@dataclass(frozen=True, slots=True)
class PathText:
    """A piece of the path's raw text, tags included; `StepStarted` and `StepText` say the same, read."""

    text: str


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step begins; `number` counts from 1."""

    number: int
    title: str


@dataclass(frozen=True, slots=True)
class StepText:
    """A piece of the step's content. All pieces of a step make its content, without white space around it."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class PathDone:
    """The path that the summary agent sees, whole or as far as it came."""

    path: ReasoningPath


@dataclass(frozen=True, slots=True)
class AnswerText:
    """A piece of the answer's text. All pieces make the text, without white space around it."""

    text: str


@dataclass(frozen=True, slots=True)
class AnswerDone:
    """The answer, with its path and the usage of both agents."""

    answer: Answer


Event = PathText | StepStarted | StepText | PathDone | AnswerText | AnswerDone
"""All of them."""
StepEvent = StepStarted | StepText
"""Those of the steps."""
