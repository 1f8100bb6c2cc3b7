"""The reasoner with agents of strangers: whatever they give or raise costs one path or one answer, and is named."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest

from insightv import Answer, Reasoner
from insightv.agents.adapters import StepReasoner
from insightv.agents.reasoning import ThoughtsReasoner
from insightv.agents.summary import JudgingSummary
from insightv.errors import InputError, ModelError
from insightv.events import AnswerDone, AnswerText, Event, PathDone
from insightv.interfaces import Generator, ReasoningAgent, Scorer, SummaryAgent
from insightv.records import AskOptions, Question, ReasoningPath, Score, Step
from insightv.testing import ScriptedModel

THOUGHTS = "<thoughts>\n### Look\nB ends at 7.\n### End\nSo the answer is B.\n</thoughts>"


def reasoning() -> ReasoningAgent:
    return ThoughtsReasoner(ScriptedModel(THOUGHTS))


def judging() -> SummaryAgent:
    return JudgingSummary(ScriptedModel("B"))


def told(reasoner: Reasoner, **asked: Any) -> tuple[list[Event], ModelError | None]:
    """What a stream tells, and how it ends."""

    async def run() -> tuple[list[Event], ModelError | None]:
        events: list[Event] = []
        try:
            async for event in reasoner.astream([], "Which?", **asked):
                events.append(event)
        except ModelError as error:
            return events, error
        return events, None

    return asyncio.run(run())


class Doing(ReasoningAgent, SummaryAgent):
    """Does the same thing, whatever it is asked for."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act

    async def reason(self, question: Question, *, seed: int = 0) -> ReasoningPath:
        path: ReasoningPath = self._act()
        return path

    async def summarize(self, question: Question, path: ReasoningPath) -> Answer:
        answer: Answer = self._act()
        return answer

    def within(self, options: AskOptions) -> Doing:
        return self


def raising(error: BaseException) -> Callable[[], Any]:
    def act() -> Any:
        raise error

    return act


FAULTS: dict[str, tuple[Callable[[], Any], str]] = {
    "a plain error": (raising(KeyError("lost")), "KeyError"),
    "a time limit of its own": (raising(TimeoutError("30 s")), "TimeoutError: 30 s"),
    "a cancellation of its own": (raising(asyncio.CancelledError()), "CancelledError"),
    "an exit": (lambda: sys.exit(3), "SystemExit"),
    "nothing": (lambda: None, "of type NoneType"),
    "a bare text": (lambda: "B", "str"),
}


@pytest.mark.parametrize("limits", [{}, {"options": {"deadline_s": 60}}])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_reasoning_agent_costs_the_path_alone(fault: str, limits: dict[str, Any]) -> None:
    act, text = FAULTS[fault]
    reasoner = Reasoner(Doing(act), judging())
    *_, last = told(reasoner, **limits)[0]
    assert isinstance(last, AnswerDone)
    for answer in (reasoner.answer([], "Which?", **limits), last.answer):
        assert (answer.text, answer.flags) == ("B", ("path_failed", "no_reasoning"))
        assert answer.path is not None
        assert answer.path.code == "agent_error"
        assert fault == "a bare text" or text in answer.path.detail


@pytest.mark.parametrize("limits", [{}, {"options": {"deadline_s": 60}}])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_summary_agent_is_an_error_with_the_path(fault: str, limits: dict[str, Any]) -> None:
    act, text = FAULTS[fault]
    reasoner = Reasoner(reasoning(), Doing(act))
    with pytest.raises(ModelError) as caught:
        reasoner.answer([], "Which?", **limits)
    events, error = told(reasoner, **limits)
    assert error is not None
    assert sum(isinstance(event, PathDone) for event in events) == 1
    for each in (caught.value, error):
        assert each.code == "agent_error"
        assert "Doing failed" in str(each)
        assert each.path is not None
        assert len(each.path.steps) == 2
        assert each.usage.requests == 1
    assert text in str(caught.value)


def test_one_broken_answer_among_many_leaves_the_others_theirs() -> None:
    class Some(SummaryAgent):
        async def summarize(self, question: Question, path: ReasoningPath) -> Answer:
            if question.id == "q2":
                raise KeyError("lost")
            return Answer(text="B")

    questions = [Question(id=f"q{number}", question="Which?") for number in range(4)]
    found = Reasoner(reasoning(), Some()).answer_many(questions)
    assert [isinstance(each, ModelError) for each in found] == [False, False, True, False]


@pytest.mark.parametrize("stream", [False, True])
def test_a_scorer_that_breaks_leaves_the_choice_to_the_first_whole_path(stream: bool) -> None:
    class Broken(Scorer):
        async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
            raise KeyError("lost")

    reasoner = Reasoner(reasoning(), judging(), scorer=Broken())
    if stream:
        last = told(reasoner, paths=2)[0][-1]
        assert isinstance(last, AnswerDone)
        answer = last.answer
    else:
        answer = reasoner.answer([], "Which?", paths=2)
    assert (answer.text, len(answer.paths)) == ("B", 2)


