"""The prompts: every example in them can be read, and what a chat template tells calls apart by is there."""

import asyncio
import json
import re

import pytest

from insightv.agents.adapters import AgentGenerator, StepReasoner
from insightv.agents.generator import ProgressiveGenerator
from insightv.agents.reasoning import ThoughtsReasoner
from insightv.agents.replies.reading import Unreadable
from insightv.agents.replies.transcript import from_text
from insightv.agents.summary import JudgingSummary
from insightv.records import ReasoningPath, Step
from tests.agents.fakes import QUESTION, FakeModel, walks
from tests.agents.step_replies import read_final, read_step

MODEL = FakeModel(walks(2))
GENERATOR = ProgressiveGenerator(MODEL).prompts
REASONER = ThoughtsReasoner(MODEL).prompts
SUMMARY = JudgingSummary(MODEL).prompts


def examples(prompt: str) -> list[str]:
    """The objects that stand on lines of their own."""
    return re.findall(r"^\{.*\}$", prompt, re.M)


def test_every_json_example_is_one_that_the_reader_takes() -> None:
    assert [read_step(example).action for example in examples(GENERATOR["system"])] == ["continue"]
    assert [read_final(example) for example in examples(GENERATOR["final"])] == ["15"]
    for prompt in (*GENERATOR.values(), *REASONER.values(), *SUMMARY.values()):
        for example in examples(prompt):
            assert isinstance(json.loads(example), dict)
        assert "{" not in re.sub(r"\\frac\{1\}\{2\}", "", re.sub(r"^\{.*\}$", "", prompt, flags=re.M))


def test_the_example_of_a_path_is_one_that_the_reader_takes() -> None:
    steps, complete = from_text(REASONER["system"])
    assert complete
    assert len(steps) == 2


def test_the_advice_about_latex_is_right() -> None:
    right, wrong = re.findall(r'"(\\+)frac', GENERATOR["system"])
    reply = '{{"title": "a", "content": "{}frac{{1}}{{2}}", "action": "continue"}}'
    assert json.loads(reply.format(right))["content"] == r"\frac{1}{2}"
    assert json.loads(reply.format(wrong))["content"] != r"\frac{1}{2}"


def test_the_prompts_tell_the_calls_apart() -> None:
    system, following, final = GENERATOR["system"], GENERATOR["next"], GENERATOR["final"]
    assert '"action"' in system
    assert "<thoughts>" not in system
    assert '"answer"' not in system
    assert '"answer"' not in following
    assert '"answer"' in final
    assert "<thoughts>" in REASONER["system"]
    assert "judge" not in REASONER["system"].lower()
    assert '"action"' not in REASONER["system"]
    assert "<thoughts>" in SUMMARY["system"]
    assert "judge" in SUMMARY["system"]


def test_the_system_prompt_asks_for_what_the_method_asks_for() -> None:
    text = GENERATOR["system"].lower()
    for wanted in ("expert", "step by step", "at least two steps", "other answers", "different approach", "image"):
        assert wanted in text


def test_the_keys_and_actions_of_the_prompt_are_those_of_the_reader() -> None:
    named = set(re.findall(r'"(\w+)"', re.sub(r"^\{.*\}$", "", GENERATOR["system"] + GENERATOR["next"], flags=re.M)))
    assert named == {"title", "content", "action", "continue", "summary"}


def test_the_messages_of_the_summary_agent() -> None:
    steps = (Step(title="Look", content="Red is 5.", action="summary"),)
    path = ReasoningPath(question_id="q1", index=0, status="ok", steps=steps)
    model = FakeModel(lambda call: "B")
    asyncio.run(JudgingSummary(model).summarize(QUESTION, path))
    user = model.calls[0].messages[1]
    assert user.content == (
        QUESTION.pictures[0],
        f"QUESTION: {QUESTION.text}\n\nREASONING:\n<thoughts>\n### Look\nRed is 5.\n</thoughts>",
    )


def test_other_tags_stand_in_the_prompts() -> None:
    for prompts in (
        ThoughtsReasoner(MODEL, tags=("[r]", "[/r]")).prompts,
        JudgingSummary(MODEL, tags=("[r]", "[/r]")).prompts,
    ):
        assert "[r]" in prompts["system"]
        assert "[/r]" in prompts["system"]
        assert "thoughts>" not in prompts["system"]


def test_adapters_name_the_prompts_of_their_parts() -> None:
    agent = AgentGenerator(ThoughtsReasoner(MODEL), answer_from=JudgingSummary(MODEL))
    assert agent.prompts == {"reasoning.system": REASONER["system"], "summary.system": SUMMARY["system"]}
    assert set(StepReasoner(ProgressiveGenerator(MODEL)).prompts) == {
        "generator.system",
        "generator.next",
        "generator.final",
    }


def test_a_prompt_with_braces_is_sent_as_it_is() -> None:
    model = FakeModel(walks(2))
    prompt = 'Write {"a": 1} and {answer}'
    asyncio.run(ProgressiveGenerator(model, system_prompt=prompt).generate(QUESTION, 1))
    assert model.calls[0].messages[0].content == prompt


def test_a_step_that_copies_the_prompt_form_is_refused() -> None:
    with pytest.raises(Unreadable):
        read_step('{"title": "...", "content": "...", "action": "continue" or "summary"}')
