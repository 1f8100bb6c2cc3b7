"""Is this a scorer? The contract of `insightv.Scorer`, checked on samples."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence

from insightv.errors import ModelError
from insightv.interfaces import ChatModel, Scorer
from insightv.records import Question, ReasoningPath, Score
from insightv.testing.running import (
    ConformanceError,
    Limits,
    WatchedModel,
    called,
    ends_when_cancelled,
    lets_stop_through,
    made,
    model_error,
    run_checks,
    snapshot,
    stop_error,
    unchanged,
)
from insightv.testing.samples import sample_paths, sample_questions

Case = tuple[Question, tuple[ReasoningPath, ...]]
Judgement = tuple[float | None, bool | None]


def check_scorer(
    scorer: Scorer | Callable[..., Scorer],
    *,
    model: ChatModel | None = None,
    questions: Sequence[Question] | None = None,
    paths: Callable[[Question], Sequence[ReasoningPath]] = sample_paths,
    per_path: bool | None = None,
    block_s: float = 0.2,
    timeout_s: float = 60.0,
) -> None:
    """Check that a scorer keeps its contract.

    Checked are: one Score per path, in order; values on 1..100 or None; `details` that can be kept as JSON; the input
    as it was; an event loop that others can use; the same scores for the same input whatever was scored before or is
    scored at the same time (so a model given here must always say the same to the same). With a model: StopRun comes
    through, a ModelError becomes no judgement, a cancelled call lets go.

    Args:
        scorer: a scorer, or better its class or a function that makes it, so that two of them can be compared.
        model: passed to the factory as `model`.
        questions: in place of `sample_questions`.
        paths: makes the paths of a question, in place of `sample_paths`.
        per_path: True: a path's score must not depend on the other paths, nor on its place among them. False: it may
            depend on both. None: as its place only for scorers with a model.
        block_s: how long a call may hold the event loop, seconds.
        timeout_s: how long a call may take, seconds.

    Raises:
        ConformanceError: with what is wrong, the value and the cure.
    """
    limits = Limits(timeout_s=timeout_s, block_s=block_s)
    watched = WatchedModel(model) if model is not None else None
    cases = [(question, tuple(paths(question))) for question in (questions or sample_questions())]
    run_checks(_Checks(scorer, watched, cases, per_path, limits).run(), limits, "score()")


class _Checks:
    def __init__(
        self, given: object, model: WatchedModel | None, cases: list[Case], per_path: bool | None, limits: Limits
    ) -> None:
        self._given = given
        self._model = model
        self._cases = cases
        self._per_path = per_path
        self._limits = limits

    async def run(self) -> None:
        scorer = made(self._given, Scorer, self._model)
        first = [await self._score(scorer, case) for case in self._cases]
        for case, scores in zip(self._cases, first, strict=True):
            await self._same(scorer, case, scores, "a second time")
        if not isinstance(self._given, Scorer):
            fresh = made(self._given, Scorer, self._model)
            for case, scores in zip(reversed(self._cases), reversed(first), strict=True):
                await self._same(fresh, case, scores, "by a new scorer, in another order of questions")
        together = await asyncio.gather(*(self._score(scorer, case) for case in self._cases))
        for case, scores, again in zip(self._cases, first, together, strict=True):
            self._equal(case, scores, again, "while other questions were being scored")
        await self._places(scorer, first[0])
        if self._model is not None:
            await self._model_errors(self._model)

    async def _score(self, scorer: Scorer, case: Case) -> list[Judgement]:
        question, paths = case
        what = f"score() of question {question.id!r} with {len(paths)} paths"
        before = snapshot(question, *paths)
        scores = await called(what, lambda: scorer.score(question, paths), self._limits)
        unchanged(what, before, question, *paths)
        return _judgements(what, scores, len(paths))

    async def _same(self, scorer: Scorer, case: Case, scores: list[Judgement], when: str) -> None:
        self._equal(case, scores, await self._score(scorer, case), when)

    def _equal(self, case: Case, scores: list[Judgement], again: list[Judgement], when: str) -> None:
        if not _alike(scores, again):
            raise ConformanceError(
                f"question {case[0].id!r} was scored {scores}, and {again} {when}; keep nothing between calls that "
                "changes a score, and draw random numbers from a fixed seed (shown: value and verdict of each path)"
            )

    async def _places(self, scorer: Scorer, scores: list[Judgement]) -> None:
        question, paths = self._cases[0]
        if self._per_path or (self._per_path is None and self._model is None):
            turned = await self._score(scorer, (question, paths[::-1]))
            if not _alike(turned[::-1], scores):
                raise ConformanceError(
                    f"the paths of question {question.id!r} were scored {scores}, and {turned} when given in reverse; "
                    "the score of path i stands at place i (per_path=False if a score may depend on a path's place)"
                )
        for path, score in zip(paths, scores, strict=True):
            alone = await self._score(scorer, (question, (path,)))
            if self._per_path and not _alike(alone, [score]):
                raise ConformanceError(
                    f"path {path.index} of question {question.id!r} was scored {score} among {len(paths)} paths and "
                    f"{alone[0]} alone; with per_path=True a score depends on its own path only"
                )

    async def _model_errors(self, model: WatchedModel) -> None:
        if not model.calls:
            raise ConformanceError("the model was never asked; give questions= for which the scorer asks it")
        scorer = made(self._given, Scorer, model)  # one that remembers no reply
        for question, paths in self._cases:
            for path in paths:
                await self._model_error(scorer, model, question, path)
            await self._stop(scorer, model, question, paths)
        model.error, model.hang = None, True
        for question, paths in self._cases:
            call = f"score() of question {question.id!r}, waiting for its model,"
            await ends_when_cancelled(call, lambda q=question, p=paths: scorer.score(q, p), 0.02, self._limits)  # type: ignore[misc]  # mypy cannot type a lambda's defaults
        model.hang = False
        await self._score(scorer, self._cases[0])

    async def _model_error(self, scorer: Scorer, model: WatchedModel, question: Question, path: ReasoningPath) -> None:
        what = f"score() of question {question.id!r} with path {path.index}"
        model.error, asked = model_error(), model.calls
        try:
            scores = await scorer.score(question, (path,))
        except ModelError:
            scores = []
        except Exception as error:
            raise ConformanceError(
                f"{what}: the model raised ModelError, and {type(error).__name__} came out: {error}; let ModelError "
                "through, or return a score without value and verdict"
            ) from error
        if model.calls == asked:
            return  # decided without the model
        for value, accepted in _judgements(what, scores, 1) if scores else ():
            if value is not None or accepted is not None:
                raise ConformanceError(
                    f"{what}: the model raised ModelError, and the path got value {value!r} and accepted {accepted!r}; "
                    "what could not be judged has None for both"
                )
        await self._stop(scorer, model, question, (path,))

    async def _stop(
        self, scorer: Scorer, model: WatchedModel, question: Question, paths: Sequence[ReasoningPath]
    ) -> None:
        """Check that StopRun comes through wherever the model is asked at all."""
        model.error, asked = stop_error(), model.calls
        what = f"score() of question {question.id!r} with {len(paths)} paths"
        await lets_stop_through(what, lambda: scorer.score(question, paths), lambda: model.calls > asked, self._limits)


def _alike(one: list[Judgement], other: list[Judgement]) -> bool:
    return len(one) == len(other) and all(
        a[1] == b[1] and (a[0] == b[0] or (a[0] is not None and b[0] is not None and math.isclose(a[0], b[0])))
        for a, b in zip(one, other, strict=True)
    )


def _judgements(what: str, scores: object, n: int) -> list[Judgement]:
    """Value and verdict of each score, all of it checked."""
    if not isinstance(scores, list):
        raise ConformanceError(f"{what} returned a {type(scores).__name__}: {scores!r:.200}; return a list of Score")
    if len(scores) != n:
        raise ConformanceError(
            f"{what} returned {len(scores)} scores; return one per path, in order, with value None where a path cannot "
            "be judged"
        )
    for place, score in enumerate(scores):
        if not isinstance(score, Score):
            raise ConformanceError(f"{what} returned {score!r:.200} for path {place}; make it an insightv.Score")
        _check_score(f"{what}: the score of path {place}", score)
    return [(score.value, score.accepted) for score in scores]


def _check_score(what: str, score: Score) -> None:
    value: object = score.value
    if value is not None and (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or not 1 <= value <= 100
    ):
        raise ConformanceError(f"{what} has the value {value!r}; it is a number on 1..100, or None for not judged")
    accepted: object = score.accepted
    if accepted is not None and not isinstance(accepted, bool):
        raise ConformanceError(f"{what} has accepted = {accepted!r}; it is True, False, or None for not judged")
    if not isinstance(score.scorer, str) or not isinstance(score.reason, str):
        raise ConformanceError(f"{what} has scorer {score.scorer!r} and reason {score.reason!r}; both are texts")
    try:
        json.dumps(score.details, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConformanceError(
            f"{what} has details that cannot be kept as JSON ({error}): {score.details!r:.200}"
        ) from error
