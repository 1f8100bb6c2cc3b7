"""Which agents stand in `checkpoints/` together, and what is never touched there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from insightv.backends.checkpoints import identity_of, is_complete, mark, note
from insightv.concurrency import blocking
from insightv.config.plugin_loading import load_registry
from insightv.config.settings import check_settings
from insightv.errors import ConfigError, RunChanged
from insightv.interfaces import ChatModel, ReasoningAgent
from insightv.plugins import PluginSource, Register, Registry, hookimpl
from insightv.reasoner.reasoner import Reasoner
from insightv.records import Question, ReasoningPath
from insightv.runs.reader import DATABASE
from insightv.runs.schema import open_database
from insightv.runs.stage_facts import StageFacts, StageId
from insightv.runs.stage_ledger import Ledger
from insightv.train.plan import TrainingPlan
from insightv.train.publish import publish, tell_shown
from insightv.train.recipes import course_of
from insightv.train.rollouts import Rollouts
from insightv.train.stages import Training
from tests.reasoner.test_checkpoint_agents import checkpoints


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    open_database(tmp_path / DATABASE, lambda trouble: None).close()
    with Ledger(tmp_path / DATABASE) as opened:
        yield opened


def model(folder: Path, marked: bool = True) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(folder.name.encode())
    if marked:
        mark(folder)
    return folder


@pytest.mark.parametrize("met", [None, "another policy"])
def test_a_summary_agent_never_stands_beside_a_reasoner_that_it_has_not_met(
    tmp_path: Path, ledger: Ledger, met: str | None
) -> None:
    summary, reasoning = tmp_path / "checkpoints" / "summary", tmp_path / "checkpoints" / "reasoning"
    policy = model(tmp_path / "policy")
    model(summary)
    ledger.begin("summary", {"reasoner": met})
    publish(tmp_path, ledger, policy)
    assert is_complete(reasoning)
    assert not summary.exists()

    model(summary)
    ledger.begin("summary", {"reasoner": None})
    publish(tmp_path, ledger, None)  # the summary agent is trained alone
    assert is_complete(summary)
    assert not reasoning.exists()
    assert is_complete(policy)


@pytest.mark.parametrize("agent", ["reasoning", "summary"])
def test_a_folder_of_somebody_else_is_never_removed(tmp_path: Path, ledger: Ledger, agent: str) -> None:
    theirs = model(tmp_path / "checkpoints" / agent, marked=False)
    with pytest.raises(ConfigError, match="insightv did not write"):
        publish(tmp_path, ledger, None)
    assert (theirs / "model.safetensors").read_bytes() == agent.encode()


def test_the_agents_stand_where_a_change_is_refused(tmp_path: Path, ledger: Ledger) -> None:
    checkpoints(tmp_path / "checkpoints", "reasoning", "summary")
    chosen = check_settings({"train": {"recipe": "summary-only"}})
    plan = TrainingPlan(chosen, course_of(chosen), "base", "its hash", "the run's hash", None, None)
    training = Training(plan, Rollouts(tmp_path, chosen, Registry(), {}), ledger, lambda event, facts: None)
    ledger.begin("summary", plan.stages()[StageId("summary")] | {"reasoner": "the hash of one"})
    ledger.finish("summary", StageFacts())
    training.refuse_changes()  # which reasoner it has met, only the stage itself finds out
    with pytest.raises(RunChanged, match="summary: reasoner"):
        blocking(training.run())
    assert is_complete(tmp_path / "checkpoints" / "reasoning")
    assert is_complete(tmp_path / "checkpoints" / "summary")


def test_a_copy_of_two_checkpoints_is_asked_as_they_were_trained(tmp_path: Path) -> None:
    checkpoints(tmp_path / "checkpoints", "reasoning", "summary")
    before = identity_of(tmp_path / "checkpoints" / "reasoning")
    tags = ["<think>", "</think>"]
    own = {"reasoning_agent": {"tags": tags, "system_prompt": "Think."}, "summary_agent": {"tags": tags}}
    tell_shown(tmp_path, check_settings(own))
    tell_shown(tmp_path / "elsewhere", check_settings({}))  # where nothing is trained
    copy = Path(shutil.copytree(tmp_path / "checkpoints", tmp_path / "copy"))
    assert identity_of(copy / "reasoning") == before
    for settings in (None, check_settings({})):  # as `serve` gives its own
        reasoner: Any = Reasoner.load(copy, settings=settings)
        asked, judging = reasoner.reasoning_agent, reasoner.summary_agent
        assert (asked.tags, asked.system_prompt) == (("<think>", "</think>"), "Think.")
        assert (judging.tags, judging.system_prompt) == (("<think>", "</think>"), None)
        reasoner.close()
    given: Any = Reasoner.load(copy, settings=check_settings({"reasoning_agent": {"tags": ["<a>", "</a>"]}}))
    assert (given.reasoning_agent.tags, given.reasoning_agent.system_prompt) == (("<a>", "</a>"), "Think.")
    given.close()


class Own(ReasoningAgent):
    """An agent of a plugin's, which has no option but its model."""

    def __init__(self, model: ChatModel) -> None:
        self.model = model

    async def reason(self, question: Question, *, seed: int = 0) -> ReasoningPath:
        raise NotImplementedError


class OwnPlugin:
    @hookimpl
    def register_agents(self, register: Register) -> None:
        register("own", Own)


def test_an_agent_of_a_plugin_may_ask_a_copy(tmp_path: Path) -> None:
    checkpoints(tmp_path / "checkpoints", "reasoning", "summary")
    tell_shown(tmp_path, check_settings({}))
    copy = Path(shutil.copytree(tmp_path / "checkpoints", tmp_path / "copy"))
    registry = load_registry()
    registry.add(OwnPlugin(), PluginSource("own", "own", "1"))
    reasoner = Reasoner.load(copy, settings=check_settings({"reasoning_agent": {"use": "own"}}), registry=registry)
    assert isinstance(reasoner.reasoning_agent, Own)
    reasoner.close()


@pytest.mark.parametrize("shown", [{"tags": ["<a>"]}, {"tags": [1, 2]}, {"system_prompt": 7}])
def test_a_marker_that_tells_nonsense_is_refused(tmp_path: Path, shown: dict[str, Any]) -> None:
    checkpoints(tmp_path, "reasoning", "summary")
    note(tmp_path / "reasoning", shown=shown)
    with pytest.raises(ConfigError, match=r"tags|system_prompt = 7"):
        Reasoner.load(tmp_path)
