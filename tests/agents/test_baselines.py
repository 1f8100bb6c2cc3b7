"""One model alone: in one reply and in two turns. What it is sent, what of its replies counts, and what does not."""

from __future__ import annotations

import asyncio
import re

import pytest

from insightv.agents.baselines import ANSWER_PROMPT, DirectCot, MultiTurn
from insightv.agents.reasoning import ThoughtsReasoner
from insightv.agents.replies.transcript import from_text, read_answered
from insightv.errors import ModelError
from insightv.records import Completion, ReasoningPath, Usage
from tests.agents.fakes import QUESTION, Call, FakeModel, Reply, refused

THOUGHTS = "<thoughts>\n### Look\nThe bar A ends at 7.\n### Compare\nA is above all others.\n</thoughts>"


def reason(agent: ThoughtsReasoner, seed: int = 3) -> ReasoningPath:
    return asyncio.run(agent.reason(QUESTION, seed=seed))


def test_one_reply_holds_the_path_and_the_answer() -> None:
    model = FakeModel(lambda _: f"{THOUGHTS}\n  A \n")
    path = reason(DirectCot(model))
    assert (path.status, path.answer, path.model) == ("ok", "A", "fake/model")
    assert [step.title for step in path.steps] == ["Look", "Compare"]
    [call] = model.calls
    assert call.messages[1].content == (*QUESTION.pictures, QUESTION.text)


@pytest.mark.parametrize(
    ("reply", "status", "code", "said"),
    [
        (THOUGHTS, "rejected", "unparsable", "no_answer"),
        (f"Sure!\n{THOUGHTS}\nA", "rejected", "unparsable", "outside"),
        (f"{THOUGHTS[:-12]}\nA", "rejected", "unparsable", "no_end"),
        ("A", "rejected", "unparsable", "no_block"),
        (f"{THOUGHTS}\n{THOUGHTS}\nA", "rejected", "unparsable", "two_blocks"),
        (Completion(text=f"{THOUGHTS}\nThe answer is", finish="length"), "rejected", "truncated", "max_tokens"),
        (refused(), "rejected", "refusal", "refused"),
        (ModelError("timeout", "late"), "failed", "timeout", "late"),
    ],
)
def test_a_reply_without_its_answer_is_no_answer(reply: Reply, status: str, code: str, said: str) -> None:
    model = FakeModel(lambda _: reply)
    path = reason(DirectCot(model, tries=2))
    assert (path.status, path.code, path.answer) == (status, code, None)
    assert said in path.detail
    assert len(model.calls) == (1 if status == "failed" or code == "refusal" else 2)


def in_turns(first: Reply, second: Reply) -> FakeModel:
    return FakeModel(lambda call: second if call.said else first)


def test_the_second_turn_is_the_same_conversation_and_its_answer_the_paths() -> None:
    said = f"\n{THOUGHTS}  "  # a reply goes back byte for byte
    model = in_turns(said, " A ")
    path = reason(MultiTurn(model))
    assert (path.status, path.answer, len(path.steps), path.usage.requests) == ("ok", "A", 2, 2)
    first, second = (call.messages for call in model.calls)
    assert second[: len(first)] == first
    assert [(message.role, message.content) for message in second[len(first) :]] == [
        ("assistant", said),
        ("user", ANSWER_PROMPT),
    ]
    assert model.calls[0].sampling.seed != model.calls[1].sampling.seed


def test_a_path_that_did_not_work_out_leads_to_no_second_turn() -> None:
    model = in_turns(Completion(text=THOUGHTS[:60], finish="length"), "A")
    path = reason(MultiTurn(model, tries=1))
    assert (path.status, path.code, path.answer) == ("rejected", "truncated", None)
    assert len(model.calls) == 1


@pytest.mark.parametrize(
    ("second", "status", "code"),
    [(refused(), "rejected", "refusal"), (" ", "rejected", "unparsable"), (ModelError("oom", "x"), "failed", "oom")],
)
def test_a_second_turn_that_gives_nothing_ends_the_path(second: Reply, status: str, code: str) -> None:
    path = reason(MultiTurn(in_turns(THOUGHTS, second), tries=2))
    assert (path.status, path.code, path.answer) == (status, code, None)
    assert len(path.steps) == 2


def test_another_seed_asks_with_other_seeds_and_a_second_time_with_the_same() -> None:
    seeds = []
    for seed in (3, 3, 4):
        model = in_turns(THOUGHTS, "A")
        reason(MultiTurn(model), seed)
        seeds.append([call.sampling.seed for call in model.calls])
    assert seeds[0] == seeds[1]
    assert not set(seeds[0]) & set(seeds[2])


def test_streams_end_with_the_whole_path() -> None:
    async def pieces(agent: ThoughtsReasoner) -> list[str | ReasoningPath]:
        return [piece async for piece in agent.stream_reason(QUESTION)]

    one = asyncio.run(pieces(DirectCot(FakeModel(lambda _: f"{THOUGHTS}\nA"))))
    assert "".join(piece for piece in one if isinstance(piece, str)) == f"{THOUGHTS}\nA"
    two = asyncio.run(pieces(MultiTurn(in_turns(THOUGHTS, "A"))))
    for said in (one, two):
        last = said[-1]
        assert isinstance(last, ReasoningPath)
        assert last.answer == "A"


def test_the_prompts_show_the_form_and_do_not_speak_of_another_model() -> None:
    model = FakeModel(lambda _: "")
    cot, turns = DirectCot(model).prompts["system"], MultiTurn(model).prompts["system"]
    assert MultiTurn(model).prompts["answer"] == ANSWER_PROMPT
    for prompt in (cot, turns):
        assert from_text(prompt)[1]
        assert not re.search(r'"action"|judge|somebody', prompt, re.I)
    assert read_answered(cot[cot.index("<thoughts>") :])[1].startswith("Below the block")
    other = DirectCot(model, tags=("<a>", "</a>")).prompts["system"]
    assert "<a>" in other
    assert "<thoughts>" not in other


def test_usage_covers_all_tries() -> None:
    replies = iter(["no block", f"{THOUGHTS}\nA"])

    def script(call: Call) -> Reply:
        return Completion(text=next(replies), usage=Usage(prompt_tokens=5, requests=1))

    assert reason(DirectCot(FakeModel(script))).usage == Usage(prompt_tokens=10, requests=2)
