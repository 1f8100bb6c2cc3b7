"""How a `Reasoner` comes to its answers: the summary agent kept to what is left, its answer with all of its paths."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from insightv.agents.replies.ask import closing
from insightv.agents.summary import NO_REASONING, marks
from insightv.assess.agreement import agreement, agrees
from insightv.concurrency import all_of
from insightv.errors import InputError, InsightvError, ModelError, StopRun
from insightv.events import AnswerDone, AnswerText
from insightv.interfaces import SummaryAgent
from insightv.plugin_guard import awaited, described
from insightv.reasoner.paths import PATH_SHARE, STUMBLES, Deadline, TimeUp, as_model_error
from insightv.records import Answer, AskOptions, Picture, Question, ReasoningPath, Usage


async def answered(
    agent: SummaryAgent,
    asked: Question,
    shown: ReasoningPath,
    found: Sequence[ReasoningPath],
    options: AskOptions,
    deadline: Deadline,
) -> Answer:
    """The answer at once.

    Raises:
        ModelError: there is none; it has the paths, and what they cost.
        StopRun: nothing more may be asked.
    """
    try:
        asking = agent.within(_left(options, found)).summarize(asked, shown)
        answer = _checked(agent, await deadline.wait(awaited(f"{type(agent).__name__}.summarize()", asking)))
    except TimeUp:
        raise _unanswered(_late(options), shown, found) from None
    except STUMBLES as error:
        raise _unanswered(as_model_error(agent, error), shown, found) from error
    return joined(asked, answer, shown, found)


async def answering(
    agent: SummaryAgent,
    asked: Question,
    shown: ReasoningPath,
    found: Sequence[ReasoningPath],
    options: AskOptions,
    deadline: Deadline,
) -> AsyncGenerator[AnswerText | AnswerDone, None]:
    """The same as events while it comes; all `AnswerText` together are the answer's text. Raises as `answered`."""
    told = _Told()
    try:
        pieces: Any = agent.within(_left(options, found)).stream_summary(asked, shown)  # an async generator, mostly
        async with closing(pieces):
            while isinstance(part := await deadline.wait(anext(pieces)), str):
                if text := told.more(part):
                    yield AnswerText(text)
            answer = _checked(agent, part)
    except TimeUp:
        raise _unanswered(_late(options), shown, found) from None
    except STUMBLES as error:
        raise _unanswered(as_model_error(agent, error), shown, found) from error
    if not told.anything:
        yield AnswerText(answer.text)
    yield AnswerDone(joined(asked, answer, shown, found))


async def answered_many(
    ask: Callable[[list[Picture | str], Question], Awaitable[Answer]], questions: Iterable[Question], concurrency: int
) -> list[Answer | InsightvError]:
    """The answers in the order of the questions, or the error where there is none. See `Reasoner.aanswer_many`.

    Raises:
        ValueError: concurrency is less than 1.
        InputError: `questions` is one question, or the name of a file.
    """
    if isinstance(questions, str | Path | Question | Mapping):
        read = "; insightv.read_questions reads a file"
        cure = read if isinstance(questions, str | Path) else ""
        raise InputError(f"questions is {described(questions)}; give several insightv.Question{cure}")
    if concurrency < 1:
        raise ValueError(f"concurrency = {concurrency}: at least one question must be at work")
    waiting = iter(enumerate(questions))
    found: dict[int, Answer | InsightvError] = {}
    stopped: list[StopRun] = []

    async def work() -> None:
        for place, question in waiting:
            if stopped:
                found[place] = stopped[0]
                continue
            try:
                images = question.images if isinstance(question, Question) else ()  # others are refused below
                found[place] = await ask(list(images), question)
            except InsightvError as error:
                found[place] = error
                stopped.extend([error] if isinstance(error, StopRun) else [])

    await all_of([work() for _ in range(concurrency)])
    return [found[place] for place in sorted(found)]


class _Told:
    """What was told of a text that comes in pieces: none of the white space around it, which agents strip."""

    def __init__(self) -> None:
        self.anything = False
        self._space = ""

    def more(self, piece: str) -> str:
        """What can be told with this piece; white space waits until something follows it."""
        text = self._space + piece if self.anything else piece.lstrip()
        body = text.rstrip()
        self._space = text[len(body) :]
        self.anything = self.anything or bool(body)
        return body


def _checked(agent: SummaryAgent, answer: object) -> Answer:
    """The answer, without white space around its text."""
    if not isinstance(answer, Answer):
        raise TypeError(f"its answer is of type {type(answer).__name__}, not insightv.Answer")
    text = answer.text.strip()
    if not text:
        raise ModelError("empty", f"{type(agent).__name__} gave a blank answer", usage=answer.usage)
    return answer if text == answer.text else answer.model_copy(update={"text": text})


def _left(options: AskOptions, found: Sequence[ReasoningPath]) -> AskOptions:
    """What is left for the answer of what a question may take."""
    if options.max_tokens is None:
        return options
    spent = sum(path.usage.completion_tokens for path in found)
    least = options.max_tokens - int(options.max_tokens * PATH_SHARE)
    return options.model_copy(update={"max_tokens": max(1, least, options.max_tokens - spent)})


def _late(options: AskOptions) -> ModelError:
    """The error of a question whose time is up; what its last call cost is not known."""
    return ModelError("timeout", f"no answer within deadline_s = {options.deadline_s:g} s of this question")


def _unanswered(error: ModelError, shown: ReasoningPath, found: Sequence[ReasoningPath]) -> ModelError:
    """The summary agent's error as that of the whole question."""
    whole = ModelError(error.code, str(error), usage=_spent(found) + error.usage, kept=error.kept)
    whole.path, whole.paths = shown, tuple(found) if len(found) > 1 else ()
    return whole


def _spent(found: Sequence[ReasoningPath]) -> Usage:
    return sum((path.usage for path in found), Usage())


def joined(asked: Question, answer: Answer, shown: ReasoningPath, found: Sequence[ReasoningPath]) -> Answer:
    """The answer with all that is known of its paths."""
    several = len(found) > 1
    share = agreement(asked, answer.text, found) if several else None
    alone = any(path is shown for path in found)
    followed = answer.followed
    if followed is None and alone:
        followed = agrees(asked, answer.text, shown)
    elif followed is None and share is not None and share != 0.5:
        followed = share > 0.5
    # Of several that were shown together some do have steps.
    flags = marks(shown) if alone else [mark for path in found for mark in marks(path) if mark != NO_REASONING]
    return answer.model_copy(
        update={
            "path": shown,
            "followed": followed,
            "usage": _spent(found) + answer.usage,
            "flags": tuple(dict.fromkeys((*answer.flags, *flags))),
            "paths": tuple(found) if several else (),
            "agreement": share,
        }
    )
