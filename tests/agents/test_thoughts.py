"""Models that think aloud before they reply: their thoughts are neither an answer nor a path."""

from __future__ import annotations

import asyncio

import pytest

from insightv.agents.baselines import DirectCot, MultiTurn
from insightv.agents.reasoning import ThoughtsReasoner
from insightv.agents.summary import JudgingSummary
from insightv.errors import ModelError
from insightv.events import AnswerDone, AnswerText, PathText
from insightv.reasoner.reasoner import Reasoner
from insightv.records import Answer, ReasoningPath
from tests.agents.fakes import QUESTION, FakeModel, cut, pieces_of

BLOCK = "<thoughts>\n### Look\nRed is 5.\n### Conclude\nSo it is red.\n</thoughts>"
DRAFT = "I open with <thoughts>, then\n### a title\nfor each step, and end with </thoughts>."
PATH = ReasoningPath(question_id="q1", index=0, status="ok")


def said(reply: str) -> Answer:
    return asyncio.run(JudgingSummary(FakeModel(lambda call: reply)).summarize(QUESTION, PATH))


def steps(agent: ThoughtsReasoner) -> tuple[str, list[str]]:
    path = asyncio.run(agent.reason(QUESTION))
    return path.status, [step.title for step in path.steps]


@pytest.mark.parametrize(
    "before", ["<think>Is it blue? No.</think>", "\n<think>\nBlue?\n\n</think>\n\n", "No. </think>\n"]
)
def test_an_answer_is_what_follows_the_thoughts(before: str) -> None:
    assert said(before + "red").text == "red"
    agent = MultiTurn(FakeModel(lambda call: before + ("red" if call.said else BLOCK)))
    assert asyncio.run(agent.reason(QUESTION)).answer == "red"


@pytest.mark.parametrize(("reply", "code"), [("<think>Is it blue", "cut"), ("<think>Red.</think>\n", "empty")])
def test_thoughts_alone_are_no_answer(reply: str, code: str) -> None:
    with pytest.raises(ModelError) as caught:
        said(reply)
    assert caught.value.code == code
    path = asyncio.run(MultiTurn(FakeModel(lambda call: reply if call.said else BLOCK)).reason(QUESTION))
    assert (path.status, path.code, path.answer) == ("rejected", "unparsable", None)


@pytest.mark.parametrize("before", [f"<think>{DRAFT}</think>\n", f"{DRAFT}</think>\n\n"])
def test_a_draft_in_the_thoughts_is_no_step(before: str) -> None:
    assert steps(ThoughtsReasoner(FakeModel(lambda call: before + BLOCK))) == ("ok", ["Look", "Conclude"])
    assert steps(DirectCot(FakeModel(lambda call: f"{before}{BLOCK}\nred"))) == ("ok", ["Look", "Conclude"])
    reply = cut(before[:-1] if "<think>" not in before else before.removesuffix("</think>\n"))
    assert steps(ThoughtsReasoner(FakeModel(lambda call: reply))) == ("rejected", [])


def test_a_refusal_behind_thoughts_is_one() -> None:
    reply = f"<think>{'Who is this? ' * 60}</think>\n\nI'm sorry, but I can't help with that."
    path = asyncio.run(ThoughtsReasoner(FakeModel(lambda call: reply)).reason(QUESTION))
    assert (path.status, path.code) == ("rejected", "refusal")


def test_a_block_that_is_marked_as_thoughts_is_a_block() -> None:
    block = BLOCK.replace("thoughts>", "think>")
    agent = ThoughtsReasoner(FakeModel(lambda call: block), tags=("<think>", "</think>"))
    assert steps(agent) == ("ok", ["Look", "Conclude"])
    *pieces, _ = asyncio.run(pieces_of(agent.stream_reason(QUESTION)))
    assert "".join(map(str, pieces)) == block


@pytest.mark.parametrize("pieces", [1, 7, 1000])
@pytest.mark.parametrize("answer", ["red", "<", "<th", "x < y", "<think"])
@pytest.mark.parametrize("thinks", [True, False])
def test_a_stream_tells_no_thoughts(pieces: int, answer: str, thinks: bool) -> None:
    before = f" <think>\n{DRAFT} < </ \n</think>\n\n" if thinks else " "

    async def told() -> list[object]:
        reasons = FakeModel(lambda call: before + BLOCK, pieces=pieces)
        answers = FakeModel(lambda call: before + answer, pieces=pieces)
        return await pieces_of(Reasoner.of(reasons, answers).astream(QUESTION.pictures[0], "Which?"))

    events = asyncio.run(told())
    assert "".join(event.text for event in events if isinstance(event, PathText)).strip() == BLOCK
    assert "".join(event.text for event in events if isinstance(event, AnswerText)) == answer
    [done] = [event.answer for event in events if isinstance(event, AnswerDone)]
    assert (done.text, done.path and done.path.status) == (answer, "ok")
