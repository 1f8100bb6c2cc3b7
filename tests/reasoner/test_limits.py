"""The reasoner under limits: deadlines, steps, tokens, cancellation, faults of agents, several paths, many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest

from insightv import Answer, Reasoner
from insightv.agents.adapters import stepwise
from insightv.agents.summary import JudgingSummary
from insightv.errors import KeyRefused, ModelError
from insightv.events import AnswerDone, PathDone, StepStarted, StepText
from insightv.interfaces import ReasoningAgent, Scorer
from insightv.records import AskOptions, Completion, Message, Question, ReasoningPath, Sampling, Score, Usage
from insightv.testing import ScriptedModel, sample_picture
from insightv.tiny.backend import tiny
from tests.servers.fake_openai import FakeServer, Settings
from tests.world import wait_for

TEXT = "<thoughts>\n### Look\nThe bar B ends at 7.\n### Compare\nB is above the others.\n### End\n{}\n</thoughts>"
ASKED = "What is 3 + 4? [truth=7] [steps=6]"


def path_to(answer: str) -> str:
    return TEXT.format(f"So the answer is {answer}.")


def with_reasoner(server: FakeServer, work: Any) -> Any:
    async def run() -> Any:
        reasoner = Reasoner.of("openai/fake", base_url=server.base_url)
        try:
            return await work(reasoner)
        finally:
            await reasoner.aclose()

    return asyncio.run(run())


def test_a_path_that_outlasts_its_share_of_the_deadline_is_cut_and_answered_without() -> None:
    with FakeServer(Settings(script=("hang",))) as server:
        options = AskOptions(deadline_s=8)
        answer = with_reasoner(server, lambda reasoner: reasoner.aanswer([], ASKED, options=options))
        wait_for(lambda: server.log()[0]["gone"])
    assert isinstance(answer, Answer)
    assert answer.text == "The answer is 7."
    assert answer.path is not None
    assert (answer.path.status, answer.path.code) == ("rejected", "deadline")
    assert answer.flags == ("path_cut", "no_reasoning")


def test_a_stream_keeps_the_whole_steps_of_a_path_that_the_deadline_cuts() -> None:
    async def work(reasoner: Reasoner) -> list[Any]:
        options = AskOptions(deadline_s=8)
        return [event async for event in reasoner.astream([], ASKED.replace("6", "400"), options=options)]

    with FakeServer(Settings(piece_s=0.005)) as server:
        events = with_reasoner(server, work)
        wait_for(lambda: server.log()[0]["gone"])
    (done,) = (event for event in events if isinstance(event, PathDone))
    assert done.path.code == "deadline"
    assert len(done.path.steps) >= 1
    started = [event.number for event in events if isinstance(event, StepStarted)]
    assert len(done.path.steps) in (len(started), len(started) - 1)
    last = events[-1]
    assert isinstance(last, AnswerDone)
    assert last.answer.flags == ("path_cut",)


def test_an_answer_that_is_late_is_an_error_with_what_was_spent() -> None:
    with FakeServer(Settings(script=("ok", "hang"))) as server:
        options = AskOptions(deadline_s=1.5)
        with pytest.raises(ModelError) as caught:
            with_reasoner(server, lambda reasoner: reasoner.aanswer([], ASKED, options=options))
        wait_for(lambda: server.log()[1]["gone"])
    assert caught.value.code == "timeout"
    assert caught.value.usage.requests == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_step_limit_stops_the_reply_that_would_go_on(stream: bool) -> None:
    async def work(reasoner: Reasoner) -> Any:
        options = AskOptions(max_steps=2)
        if not stream:
            return await reasoner.aanswer([], ASKED.replace("6", "300"), options=options)
        events = [event async for event in reasoner.astream([], ASKED.replace("6", "300"), options=options)]
        assert [event.number for event in events if isinstance(event, StepStarted)] == [1, 2]
        assert isinstance(events[-1], AnswerDone)
        return events[-1].answer

    with FakeServer(Settings(piece_s=0.001)) as server:
        answer = with_reasoner(server, work)
        wait_for(lambda: server.log()[0]["gone"])
        summary = server.log()[1]
    assert (answer.path.code, len(answer.path.steps)) == ("step_limit", 2)
    assert answer.flags == ("path_cut",)
    assert summary["gone"] is False


def test_tokens_are_divided_between_the_agents_and_never_raised() -> None:
    path = Completion(text=path_to("B"), usage=Usage(completion_tokens=30, requests=1))
    model = ScriptedModel([path, "B", path, "B"])
    reasoner = Reasoner.of(model)
    reasoner.answer([], "Which?", options=AskOptions(max_tokens=100, temperature=0.9, top_p=0.5))
    reasoner.answer([], "Which?", options=AskOptions(max_tokens=10**6))
    tokens = [call.sampling.max_tokens for call in model.asked]
    assert tokens == [75, 70, 4096, 1024]
    assert [call.sampling.temperature for call in model.asked] == [0.9, 0.9, 0.2, 0.2]
    assert [call.sampling.top_p for call in model.asked] == [0.5, 0.5, 0.95, 0.95]


def test_a_stepwise_agent_streams_each_step_and_keeps_to_limits() -> None:
    def step(number: int) -> str:
        return f'{{"title": "T{number}", "content": "Word{number} of its own.", "action": "continue"}}'

    model = ScriptedModel([*map(step, range(2)), "unread", *map(step, range(3))])
    reasoner = Reasoner(stepwise(model, min_steps=1, tries=1), JudgingSummary(ScriptedModel("B")))

    async def run(options: AskOptions) -> list[Any]:
        return [event async for event in reasoner.astream([], "Which?", options=options)]

    events = asyncio.run(run(AskOptions()))
    told = [event for event in events if isinstance(event, StepStarted | StepText)]
    assert [event.title for event in told if isinstance(event, StepStarted)] == ["T0", "T1"]
    assert events[-1].answer.flags == ("path_rejected",)
    limited = asyncio.run(run(AskOptions(max_steps=2)))[-1].answer
    assert len(limited.path.steps) == 2
    assert len(model.asked) == 5


@pytest.mark.parametrize("stream", [False, True])
def test_an_agent_that_breaks_costs_the_path_and_not_the_answer(stream: bool) -> None:
    class Broken(ReasoningAgent):
        async def reason(self, question: Question, *, seed: int = 0) -> ReasoningPath:
            raise RuntimeError("out of ideas")

    async def run() -> Answer:
        reasoner = Reasoner(Broken(), JudgingSummary(ScriptedModel("B")))
        if not stream:
            return await reasoner.aanswer([], "Which?")
        *_, last = [event async for event in reasoner.astream([], "Which?")]
        assert isinstance(last, AnswerDone)
        return last.answer

    answer = asyncio.run(run())
    assert answer.text == "B"
    assert answer.flags == ("path_failed", "no_reasoning")
    assert answer.path is not None
    assert "out of ideas" in answer.path.detail


@pytest.mark.parametrize(("said", "followed"), [("B", True), ("C", False), ("hard to say", None)])
def test_the_answer_says_whether_it_follows_the_path(said: str, followed: bool | None) -> None:
    question = Question(id="q", question="Which bar?\n(A) red (B) blue (C) green")
    answer = Reasoner.of(ScriptedModel([path_to("B")]), ScriptedModel([said])).answer([], question)
    assert answer.followed is followed


class LongestLast(Scorer):
    """Likes the path that ends in 9 best, and refuses none."""

    async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
        return [Score(scorer="x", value=90 if "9" in path.steps[-1].content else 10) for path in paths]


def test_of_several_paths_the_scorer_chooses_or_all_are_shown() -> None:
    judge = ScriptedModel("9")
    model = ScriptedModel([path_to("7"), path_to("9"), path_to("9"), path_to("7"), path_to("9"), path_to("7")])
    reasoner = Reasoner.of(model, judge)
    with pytest.raises(Exception, match="needs a scorer"):
        reasoner.answer([], "How many?", paths=3, show="best")
    reasoner.scorer = LongestLast()
    best = reasoner.answer([], "How many?", paths=3)
    assert best.path is not None
    assert "9" in best.path.steps[-1].content
    assert (best.followed, len(best.paths)) == (True, 3)
    assert best.agreement == pytest.approx(2 / 3)
    assert best.usage.requests == 4
    every = reasoner.answer([], "How many?", paths=3, show="all")
    shown = str(judge.asked[-1].messages[-1].content)
    assert [shown.count(f"### Path {number}: ") for number in (1, 2, 3)] == [3, 3, 3]
    assert every.followed is False
    assert every.agreement == pytest.approx(1 / 3)
    assert len({call.sampling.seed for call in model.asked[:3]}) == 3


class NeverDone(Scorer):
    async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
        await asyncio.sleep(600)
        return []


@pytest.mark.parametrize("stream", [False, True])
def test_a_scorer_that_outlasts_the_deadline_leaves_the_choice_to_the_first_whole_path(stream: bool) -> None:
    model = ScriptedModel([Completion(text=path_to("1"), finish="length"), path_to("7"), path_to("9")])
    reasoner = Reasoner(Reasoner.of(model).reasoning_agent, JudgingSummary(ScriptedModel("7")), scorer=NeverDone())
    asked: dict[str, Any] = {"paths": 3, "options": {"deadline_s": 0.5}}

    async def run() -> Answer:
        if not stream:
            return await reasoner.aanswer([], "How many?", **asked)
        *_, last = [event async for event in reasoner.astream([], "How many?", **asked)]
        assert isinstance(last, AnswerDone)
        return last.answer

    answer = asyncio.run(asyncio.wait_for(run(), 30))
    assert answer.path is not None
    assert answer.path.steps[-1].content == "So the answer is 7."


def test_many_questions_keep_their_order_and_their_errors() -> None:
    def script(messages: Sequence[Any], _: Any) -> str | Exception:
        text = str(messages[-1].content)
        if "question 3" in text and "REASONING" in text:
            return ModelError("timeout", "no reply")
        return f"said {text[-20:]}"

    questions = [Question(id=f"q{i}", question=f"question {i}", images=(sample_picture(),)) for i in range(8)]
    model = ScriptedModel(script)
    found = Reasoner.of(model).answer_many(questions, concurrency=3)
    assert len(found) == 8
    assert [isinstance(one, ModelError) for one in found] == [i == 3 for i in range(8)]
    refused = ScriptedModel(lambda messages, _: KeyRefused("no"))
    stopped = Reasoner.of(refused).answer_many(questions, concurrency=2)
    assert [type(one) for one in stopped] == [KeyRefused] * 8
    assert len(refused.asked) <= 2


def test_many_questions_are_bounded() -> None:
    now = most = 0

    class Counting(ReasoningAgent):
        async def reason(self, question: Question, *, seed: int = 0) -> ReasoningPath:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.01)
            now -= 1
            return ReasoningPath(question_id=question.id, index=0, status="ok")

    reasoner = Reasoner(Counting(), JudgingSummary(ScriptedModel("B")))
    found = reasoner.answer_many((Question(id=str(i), question="?") for i in range(20)), concurrency=4)
    assert (len(found), most) == (20, 4)


@pytest.mark.parametrize("stream", [False, True])
def test_a_cancelled_question_leaves_no_call_at_the_server(stream: bool) -> None:
    async def work(reasoner: Reasoner) -> None:
        task = asyncio.ensure_future(_first_step(reasoner) if stream else reasoner.aanswer([], ASKED))
        while not server.log():
            await asyncio.sleep(0.01)
        if not stream:
            task.cancel()
        await asyncio.wait({task})

    with FakeServer(Settings(piece_s=0.02) if stream else Settings(latency_s=600)) as server:
        with_reasoner(server, work)
        wait_for(lambda: [entry["gone"] for entry in server.log()] == [True])


async def _first_step(reasoner: Reasoner, images: Any = ()) -> None:
    events = reasoner.astream(images, ASKED)
    async with aclosing(events):
        async for event in events:
            if isinstance(event, StepStarted):
                return


@pytest.mark.parametrize("stream", [False, True])
def test_a_cancelled_question_frees_the_engine_in_this_process(stream: bool) -> None:
    async def run() -> None:
        model = tiny()
        await model.check()
        reasoner = Reasoner.of(model)
        try:
            if stream:
                await _first_step(reasoner, sample_picture())
            else:
                task = asyncio.ensure_future(reasoner.aanswer(sample_picture(), ASKED))
                while model.counts.drawn < 3:
                    assert not task.done()
                    await asyncio.sleep(0.001)
                task.cancel()
                await asyncio.wait({task})
            ended, before = model.counts.forwards, -1
            while before != model.counts.forwards:  # a token that was being computed is finished
                before = model.counts.forwards
                await asyncio.sleep(0.3)
            assert before - ended <= 3
            message = Message(role="user", content=(sample_picture(), "Which bar is tallest?"))
            [again] = await model.chat([message], Sampling(temperature=0, max_tokens=4))
            assert again.usage.completion_tokens >= 1
        finally:
            await model.aclose()

    asyncio.run(run())
