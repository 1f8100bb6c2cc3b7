"""How a `Reasoner` comes to its path: one kept to its limits, several of them, and which the summary agent sees."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from insightv.agents.replies.ask import closing
from insightv.agents.replies.transcript import TAGS
from insightv.agents.replies.transcript_stream import StepReader
from insightv.assess.agreement import conclusion, majority
from insightv.concurrency import all_of
from insightv.errors import InsightvError, ModelError
from insightv.events import PathText, StepEvent, StepStarted, StepText
from insightv.interfaces import ReasoningAgent, Scorer
from insightv.plugin_guard import awaited, checked_scores, error_text, is_ours
from insightv.records import AskOptions, Question, ReasoningPath, Score, Step, Usage, seed_of

T = TypeVar("T")
log = logging.getLogger(__name__)


PATH_SHARE = 0.75
"""The share of the deadline and of the tokens that the paths may use; the rest is kept for the answer."""
SCORED_SHARE = 0.85
"""The share of the deadline at whose end a scorer must have chosen among several paths."""


USAGE_UNKNOWN = "usage_unknown"
"""The flag of a path whose last call was stopped, so that what it has cost is not known."""


class TimeUp(Exception):
    """The time that one question has is up."""


STUMBLES = (Exception, asyncio.CancelledError, SystemExit)
"""What a plugin's agent may raise; `as_model_error` turns it into an error of our own."""


class Deadline:
    """The time that one question has, from now on; None: no limit."""

    def __init__(self, seconds: float | None) -> None:
        self._ends = None if seconds is None else time.monotonic() + seconds
        self._seconds = seconds

    async def wait(self, work: Awaitable[T], *, share: float = 1.0) -> T:
        """The result of `work`; a TimeoutError of its own is raised as it is.

        Raises:
            TimeUp: the time is up, but for what is left of it after its first `share`.
        """
        if self._ends is None or self._seconds is None:
            return await work
        left = self._ends - (1 - share) * self._seconds - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, left)) as limit:
                return await work
        except TimeoutError:
            if limit.expired():
                raise TimeUp from None
            raise


def as_model_error(part: object, error: BaseException) -> ModelError:
    """What came out of an agent as the error of its call; what is meant for us is raised."""
    if isinstance(error, ModelError):
        return error
    if isinstance(error, InsightvError) or is_ours(error):
        raise error
    if isinstance(error, StopAsyncIteration):
        error = TypeError("its stream ended without what it should end with")
    name = type(part).__name__
    log.error("%s failed", name, exc_info=error)
    return ModelError("agent_error", f"{name} failed: {error_text(error)}")


async def walk(
    agent: ReasoningAgent, question: Question, seed: int, deadline: Deadline, max_steps: int | None = None
) -> AsyncGenerator[PathText | StepEvent | ReasoningPath, None]:
    """One path as events, at its end as a whole. One that fails or is cut is a path too, with the steps it has.

    Raises:
        StopRun: nothing more may be asked.
    """
    reader, path = StepReader(getattr(agent, "tags", TAGS)), None
    try:
        pieces: Any = agent.stream_reason(question, seed=seed)  # an async generator, mostly
        async with closing(pieces):
            while path is None:
                piece = await deadline.wait(anext(pieces), share=PATH_SHARE)
                if not isinstance(piece, str):
                    path = _checked(piece)
                    continue
                yield PathText(piece)
                for event in reader.feed(piece):
                    if max_steps is not None and event.number > max_steps:
                        path = _cut(question, seed, reader.steps[:max_steps], "step_limit")
                        break
                    yield event
    except TimeUp:
        path = _cut(question, seed, reader.steps, "deadline")
    except STUMBLES as error:  # its fault costs this path, not the answer
        path = _failed(question, seed, as_model_error(agent, error))
    if max_steps is not None and len(path.steps) > max_steps:
        path = path.model_copy(update={"steps": path.steps[:max_steps], "status": "rejected", "code": "step_limit"})
    for event in step_events(path, reader.started):
        yield event
    yield path


async def one_path(
    agent: ReasoningAgent, question: Question, seed: int, deadline: Deadline, max_steps: int | None = None
) -> ReasoningPath:
    """One path as a whole. With a step limit it is watched as it is written, and stopped; then it has one try."""
    if max_steps is not None:
        async with aclosing(walk(agent, question, seed, deadline, max_steps)) as events:
            *_, path = [event async for event in events if isinstance(event, ReasoningPath)]
        return path
    try:
        asked = awaited(f"{type(agent).__name__}.reason()", agent.reason(question, seed=seed))
        return _checked(await deadline.wait(asked, share=PATH_SHARE))
    except TimeUp:
        return _cut(question, seed, (), "deadline")
    except STUMBLES as error:  # as in `walk`
        return _failed(question, seed, as_model_error(agent, error))


