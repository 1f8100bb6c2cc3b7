"""What a reasoner is made of: agents that can be none, scorers that give no scores, and models that it closes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from insightv import (
    Answer,
    ConfigError,
    ModelError,
    Question,
    Reasoner,
    ReasoningAgent,
    ReasoningPath,
    Score,
    Scorer,
    Step,
    SummaryAgent,
)
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


@pytest.mark.parametrize("value", [True, False, "85", 0.8, 0, 101, float("nan"), float("inf"), "high", object()])
def test_what_is_no_score_becomes_none(value: Any) -> None:
    with pytest.raises(ValueError, match=r"a score is a number on 1\.\.100, or None for not judged, not "):
        Score(scorer="s", value=value)