def test_an_agent_that_answers_at_once_is_told_in_a_stream_too() -> None:
    events, error = told(Reasoner(reasoning(), Doing(lambda: Answer(text=" B\n"))))
    assert error is None
    assert [event.text for event in events if isinstance(event, AnswerText)] == ["B"]
    assert isinstance(events[-1], AnswerDone)
    assert events[-1].answer.text == "B"


def test_the_pieces_of_an_answer_are_its_text() -> None:
    class Pieces(ScriptedModel):
        async def stream(self, *asked: Any, **more: Any) -> AsyncIterator[Any]:
            reply = (await self.chat(*asked, **more))[0]
            for character in reply.text:
                yield character
            yield reply

    judge = JudgingSummary(Pieces(["\n\n B \n is  it \n\n"]))
    events, error = told(Reasoner(reasoning(), judge))
    assert error is None
    texts = [event.text for event in events if isinstance(event, AnswerText)]
    assert isinstance(events[-1], AnswerDone)
    assert "".join(texts) == events[-1].answer.text == "B \n is  it"
    assert len(texts) == 5


def test_a_blank_answer_is_none() -> None:
    with pytest.raises(ModelError) as caught:
        Reasoner(reasoning(), Doing(lambda: Answer(text=" \n"))).answer([], "Which?")
    assert caught.value.code == "empty"


class Row:
    """An asynchronous iterator that is no generator, so that it cannot be closed."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items: Iterator[Any] = iter(items)

    def __aiter__(self) -> Row:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self._items)
        except StopIteration:
            raise StopAsyncIteration from None


class Closable(Row):
    """One that can be closed, and is still no generator."""

    closed = False

    async def aclose(self) -> None:
        self.closed = True


def test_a_stream_that_is_left_is_closed_though_it_is_no_generator() -> None:
    thoughts = Closable(["<thoughts>\n### Look\nB ends at 7.\n", "### Conclude\nSo B.\n</thoughts>"])
    model = ScriptedModel("B")
    model.stream = lambda *_, **__: thoughts  # type: ignore[method-assign]
    for _ in Reasoner.of(model).stream([], "Which?"):
        break
    assert thoughts.closed
    text = Closable(["<thoughts>\n### Look\nB ends at 7.\n"])
    agent = ThoughtsReasoner(model)
    agent.stream_reason = lambda *_, **__: text  # type: ignore[method-assign]
    for _ in Reasoner(agent, JudgingSummary(model)).stream([], "Which?"):
        break
    assert text.closed


def test_a_generator_streams_a_plain_iterator() -> None:
    step = Step(title="Look", content="It is B.", action="summary")

    class Steps(Generator):
        async def generate(self, question: Question, n: int, *, seed: int = 0) -> list[ReasoningPath]:
            raise NotImplementedError

        def stream(self, question: Question, *, seed: int = 0) -> Any:
            return Row([step, ReasoningPath(question_id=question.id, index=0, status="ok", steps=(step,))])

    events, error = told(Reasoner(StepReasoner(Steps()), JudgingSummary(ScriptedModel("B"))))
    assert error is None
    assert [event.path.status for event in events if isinstance(event, PathDone)] == ["ok"]


def test_streams_may_be_plain_iterators() -> None:
    class Both(ReasoningAgent, SummaryAgent):
        async def reason(self, question: Question, *, seed: int = 0) -> ReasoningPath:
            raise NotImplementedError

        async def summarize(self, question: Question, path: ReasoningPath) -> Answer:
            raise NotImplementedError

        def within(self, options: AskOptions) -> Both:
            return self

        def stream_reason(self, question: Question, *, seed: int = 0) -> Any:
            step = Step(title="Look", content="It is B.", action="summary")
            return Row(["text", ReasoningPath(question_id=question.id, index=0, status="ok", steps=(step,))])

        def stream_summary(self, question: Question, path: ReasoningPath) -> Any:
            return Row(["B", Answer(text="B")])

    events, error = told(Reasoner(Both(), Both()))
    assert error is None
    assert isinstance(events[-1], AnswerDone)
    assert (events[-1].answer.text, events[-1].answer.followed, events[-1].answer.flags) == ("B", True, ())


@pytest.mark.parametrize("question", ["  ", "\ud800?", None, 7, Question(id="q", question=" ")])
def test_what_is_no_question_is_refused(question: Any) -> None:
    model = ScriptedModel("B")
    with pytest.raises(InputError, match="question"):
        Reasoner.of(model).answer([], question)
    assert model.asked == []
