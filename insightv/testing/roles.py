"""Is this a generator, a reasoning agent, a summary agent? Their contracts, checked on samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from insightv.interfaces import ChatModel, Generator, ReasoningAgent, SummaryAgent
from insightv.records import Answer, Question, ReasoningPath
from insightv.testing.frame import Case, RoleChecks
from insightv.testing.running import ConformanceError, Limits
from insightv.testing.samples import sample_paths, sample_questions


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

    async def generate(role: Generator, case: Case) -> list[ReasoningPath]:
        return await role.generate(case[0], n, seed=7)

    def read(what: str, case: Case, paths: list[ReasoningPath]) -> list[ReasoningPath]:
        if not isinstance(paths, list) or len(paths) != n:
            got = f"{len(paths)} paths" if isinstance(paths, list) else f"a {type(paths).__name__}"
            raise ConformanceError(f"{what} returned {got}; return a list of {n}, failed and rejected ones among them")
        for index, path in enumerate(paths):
            _check_path(what, case[0], path, index)
            if path.status == "ok" and path.answer is None:
                raise ConformanceError(f'{what}: path {index} is "ok" without an answer; reject it with a code')
        return paths

    RoleChecks(
        given=generator,
        role=Generator,
        call="generate()",
        ask=generate,
        read=read,
        honest=lambda paths: all(path.status != "ok" for path in paths),
        limits=Limits(timeout_s=timeout_s, block_s=block_s),
    ).run(model, _cases(questions))


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

    async def reason(role: ReasoningAgent, case: Case) -> ReasoningPath:
        path = await role.reason(case[0], seed=7)
        pieces = [piece async for piece in role.stream_reason(case[0], seed=7)]
        if not pieces or not isinstance(pieces[-1], ReasoningPath) or any(not isinstance(p, str) for p in pieces[:-1]):
            raise ConformanceError(
                f"stream_reason() gave {pieces!r:.200}; it is pieces of text, then the ReasoningPath"
            )
        return path

    RoleChecks(
        given=agent,
        role=ReasoningAgent,
        call="reason()",
        ask=reason,
        read=lambda what, case, path: _check_path(what, case[0], path, 0),
        honest=lambda path: path.status != "ok",
        limits=Limits(timeout_s=timeout_s, block_s=block_s),
    ).run(model, _cases(questions))


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

    async def summarize(role: SummaryAgent, case: Case) -> list[Answer]:
        question, _ = case
        whole = sample_paths(question)[0]
        cut = whole.model_copy(update={"status": "rejected", "code": "max_steps", "answer": None})
        failed = cut.model_copy(update={"status": "failed", "code": "timeout", "steps": ()})
        return [await role.summarize(question, path) for path in (whole, cut, failed)]

    def read(what: str, _: Case, answers: list[Answer]) -> list[Answer]:
        for answer in answers:
            if not isinstance(answer, Answer):
                raise ConformanceError(f"{what} returned a {type(answer).__name__}; return an insightv.Answer")
            if not isinstance(answer.text, str) or not answer.text.strip():
                raise ConformanceError(f"{what} answered {answer.text!r}; raise ModelError where there is no answer")
        return answers

    RoleChecks(
        given=agent,
        role=SummaryAgent,
        call="summarize()",
        ask=summarize,
        read=read,
        honest=lambda _: False,
        limits=Limits(timeout_s=timeout_s, block_s=block_s),
    ).run(model, _cases(questions))


def _cases(questions: Sequence[Question] | None) -> list[Case]:
    return [(question, ()) for question in questions or sample_questions()]


def _check_path(what: str, question: Question, path: object, index: int) -> ReasoningPath:
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
    return path
