"""Is this a generator, a reasoning agent, a summary agent? Their contracts, checked on samples."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from insightv.errors import ModelError
from insightv.interfaces import ChatModel, Generator, ReasoningAgent, SummaryAgent
from insightv.records import Answer, Question, ReasoningPath
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

R = TypeVar("R")
T = TypeVar("T")


def check_generator(
    generator: Generator | Callable[..., Generator],
    *,
    model: ChatModel | None = None,
    questions: Sequence[Question] | None = None,
    n: int = 3,
    block_s: float = 0.2,
    timeout_s: float = 60.0,
) -> None:
    """Check that a generator keeps its contract: `n` whole or honestly ended paths per question, in order.

    Also as `check_scorer`: the input as it was, the loop free, the same result for the same input, and the model's
    errors: StopRun comes through, after a ModelError no path is "ok". Raises ConformanceError.
    """

    async def generate(role: Generator, question: Question) -> list[ReasoningPath]:
        return await role.generate(question, n, seed=7)

    def check(what: str, question: Question, paths: list[ReasoningPath]) -> None:
        if not isinstance(paths, list) or len(paths) != n:
            got = f"{len(paths)} paths" if isinstance(paths, list) else f"a {type(paths).__name__}"
            raise ConformanceError(f"{what} returned {got}; return a list of {n}, failed and rejected ones among them")
        for index, path in enumerate(paths):
            _check_path(what, question, path, index)
            if path.status == "ok" and path.answer is None:
                raise ConformanceError(f'{what}: path {index} is "ok" without an answer; reject it with a code')

    def honest(paths: list[ReasoningPath]) -> bool:
        return all(path.status != "ok" for path in paths)

    limits = Limits(timeout_s=timeout_s, block_s=block_s)
    checks = _Checks(generator, Generator, "generate()", generate, check, honest, model, limits)
    run_checks(checks.run(questions or sample_questions()), limits, "generate()")


def check_reasoning_agent(
    agent: ReasoningAgent | Callable[..., ReasoningAgent],
    *,
    model: ChatModel | None = None,
    questions: Sequence[Question] | None = None,
    block_s: float = 0.2,
    timeout_s: float = 60.0,
) -> None:
    """Check that a reasoning agent keeps its contract, its stream too; as `check_generator`.

    Raises ConformanceError.
    """

    async def reason(role: ReasoningAgent, question: Question) -> ReasoningPath:
        path = await role.reason(question, seed=7)
        pieces = [piece async for piece in role.stream_reason(question, seed=7)]
        if not pieces or not isinstance(pieces[-1], ReasoningPath) or any(not isinstance(p, str) for p in pieces[:-1]):
            raise ConformanceError(
                f"stream_reason() gave {pieces!r:.200}; it is pieces of text, then the ReasoningPath"
            )
        return path

    def check(what: str, question: Question, path: ReasoningPath) -> None:
        _check_path(what, question, path, 0)

    limits = Limits(timeout_s=timeout_s, block_s=block_s)
    checks = _Checks(agent, ReasoningAgent, "reason()", reason, check, lambda path: path.status != "ok", model, limits)
    run_checks(checks.run(questions or sample_questions()), limits, "reason()")


def check_summary_agent(
    agent: SummaryAgent | Callable[..., SummaryAgent],
    *,
    model: ChatModel | None = None,
    questions: Sequence[Question] | None = None,
    block_s: float = 0.2,
    timeout_s: float = 60.0,
) -> None:
    """Check that a summary agent keeps its contract, with whole, rejected and failed paths; as `check_generator`.

    Raises ConformanceError.
    """

    async def summarize(role: SummaryAgent, question: Question) -> list[Answer]:
        whole = sample_paths(question)[0]
        cut = whole.model_copy(update={"status": "rejected", "code": "max_steps", "answer": None})
        failed = cut.model_copy(update={"status": "failed", "code": "timeout", "steps": ()})
        return [await role.summarize(question, path) for path in (whole, cut, failed)]

    def check(what: str, question: Question, answers: list[Answer]) -> None:
        for answer in answers:
            if not isinstance(answer, Answer):
                raise ConformanceError(f"{what} returned a {type(answer).__name__}; return an insightv.Answer")
            if not isinstance(answer.text, str) or not answer.text.strip():
                raise ConformanceError(f"{what} answered {answer.text!r}; raise ModelError where there is no answer")

    limits = Limits(timeout_s=timeout_s, block_s=block_s)
    checks = _Checks(agent, SummaryAgent, "summarize()", summarize, check, lambda _: False, model, limits)
    run_checks(checks.run(questions or sample_questions()), limits, "summarize()")


def _check_path(what: str, question: Question, path: object, index: int) -> None:
    if not isinstance(path, ReasoningPath):
        raise ConformanceError(f"{what} returned {path!r:.200} as path {index}; make it an insightv.ReasoningPath")
    if (path.question_id, path.index) != (question.id, index):
        raise ConformanceError(
            f"{what} returned path {path.index} of {path.question_id!r} at place {index}; indices count from 0 in order"
        )
    if path.status == "ok":
        if path.code is not None or not path.steps:
            raise ConformanceError(
                f'{what}: path {index} is "ok" with code {path.code!r} and {len(path.steps)} steps; a path that is ok '
                "has steps and no code"
            )
    elif path.status not in ("rejected", "failed") or not path.code:
        raise ConformanceError(
            f"{what}: path {index} has status {path.status!r} and code {path.code!r}; "
            '"rejected" and "failed" have a code'
        )


class _Checks(Generic[R, T]):
    """The checks that all of these roles share; `honest` says of a result that it claims nothing."""

    def __init__(
        self,
        given: object,
        role: type[R],
        call: str,
        ask: Callable[[R, Question], Awaitable[T]],
        check: Callable[[str, Question, T], None],
        honest: Callable[[T], bool],
        model: ChatModel | None,
        limits: Limits,
    ) -> None:
        self._model = WatchedModel(model) if model is not None else None
        self._given = given
        self._role = role
        self._call = call
        self._ask = ask
        self._check = check
        self._honest = honest
        self._limits = limits

    def _make(self) -> R:
        return made(self._given, self._role, self._model)

    async def run(self, questions: Sequence[Question]) -> None:
        role = self._make()
        first = [await self._one(role, question) for question in questions]
        again = await asyncio.gather(*(self._one(role, question) for question in questions))
        for question, one, other in zip(questions, first, again, strict=True):
            if one != other:
                raise ConformanceError(
                    f"{self._call} of question {question.id!r} gave {one!r:.200}, and {other!r:.200} when other "
                    "questions were asked at the same time; keep nothing between calls, and let the seed decide"
                )
        if self._model is not None:
            for question in questions:
                await self._errors(self._model, question)

    async def _one(self, role: R, question: Question) -> T:
        what = f"{self._call} of question {question.id!r}"
        before = snapshot(question)
        result = await called(what, lambda: self._ask(role, question), self._limits)
        unchanged(what, before, question)
        self._check(what, question, result)
        return result

    async def _errors(self, model: WatchedModel, question: Question) -> None:
        role, what = self._make(), f"{self._call} of question {question.id!r}"
        model.error, asked = stop_error(), model.calls
        await lets_stop_through(what, lambda: self._ask(role, question), lambda: True, self._limits)
        if model.calls == asked:
            raise ConformanceError(f"{what} never asked its model")
        model.error = model_error()
        try:
            result = await self._ask(role, question)
        except ModelError:
            pass
        else:
            self._check(what, question, result)
            if not self._honest(result):
                raise ConformanceError(
                    f"{what}: the model raised ModelError, and {result!r:.200} came out; let it through, or say "
                    '"failed" with the error\'s code: nothing is made up'
                )
        model.error, model.hang = None, True
        await ends_when_cancelled(what, lambda: self._ask(role, question), 0.02, self._limits)
        model.hang = False
