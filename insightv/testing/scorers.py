"""Is this a scorer? The contract of `insightv.Scorer`, checked on samples."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

from insightv.interfaces import ChatModel, Scorer
from insightv.records import Question, ReasoningPath, Score
from insightv.testing.frame import Case, RoleChecks
from insightv.testing.running import ConformanceError, Limits
from insightv.testing.samples import sample_paths, sample_questions

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
    cases = [(question, tuple(paths(question))) for question in (questions or sample_questions())]
    turns = per_path or (per_path is None and model is None)

    async def places(part: Scorer, scores: list[Judgement]) -> None:
        question, shown = cases[0]
        if turns and not _alike((await checks.one(part, (question, shown[::-1])))[::-1], scores):
            raise ConformanceError(
                f"the paths of question {question.id!r} were scored {scores}, and otherwise when given in reverse; "
                "the score of path i stands at place i (per_path=False if a score may depend on a path's place)"
            )
        for path, score in zip(shown, scores, strict=True):
            alone = await checks.one(part, (question, (path,)))
            if per_path and not _alike(alone, [score]):
                raise ConformanceError(
                    f"path {path.index} of question {question.id!r} was scored {score} among {len(shown)} paths and "
                    f"{alone[0]} alone; with per_path=True a score depends on its own path only"
                )

    checks = RoleChecks(
        given=scorer,
        role=Scorer,
        call="score()",
        ask=lambda role, case: role.score(*case),
        read=_judgements,
        honest=lambda judged: len(judged) > 1 or judged == [(None, None)],  # rules may have decided some of several
        alike=_alike,
        limits=Limits(timeout_s=timeout_s, block_s=block_s),
    )
    checks.run(model, cases, [(question, (path,)) for question, shown in cases for path in shown], places)


def _alike(one: list[Judgement], other: list[Judgement]) -> bool:
    return len(one) == len(other) and all(
        a[1] == b[1] and (a[0] == b[0] or (a[0] is not None and b[0] is not None and math.isclose(a[0], b[0])))
        for a, b in zip(one, other, strict=True)
    )


def _judgements(what: str, case: Case, scores: object) -> list[Judgement]:
    """Value and verdict of each score, all of it checked."""
    if not isinstance(scores, list):
        raise ConformanceError(f"{what} returned a {type(scores).__name__}: {scores!r:.200}; return a list of Score")
    if len(scores) != len(case[1]):
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
