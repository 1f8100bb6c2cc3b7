"""What a reasoner is made of: agents that can be none, scorers that give no scores, and models that it closes."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI

from insightv import (
    Answer,
    Completion,
    ConfigError,
    InputError,
    Message,
    ModelError,
    Pipeline,
    Question,
    Reasoner,
    ReasoningAgent,
    ReasoningPath,
    Sampling,
    Score,
    Scorer,
    Step,
    SummaryAgent,
)
from insightv.agents.reasoning import ThoughtsReasoner
from insightv.agents.summary import JudgingSummary
from insightv.events import AnswerDone
from insightv.records import Schema
from insightv.testing import ScriptedModel


def path_of(question: Question) -> ReasoningPath:
    steps = (Step(title="Look", content="So it is 42.", action="summary"),)
    return ReasoningPath(question_id=question.id, index=0, status="ok", answer="42", steps=steps)


class Agent(ReasoningAgent):
    async def reason(self, question: Question, *, seed: int = 0) -> ReasoningPath:
        return path_of(question)


class Judge(SummaryAgent):
    async def summarize(self, question: Question, path: ReasoningPath) -> Answer:
        return Answer(text="42")


class NoSeed(ReasoningAgent):
    async def reason(self, question: Question) -> ReasoningPath:  # type: ignore[override]
        return path_of(question)


class Plain(SummaryAgent):
    def summarize(self, question: Question, path: ReasoningPath) -> Answer:  # type: ignore[override]
        return Answer(text="42")


def test_what_cannot_be_an_agent_is_refused_when_the_reasoner_is_made() -> None:
    model = ScriptedModel("B")
    with pytest.raises(ConfigError, match=r"reasoning_agent is a ScriptedModel; .*Reasoner\.of\(model\)"):
        Reasoner(model, model)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="scorer is an int; give an object of Scorer"):
        Reasoner(Agent(), Judge(), scorer=5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"reason\(\) does not take what ReasoningAgent.reason takes: .*'seed'"):
        Reasoner(NoSeed(), Judge())


def test_what_is_no_model_and_options_of_none_are_refused_when_the_reasoner_is_made() -> None:
    none: list[Any] = [7, None, AsyncOpenAI(api_key="none"), ScriptedModel]
    for given in none:
        with pytest.raises(ConfigError, match=r"^model is .*give provider/model or an object of ChatModel"):
            Reasoner.of(given)
    with pytest.raises(ConfigError, match=r"^summary_model is an int"):
        Reasoner.of(ScriptedModel("B"), none[0])
    with pytest.raises(ConfigError, match=r"the options \['scorer'\] are for a model by name"):
        Reasoner.of(ScriptedModel("B"), backend_options={"scorer": "path"})


def test_an_agent_that_is_not_async_is_told_so() -> None:
    with pytest.raises(ModelError, match=r"Plain.summarize\(\) returned an Answer at once; make it `async def`"):
        Reasoner(Agent(), Plain()).answer([], "How many?")


@pytest.mark.parametrize(
    "given",
    [
        lambda paths: None,
        lambda paths: [],
        lambda paths: [90 for _ in paths],
        lambda paths: [Score.model_construct(scorer="c", value=float("nan")) for _ in paths],
    ],
)
def test_a_scorer_that_gives_no_scores_leaves_the_first_whole_path(given: Callable[[Any], Any]) -> None:
    class Chooser(Scorer):
        async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
            scores: list[Score] = given(paths)
            return scores

    answer = Reasoner(Agent(), Judge(), scorer=Chooser()).answer([], "How many?", paths=3)
    assert answer.path is not None
    assert (answer.text, answer.path.index) == ("42", 0)


def test_a_reasoner_closes_its_models_at_the_end_of_a_block() -> None:
    class Closed(ScriptedModel):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1
            raise RuntimeError("it would not end")

    models = [Closed("B"), Closed("B")]

    async def run() -> None:
        async with Reasoner(Agent(), Judge(), models=models) as reasoner:
            await reasoner.aanswer([], "How many?")

    asyncio.run(run())
    with Reasoner(Agent(), Judge(), models=models) as reasoner:
        assert reasoner.answer([], "How many?").text == "42"
    assert [model.closed for model in models] == [2, 2]


@pytest.mark.parametrize(
    "value", [True, False, np.True_, "85", 0.8, 0, 101, float("nan"), float("inf"), "high", object()]
)
def test_what_is_no_score_becomes_none(value: Any) -> None:
    with pytest.raises(ValueError, match=r"a score is a number on 1\.\.100, or None for not judged, not "):
        Score(scorer="s", value=value)


THOUGHTS = "<thoughts>\n### Look\nB ends at 7.\n### End\nSo the answer is B.\n</thoughts>"


class Gone(ScriptedModel):
    """One whose server is not there."""

    async def check(self) -> None:
        raise ConfigError("no server listens")


class Wrapping(ReasoningAgent):
    def __init__(self, inner: ReasoningAgent) -> None:
        self.inner = [inner]

    async def reason(self, question: Question, *, seed: int = 0) -> ReasoningPath:
        return await self.inner[0].reason(question, seed=seed)


def test_models_of_agents_that_are_given_are_looked_at_as_well() -> None:
    good, gone = ScriptedModel("B"), Gone("B")
    wrapped = Reasoner(Wrapping(ThoughtsReasoner(gone)), JudgingSummary(good))
    for reasoner in (Reasoner.of(gone), Reasoner.of(good, gone), wrapped):
        with pytest.raises(ConfigError, match="no server listens"):
            asyncio.run(reasoner.acheck())
    asyncio.run(Reasoner(Agent(), JudgingSummary(good)).acheck())


class Loud(JudgingSummary):
    async def summarize(self, question: Question, path: ReasoningPath) -> Answer:
        answer = await super().summarize(question, path)
        return answer.model_copy(update={"text": f"{answer.text}!"})


class Shouting:
    """A mixin for summary agents."""

    async def summarize(self, question: Question, path: ReasoningPath) -> Answer:
        answer: Answer = await super().summarize(question, path)  # type: ignore[misc]  # its neighbour's
        return answer.model_copy(update={"text": f"{answer.text}!"})


class Mixed(Shouting, JudgingSummary):
    pass


class LouderStill(Loud):
    async def stream_summary(self, question: Question, path: ReasoningPath) -> AsyncIterator[str | Answer]:
        yield "B"
        yield Answer(text="B!!")


def test_a_subclass_streams_what_it_gives_as_a_whole() -> None:
    for agent, text in ((Loud, "B!"), (Mixed, "B!"), (LouderStill, "B!!"), (JudgingSummary, "B")):
        *_, last = Reasoner(Agent(), agent(ScriptedModel("B"))).stream([], "How many?")
        assert isinstance(last, AnswerDone)
        assert last.answer.text == text


class Slow(ScriptedModel):
    """Tells its reply in pieces, and how its stream ended."""

    ended = ""

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling, *, schema: Schema | None = None
    ) -> AsyncIterator[str | Completion]:
        try:
            whole = (await self.chat(messages, sampling))[0]
            for piece in whole.text.splitlines(keepends=True):
                await asyncio.sleep(0.01)
                yield piece
            yield whole
            self.ended = "whole"
        finally:
            self.ended = self.ended or "left"


def test_a_stream_can_be_read_without_a_loop_and_left() -> None:
    model = Slow([THOUGHTS, "B"])
    kinds = [type(event).__name__ for event in Reasoner.of(model).stream([], "Which?")]
    assert kinds[-3:] == ["PathDone", "AnswerText", "AnswerDone"]
    assert kinds.count("StepStarted") == 2
    left = Slow([THOUGHTS, "B"])
    for event in Reasoner.of(left).stream([], "Which?"):
        assert type(event).__name__ == "PathText"
        break
    gc.collect()
    assert (left.ended, len(left.asked)) == ("left", 1)
    with pytest.raises(InputError, match="the question is empty"):
        next(Reasoner.of(model).stream([], " "))


def test_blocking_methods_say_what_their_twins_take() -> None:
    for owner, name in ((Pipeline, "build"), (Pipeline, "pilot"), (Pipeline, "train"), (Reasoner, "answer")):
        twin, real = getattr(owner, name), getattr(owner, f"a{name}")
        assert inspect.signature(twin) == inspect.signature(real)
        assert (twin.__name__, inspect.iscoroutinefunction(twin)) == (name, False)
        assert real.__doc__ in twin.__doc__


def test_many_questions_are_questions() -> None:
    reasoner = Reasoner(Agent(), Judge())
    good: Any = Question(id="q", question="How many?")
    odd: list[Any] = [{"question": "How many?"}, good]
    none: tuple[Any, ...] = (good, "questions.jsonl", {"id": "q"})
    first, second = reasoner.answer_many(odd)
    assert isinstance(first, InputError)
    assert isinstance(second, Answer)
    for one in none:
        with pytest.raises(InputError, match=r"give several insightv\.Question"):
            reasoner.answer_many(one)
