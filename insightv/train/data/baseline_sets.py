"""Rows for one model alone, made of the reason set's: the baselines that the two agents are held against.

    DirectSet(ReasonSet(prompt=...))                 # one reply: the path, and below it the answer
    MultiTurnSet(ReasonSet(prompt=...), ask=...)     # two turns: the path, then the answer

The same paths as the reasoning agent's, so that a difference between the systems is none of their data. The answer is
the true one as the data gave it, as in the summary set. Knows no prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from insightv.agents.replies.reading import Unreadable
from insightv.agents.replies.transcript import Tags, read_answered, with_answer
from insightv.assess.bands import Assessed
from insightv.records import Message
from insightv.train.data.funnel import Funnel
from insightv.train.data.general import truth_of
from insightv.train.data.rows import TrainingRow
from insightv.train.data.sets import NO_TEXT, ReasonSet


@dataclass(frozen=True)
class DirectSet:
    """Each reply reasons and answers: what vanilla direct SFT (chain of thought) learns."""

    paths: ReasonSet
    name: str = "direct"

    def settings(self) -> dict[str, object]:
        """What was chosen, for the card."""
        return self.paths.settings()

    def rows(self, assessed: Assessed, funnel: Funnel) -> Iterator[TrainingRow]:
        """The rows of the reason set with the answer below each path."""
        for row, truth in _with_truth(self.paths, assessed, funnel):
            reply = with_answer(row.completion, truth, self.paths.tags)
            if _comes_back(reply, truth, self.paths.tags):
                yield replace(row, completion=reply)
            else:
                funnel.left_out[NO_TEXT] += 1


@dataclass(frozen=True)
class MultiTurnSet:
    """Two rows for each path: the turn that reasons, and the turn that answers from it.

    Two rows of one completion each put the loss on both replies and on nothing else; in one row with both, TRL would
    also teach the model to write the question that stands between them. `ask` gives the conversation that asks for the
    answer, of the first turn's messages and its reply.
    """

    paths: ReasonSet
    ask: Callable[[Sequence[Message], str], Sequence[Message]]
    name: str = "multi-turn"

    def settings(self) -> dict[str, object]:
        """What was chosen, for the card."""
        return {**self.paths.settings(), "rows_per_path": 2}

    def rows(self, assessed: Assessed, funnel: Funnel) -> Iterator[TrainingRow]:
        """The rows, both turns of a path one after the other."""
        for row, truth in _with_truth(self.paths, assessed, funnel):
            yield row
            yield replace(row, prompt=tuple(self.ask(row.prompt, row.completion)), completion=truth)


def _with_truth(paths: ReasonSet, assessed: Assessed, funnel: Funnel) -> Iterator[tuple[TrainingRow, str]]:
    """The rows of the reason set whose question has a true answer, with it."""
    for row in paths.rows(assessed, funnel):
        truth = truth_of(row.question)
        if truth is None:
            funnel.left_out["no true answer to learn"] += 1
        else:
            yield row, truth


def _comes_back(reply: str, truth: str, tags: Tags) -> bool:
    try:
        return read_answered(reply, tags)[1] == truth.strip()
    except Unreadable:
        return False
