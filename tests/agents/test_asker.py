"""Agents hold the asker that they ask by: their options are their own, and what identifies them is as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from insightv.agents.adapters import AgentGenerator
from insightv.agents.baselines import DirectAnswer, DirectCot, MultiTurn
from insightv.agents.reasoning import ThoughtsReasoner
from insightv.agents.replies.ask import Asker
from insightv.agents.summary import JudgingSummary
from insightv.config.identity import object_identity
from insightv.errors import ConfigError
from insightv.interfaces import ReasoningAgent, SummaryAgent
from insightv.plugin_guard import models_in
from insightv.records import AskOptions
from insightv.testing import ScriptedModel

AGENTS = [ThoughtsReasoner, DirectCot, MultiTurn, JudgingSummary, DirectAnswer]
agents = pytest.mark.parametrize("agent", AGENTS)
Made = Callable[..., Any]


def test_no_role_is_an_asker() -> None:
    assert Asker.__subclasses__() == []
    assert not any(issubclass(agent, Asker) for agent in AGENTS)
    assert all(issubclass(agent, ReasoningAgent | SummaryAgent) for agent in AGENTS)


@agents
def test_what_identifies_an_agent_is_what_it_was(agent: Made) -> None:
    """Literal, as runs of before have it: one that resumes a run must not count as changed."""
    model = ScriptedModel("fine", name="zoo/a")
    reasons = agent in (ThoughtsReasoner, DirectCot, MultiTurn)
    tags = {} if agent is DirectAnswer else {"tags": ["<thoughts>", "</thoughts>"]}
    expected = {
        "model": {"model": "zoo/a", "options": {"script": "fine", "name": "zoo/a"}},
        "temperature": 0.5,
        "top_p": 0.95,
        "max_tokens": 4096 if reasons else 1024,
        "tries": 3,
        "extra": None,
        **tags,
        "system_prompt": None,
    }
    assert object_identity(agent(model, temperature=0.5)) == expected
    if reasons:
        held = object_identity(AgentGenerator(agent(model, temperature=0.5)))["agent"]
        assert held["options"] == expected


@agents
def test_its_model_is_held_once(agent: Made) -> None:
    model = ScriptedModel("fine")
    assert list(models_in(agent(model))) == [model]


@agents
def test_one_question_may_be_bounded_and_the_next_one_is_not(agent: Made) -> None:
    whole = agent(ScriptedModel("fine"), max_tokens=50, top_p=0.9)
    bounded = whole.within(AskOptions(max_tokens=7, temperature=1.5))
    assert type(bounded) is type(whole)
    assert (bounded.max_tokens, bounded.temperature, bounded.top_p) == (7, 1.5, 0.9)
    assert (whole.max_tokens, whole.temperature) == (50, 0.2)
    assert whole.within(AskOptions(max_tokens=70)).max_tokens == 50


@agents
@pytest.mark.parametrize("wrong", [{"tries": 0}, {"temperature": 11.0}, {"max_tokens": 0}, {"extra": {"n": 2}}])
def test_a_wrong_option_is_refused_when_it_is_made(agent: Made, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        agent(ScriptedModel("fine"), **wrong)
