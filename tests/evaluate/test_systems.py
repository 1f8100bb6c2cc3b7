"""Systems under evaluation, with scripted models: which paths come of them, and how rows are made of those."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from insightv.agents.adapters import StepReasoner
from insightv.agents.baselines import DirectAnswer, DirectCot, MultiTurn
from insightv.agents.generator import ProgressiveGenerator
from insightv.agents.replies.conclusion import concluded
from insightv.agents.summary import JudgingSummary
from insightv.assess.bands import AssessedPath, AssessedQuestion
from insightv.backends.model_folder import weights_digest
from insightv.config.settings import check_settings
from insightv.errors import ConfigError, ModelError, QuotaExhausted
from insightv.evaluate.evaluation import graded
from insightv.evaluate.systems import SYSTEMS, SystemGenerator, system_tables
from insightv.interfaces import ReasoningAgent
from insightv.records import Answer, Question, ReasoningPath, Score, Step
from tests.agents.fakes import QUESTION, FakeModel, Reply, Script, refused, walks


def path(*contents: str, answer: str | None = None, **rest: object) -> ReasoningPath:
    steps = tuple(Step(title="t", content=content, action="summary") for content in contents)
    fields = {"question_id": "q1", "index": 0, "status": "ok", "steps": steps, "answer": answer} | rest
    return ReasoningPath.model_validate(fields)


def always(reply: Reply) -> Script:
    return lambda _: reply


def generate(system: SystemGenerator) -> list[ReasoningPath]:
    return asyncio.run(system.generate(QUESTION, 2, seed=4))


def test_the_direct_prompt_asks_for_an_answer_and_shows_the_question_alone() -> None:
    model = FakeModel(lambda _: "  B ")
    direct = DirectAnswer(model)
    answer = asyncio.run(direct.summarize(QUESTION, path("Nobody sees this.", seed=3)))
    assert answer.text == "B"
    [call] = model.calls
    system, user = call.messages
    assert user.content == (*QUESTION.pictures, QUESTION.text)
    assert not re.search(r'<thoughts>|"action"|judge', str(system.content))
    assert direct.prompts == {"system": system.content}
    other = FakeModel(lambda _: "B")
    asyncio.run(DirectAnswer(other).summarize(QUESTION, path("Nobody sees this.", seed=4)))
    assert other.calls[0].sampling.seed != call.sampling.seed


def test_both_agents_make_an_answer_and_the_reasoning() -> None:
    model = FakeModel(lambda call: walks(2, "A")(call) if call.schema else "B")
    reasoning = StepReasoner(ProgressiveGenerator(model))
    answer, reasoned = generate(SystemGenerator(reasoning, JudgingSummary(model)))
    assert (answer.index, answer.answer, answer.steps) == (0, "B", ())
    assert (reasoned.index, reasoned.answer, len(reasoned.steps)) == (1, "A", 2)
    assert answer.flags == ()
    assert (answer.usage.requests, reasoned.usage.requests) == (1, 3)


def test_a_refused_answer_is_rejected_and_one_that_never_came_failed() -> None:
    cases: list[tuple[Reply, str, str]] = [
        (refused(), "rejected", "refusal"),
        ("   ", "rejected", "unparsable"),
        (ModelError("timeout", "late"), "failed", "timeout"),
    ]
    for reply, status, code in cases:
        [answer] = generate(SystemGenerator(None, DirectAnswer(FakeModel(always(reply)))))
        assert (answer.status, answer.code, answer.answer) == (status, code, None)


def test_nothing_more_is_asked_once_the_run_must_stop() -> None:
    with pytest.raises(QuotaExhausted):
        generate(SystemGenerator(None, DirectAnswer(FakeModel(lambda _: QuotaExhausted("used up")))))


class Broken(ReasoningAgent):
    async def reason(self, question: Question, *, seed: int = 0) -> ReasoningPath:
        raise ModelError("oom", "too large")


def test_an_agent_that_raises_costs_its_question_only() -> None:
    model = FakeModel(lambda _: "B")
    found = generate(SystemGenerator(Broken(), JudgingSummary(model)))
    assert [(made.index, made.status, made.code) for made in found] == [(0, "failed", "oom"), (1, "failed", "oom")]
    assert model.calls == []


def test_the_reasoning_agent_alone_answers_with_its_conclusion() -> None:
    reasoning = StepReasoner(ProgressiveGenerator(FakeModel(walks(3, "A"))))
    [only] = generate(SystemGenerator(reasoning, None))
    assert (only.index, only.answer, len(only.steps)) == (0, "A", 3)


@pytest.mark.parametrize(
    ("reasoned", "own"),
    [
        (path("The answer is 4.", "Hm.", answer="5"), "5"),
        (path("Red is 40.", "So 40 - 25 = 15. The answer is 15."), "The answer is 15."),
        (path("The answer is 7.\nNo: the answer is 8.\nI am sure."), "No: the answer is 8."),
        (path("The answer is 7.", "Fifteen."), "Fifteen."),
        (path("It is 3.5, or so. I think."), "It is 3.5, or so. I think."),
        (path(status="ok"), None),
        (path("The answer is 4.", status="rejected", code="truncated"), None),
    ],
)
def test_a_path_comes_to_what_its_last_step_says_and_to_nothing_else(reasoned: ReasoningPath, own: str | None) -> None:
    assert concluded(reasoned).answer == own


def assessed(
    answer: str | None, conclusion: str | None, grades: tuple[bool | None, bool | None], **rest: object
) -> AssessedQuestion:
    question = Question(id="q1", question="How many boats are there?", answer="12", meta={"family": 3})
    made = [path(answer=answer, **rest), path("...", answer=conclusion, index=1)]
    scores = [(Score(scorer="answer", accepted=grade),) for grade in grades]
    return AssessedQuestion(question, tuple(AssessedPath(p, s) for p, s in zip(made, scores, strict=True)))


@pytest.mark.parametrize(
    ("answer", "conclusion", "grades", "followed"),
    [
        ("12", "The answer is 12.", (True, True), True),
        ("12", "The answer is 12.4.", (True, True), True),
        ("12", "The answer is 11.", (True, False), False),
        ("11", "The answer is 11.", (False, False), True),
        ("11", "13", (False, False), False),
        ("a dozen boats", "twelve, I would say", (True, True), True),
        ("a dozen boats", "not so many", (True, False), False),
        ("few", "not so many", (False, False), None),
        ("a dozen boats", "not so many", (True, None), None),
        ("12", None, (True, None), None),
    ],
)
def test_followed_is_told_from_the_answers_and_else_from_the_grades(
    answer: str, conclusion: str | None, grades: tuple[bool | None, bool | None], followed: bool | None
) -> None:
    made = graded(assessed(answer, conclusion, grades), "d", "family")
    assert made.followed is followed
    assert made.family == "3"
    assert made.reasoning == {True: "right", False: "wrong", None: "unknown"}[grades[1]]


@pytest.mark.parametrize("grades", [(True, True), (None, None)])
def test_a_letter_follows_the_choice_that_it_names(grades: tuple[bool | None, bool | None]) -> None:
    made = assessed("B", "It is red.", grades)
    question = made.question.model_copy(update={"choices": ("green", "red"), "answer": "B"})
    assert graded(AssessedQuestion(question, made.paths), "d", "family").followed is True


def test_the_agents_own_word_comes_first() -> None:
    made = graded(assessed("12", "12", (True, True), flags=("overruled",)), "d", "other")
    assert (made.followed, made.family) == (False, None)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"calls": ("aa", "bb")}, 3.75),
        ({"calls": ("aa", "cc")}, None),  # a job, whose time says nothing
        ({"calls": ("aa", "dd")}, None),
        ({}, None),
        ({"flags": ("overruled", "seconds=1.25")}, 1.25),  # of 0.1.0
    ],
)
def test_an_answer_took_as_long_as_its_calls(fields: dict[str, object], seconds: float | None) -> None:
    took = {"aa": 1.5, "bb": 2.25, "cc": 0.0}
    assert graded(assessed("12", "12", (True, True), **fields), "d", "other", took).seconds == seconds


def test_an_answer_that_cannot_be_graded_is_ungraded() -> None:
    assert graded(assessed("some", "some", (None, None)), "d", "family").outcome == "ungraded"


def test_unknown_systems_and_missing_models_are_named() -> None:
    with pytest.raises(ConfigError, match="reasoning-only"):
        system_tables("reasonor", check_settings({}), None, None)
    for system in SYSTEMS:
        with pytest.raises(ConfigError, match="--model"):
            system_tables(system, check_settings({}), None, None)


def test_the_direct_model_is_the_generators_unless_one_is_named() -> None:
    settings = check_settings(
        {"generator": {"model": "openai/g", "base_url": "http://g"}, "summary_agent": {"model": "openai/s"}}
    )
    direct = system_tables("direct", settings, None, None)["direct_agent"]
    assert (direct.use, direct.model, direct.base_url) == ("direct", "openai/g", "http://g")
    both = system_tables("reasoner", settings, None, None)
    assert {role: table.model for role, table in both.items()} == {
        "reasoning_agent": "openai/g",
        "summary_agent": "openai/s",
    }
    named = system_tables("reasoner", settings, "tiny", None)
    assert {(table.model, table.base_url) for table in named.values()} == {("tiny", None)}


@pytest.mark.parametrize("system", ["direct-cot", "multi-turn"])
def test_a_model_alone_reasons_and_answers_in_one_path(system: str) -> None:
    thoughts = "<thoughts>\n### Look\nA is 7.\n</thoughts>"
    script: dict[str, Script] = {
        "direct-cot": lambda _: f"{thoughts}\nA",
        "multi-turn": lambda call: "A" if call.said else thoughts,
    }
    agent = {"direct-cot": DirectCot, "multi-turn": MultiTurn}[system](FakeModel(script[system]))
    [only] = generate(SystemGenerator(agent, None))
    assert (only.index, only.status, only.answer, len(only.steps)) == (0, "ok", "A", 1)
    assert SYSTEMS[system].paths == 1


def test_a_model_alone_takes_the_reasoning_agents_options_and_the_generators_model() -> None:
    settings = check_settings(
        {
            "generator": {"model": "openai/g", "base_url": "http://g"},
            "reasoning_agent": {"max_tokens": 77, "tags": ["<a>", "</a>"], "system_prompt": "Only reason."},
        }
    )
    [table] = system_tables("direct-cot", settings).values()
    assert (table.use, table.model, table.options) == (
        "direct-cot",
        "openai/g",
        {"max_tokens": 77, "tags": ["<a>", "</a>"]},
    )
    [trained] = system_tables("multi-turn", settings, checkpoints={"multi_turn_agent": Path("/c")}).values()
    assert (trained.use, trained.model, trained.base_url) == ("multi-turn", "hf//c", None)
    steps = check_settings({"generator": {"model": "tiny"}, "reasoning_agent": {"use": "steps", "max_steps": 3}})
    assert system_tables("multi-turn", steps)["multi_turn_agent"].options == {}


def test_weights_that_were_trained_on_are_other_weights(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"a": 1}), encoding="utf-8")
    weights = bytearray(6_000_000)
    (folder / "model.safetensors").write_bytes(weights)
    before = weights_digest(f"hf/{folder}")
    assert before == weights_digest(f"vllm/{folder}")
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert weights_digest(f"hf/{moved}") == before
    for place in (0, len(weights) - 1):
        weights[place] = 1
        (moved / "model.safetensors").write_bytes(weights)
        assert weights_digest(f"hf/{moved}") != before
    assert weights_digest("hf/some-org/some-model") is weights_digest("tiny") is None


def test_answers_carry_what_the_summary_agent_flagged() -> None:
    class Flags(JudgingSummary):
        async def summarize(self, question: Question, path: ReasoningPath) -> Answer:
            return Answer(text="B", followed=True, flags=("path_cut",))

    model = FakeModel(walks(2))
    answer, _ = generate(SystemGenerator(StepReasoner(ProgressiveGenerator(model)), Flags(model)))
    assert answer.flags == ("path_cut", "followed")