def step_events(path: ReasoningPath, already: int = 0) -> list[StepEvent]:
    """The steps of a path as events, from the first that was not told `already`."""
    events: list[StepEvent] = []
    for number, step in enumerate(path.steps[already:], already + 1):
        events += [StepStarted(number, step.title), StepText(number, step.content)]
    return events


async def several_paths(
    agent: ReasoningAgent, question: Question, seed: int, options: AskOptions, count: int, deadline: Deadline
) -> list[ReasoningPath]:
    """`count` paths at once, each from a seed of its own; the first is the one that is drawn alone."""
    bounded = agent.within(for_path(options, count))
    seeds = [seed, *(seed_of(seed, question.id, "path", index) for index in range(1, count))]
    found = await all_of([one_path(bounded, question, each, deadline, options.max_steps) for each in seeds])
    return [path.model_copy(update={"index": index}) if index else path for index, path in enumerate(found)]


async def shown_path(
    scorer: Scorer | None, question: Question, found: Sequence[ReasoningPath], deadline: Deadline
) -> ReasoningPath:
    """The path that the summary agent sees: the only one, the best by the scorer, or without one all of them in one."""
    if len(found) == 1:
        return found[0]
    return merged(question, found) if scorer is None else await best_of(scorer, question, found, deadline)


async def best_of(
    scorer: Scorer, question: Question, paths: Sequence[ReasoningPath], deadline: Deadline
) -> ReasoningPath:
    """The whole path with the best score that the scorer does not refuse; the first whole one where none is judged.

    Raises:
        StopRun: nothing more may be asked.
    """
    whole = [path for path in paths if path.status == "ok"]
    if len(whole) < 2:
        return (whole or sorted(paths, key=lambda path: -len(path.steps)))[0]
    try:
        name = f"{type(scorer).__name__}.score()"
        made = await deadline.wait(awaited(name, scorer.score(question, whole)), share=SCORED_SHARE)
        scores = checked_scores(name, made, len(whole))
    except TimeUp:
        log.warning("the paths could not be scored: the time for it is up")
        return whole[0]
    except STUMBLES as error:
        log.warning("the paths could not be scored: %s", as_model_error(scorer, error))
        return whole[0]
    return max(zip(scores, whole, strict=True), key=lambda pair: _rank(pair[0]))[1]


def merged(question: Question, paths: Sequence[ReasoningPath]) -> ReasoningPath:
    """All paths that have steps as one, each step under the number of its path: those that are not whole first.

    It comes to what most of the whole ones come to, and its last step is that of a whole one, where there is any.
    """
    whole = [path for path in paths if path.status == "ok"]
    shown = sorted((path for path in paths if path.steps), key=lambda path: path.status == "ok")
    if len(shown) < 2:
        return next((path for path in whole if conclusion(path) is not None), (shown or list(paths))[0])
    steps = tuple(
        Step(title=f"Path {number}: {step.title}", content=step.content, action=step.action)
        for number, path in enumerate(shown, 1)
        for step in path.steps
    )
    own = {"steps": steps, "answer": majority(question, paths), "calls": ()}
    return (whole or shown)[0].model_copy(update=own)


def for_path(options: AskOptions, paths: int) -> AskOptions:
    """What each of several paths may take of what a question may take."""
    if options.max_tokens is None:
        return options
    return options.model_copy(update={"max_tokens": max(1, int(options.max_tokens * PATH_SHARE) // paths)})


def _rank(score: Score) -> tuple[int, float]:
    if score.accepted is False:
        return 0, score.value or 0.0
    return (1, 0.0) if score.value is None and score.accepted is None else (2, score.value or 0.0)


def _cut(question: Question, seed: int, steps: Sequence[Step], code: str) -> ReasoningPath:
    """A path that was stopped; what its last call cost is not known but for the call itself."""
    return ReasoningPath(
        question_id=question.id,
        index=0,
        status="rejected",
        code=code,
        detail="the path was stopped by a limit of this question",
        steps=tuple(steps),
        seed=seed,
        usage=Usage(requests=1),
        flags=(USAGE_UNKNOWN,),
    )


def _checked(path: object) -> ReasoningPath:
    if not isinstance(path, ReasoningPath):
        raise TypeError(f"its path is of type {type(path).__name__}, not insightv.ReasoningPath")
    return path


def _failed(question: Question, seed: int, error: ModelError) -> ReasoningPath:
    return ReasoningPath(
        question_id=question.id,
        index=0,
        status="failed",
        code=error.code,
        detail=str(error),
        seed=seed,
        usage=error.usage,
    )
