"""The `path` scorer: all paths of a question in one call, each judged 1..100 by a model that sees the picture."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from insightv.agents.replies.ask import Asker, check_count
from insightv.assess.judge import Reply, ask_judge
from insightv.assess.path_prompt import (
    ASPECTS,
    PATH_SCORES,
    SYSTEM_PROMPT,
    USER_PROMPT,
    Grade,
    grading_messages,
    read_scores,
)
from insightv.errors import ConfigError
from insightv.interfaces import ChatModel, Scorer
from insightv.records import Question, ReasoningPath, Score, seed_of


@dataclass(frozen=True, slots=True)
class _Round:
    """One call (with its tries): which path stood at which place, and what came back."""

    order: list[int]
    reply: Reply[list[Grade]]


class PathScorer(Scorer):
    """Scores the paths of a question in one call (`repeats` calls, each in another order).

    `value` is the judge's score, with repeats the mean of those that could be read. `accepted` is whether it reaches
    `threshold`, True without a threshold. Where no list can be read in `tries` calls, value and accepted are None for
    all paths of the question.

    `details`: logic, grounding, completeness (means); first_error (a step counted from 1, or None for "no step is
    wrong"; absent where repeats disagree); repeats (each judgement); with more than one also min, max and stdev of the
    score, and `unreadable`, how many repeats could not be read.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        threshold: float | None = None,
        repeats: int = 1,
        temperature: float = 0.2,
        top_p: float = 0.7,
        max_tokens: int = 2048,
        tries: int = 3,
        system_prompt: str | None = None,
        extra: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        if threshold is not None and not 1 <= threshold <= 100:
            raise ConfigError(f"threshold = {threshold}: a path's score is on 1 to 100")
        check_count("repeats", repeats, "how often each path is judged")
        self._asker = Asker(
            model, temperature=temperature, top_p=top_p, max_tokens=max_tokens, tries=tries, extra=extra
        )
        self._threshold = threshold
        self._repeats = repeats
        self._system = SYSTEM_PROMPT if system_prompt is None else system_prompt
        self._seed = seed

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts in use, by name; results depend on them."""
        return {"path.system": self._system, "path.user": USER_PROMPT}

    async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
        """One score per path; paths without steps or with another status than ok are not shown to the judge.

        Raises:
            StopRun: nothing more may be asked of the model.
            ValueError: the question's images are not opened.
        """
        scores = [Score(scorer="path", reason=f"the path has no steps, or is {path.status}") for path in paths]
        shown = [at for at, path in enumerate(paths) if path.status == "ok" and path.steps]
        if shown:
            rounds = [await self._judge(question, [paths[at] for at in shown], n) for n in range(self._repeats)]
            for place, at in enumerate(shown):
                scores[at] = self._score(place, rounds)
        return scores

    async def judgements(self, question: Question, paths: Sequence[ReasoningPath], rounds: int) -> list[list[int]]:
        """The scores of each path in `rounds` calls, each in another order; those that could not be read are left out.

        The first calls are those of `score` itself, so within a run they are not paid for again. A check of the judge.

        Raises:
            StopRun: nothing more may be asked of the model.
        """
        made = [await self._judge(question, paths, number) for number in range(rounds)]
        read = [(one.order, one.reply.value) for one in made if one.reply.value is not None]
        return [[grades[order.index(place)].score for order, grades in read] for place in range(len(paths))]

    async def _judge(self, question: Question, paths: Sequence[ReasoningPath], repeat: int) -> _Round:
        order = list(range(len(paths)))
        random.Random(seed_of(self._seed, question.id, "path_scores", "order", repeat)).shuffle(order)
        ordered = [paths[place] for place in order]
        reply = await ask_judge(
            self._asker,
            grading_messages(question, ordered, self._system, self._seed, repeat),
            PATH_SCORES,
            lambda value: read_scores(value, [len(path.steps) for path in ordered]),
            lambda attempt: seed_of(self._seed, question.id, "path_scores", repeat, attempt),
        )
        return _Round(order, reply)

    def _score(self, place: int, rounds: Sequence[_Round]) -> Score:
        judged = [(at := one.order.index(place), one.reply.value[at]) for one in rounds if one.reply.value is not None]
        failed = [one.reply for one in rounds if one.reply.value is None]
        details: dict[str, Any] = {
            "tries": sum(one.reply.tries for one in rounds),
            "calls": [call for one in rounds for call in one.reply.calls],
        }
        if not judged:
            return Score(scorer="path", reason=failed[-1].reason, details=details | {"failed": failed[-1].code})
        scores = [grade.score for _, grade in judged]
        value = statistics.fmean(scores)
        details |= {name: statistics.fmean(getattr(grade, name) for _, grade in judged) for name in ASPECTS}
        faults = {grade.first_error for _, grade in judged}
        if len(faults) == 1:
            details["first_error"] = faults.pop()
        details["repeats"] = [_as_details(at, grade) for at, grade in judged]
        if self._repeats > 1:
            spread = {"min": min(scores), "max": max(scores), "stdev": statistics.pstdev(scores)}
            details |= spread | {"unreadable": len(failed)}
        accepted = self._threshold is None or value >= self._threshold
        reason = "" if accepted else f"{value:g} is below the threshold {self._threshold:g}"
        return Score(scorer="path", value=value, accepted=accepted, reason=reason, details=details)


def _as_details(at: int, grade: Grade) -> dict[str, Any]:
    judgement: dict[str, Any] = {"shown_as": at + 1, "score": grade.score, "first_error": grade.first_error}
    return judgement | {name: getattr(grade, name) for name in ASPECTS}
