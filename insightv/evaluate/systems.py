"""What can be evaluated: the two agents together, each alone, or one model that does it all.

A system goes through the same build as a generator does, and answers each question once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from insightv.agents.adapters import prompts_of, unanswered
from insightv.agents.replies.conclusion import concluded
from insightv.config.roles import Assembly, RoleFactory, agent_table
from insightv.config.settings import ReasoningTable, RoleTable, Settings, SummaryTable
from insightv.errors import ConfigError, ModelError
from insightv.evaluate.system_answer import SystemAnswer, answer_path, to_paths
from insightv.interfaces import Generator, ReasoningAgent, SummaryAgent
from insightv.reasoner.checkpoint_agents import trained_table
from insightv.records import Question, ReasoningPath, Usage
from insightv.runs.question_calls import question_calls

NO_CHECKPOINTS: Mapping[str, Path] = MappingProxyType({})


@dataclass(frozen=True)
class System:
    """A kind of system: which agent reasons ("": none), and which one answers ("": the one that reasons)."""

    reasons: str
    answers: str

    @property
    def agents(self) -> tuple[str, ...]:
        """Its agents, by name."""
        return tuple(agent for agent in (self.reasons, self.answers) if agent)

    @property
    def paths(self) -> int:
        """The number of paths that it makes per question."""
        return 2 if self.reasons and self.answers else 1


SYSTEMS: dict[str, System] = {
    "reasoner": System("reasoning_agent", "summary_agent"),
    "reasoning-only": System("reasoning_agent", ""),
    "summary-only": System("", "summary_agent"),
    "direct": System("", "direct_agent"),
    "direct-cot": System("direct_cot_agent", ""),
    "multi-turn": System("multi_turn_agent", ""),
}
"""Both agents; the reasoning agent's own conclusion; the summary agent without reasoning; one model that answers at
once (the base), that reasons and answers in one reply, and that does so in two turns."""


def known_system(name: str) -> System:
    """The system of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in SYSTEMS:
        raise ConfigError(f"--system {name!r} is not known; one of: {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def system_tables(
    name: str,
    settings: Settings,
    model: str | None = None,
    base_url: str | None = None,
    checkpoints: Mapping[str, Path] = NO_CHECKPOINTS,
) -> dict[str, RoleTable]:
    """The tables of a system's agents. `model` is asked in place of those that the settings name.

    `checkpoints` are trained models of agents by name, asked where `model` is not given. A model that works alone is
    the generator's where there is neither; it takes the options of the reasoning agent.

    Raises:
        ConfigError: there is no such system, or no model for it.
    """
    chosen = {agent: _own_table(agent, settings) for agent in known_system(name).agents}
    if model is not None:
        place: dict[str, Any] = {"model": model, "base_url": base_url, "backend": {}}
        return {role: table.model_copy(update=place) for role, table in chosen.items()}
    chosen |= {role: trained_table(table, checkpoints[role]) for role, table in chosen.items() if role in checkpoints}
    tables = {role: agent_table(settings, table) for role, table in chosen.items()}
    nameless = [role for role, table in tables.items() if table.model is None and table.use in _BUILT_IN]
    if nameless:
        raise ConfigError(f"{nameless[0]} has no model; give --model provider/NAME, or set {nameless[0]}.model")
    return tables


_BUILT_IN = ("thoughts", "steps", "summary", "direct", "direct-cot", "multi-turn")


def _own_table(agent: str, settings: Settings) -> RoleTable:
    reasoning = settings.reasoning_agent
    match agent:
        case "reasoning_agent":
            return reasoning
        case "summary_agent":
            return settings.summary_agent
        case "direct_agent":
            return SummaryTable(use="direct")
    options = reasoning.options if reasoning.use == "thoughts" else {}
    kept = {option: value for option, value in options.items() if option != "system_prompt"}
    return ReasoningTable.model_validate({**kept, "use": agent.removesuffix("_agent").replace("_", "-")})


def assembly(name: str, tables: Mapping[str, RoleTable]) -> Assembly[Generator]:
    """The system, to be put together within a run."""
    return Assembly(f"insightv.{name}", partial(_assembled, name=name, tables=dict(tables)))


def _assembled(workshop: RoleFactory, name: str, tables: Mapping[str, RoleTable]) -> Generator:
    system = SYSTEMS[name]
    reasoning, answering = tables.get(system.reasons), tables.get(system.answers)
    return SystemGenerator(
        None if reasoning is None else workshop.agent(reasoning, ReasoningAgent),
        None if answering is None else workshop.agent(answering, SummaryAgent),
    )


class SystemGenerator(Generator):
    """Answers each question once with the agents that it has."""

    def __init__(self, reasoning: ReasoningAgent | None, answering: SummaryAgent | None) -> None:
        self._reasoning = reasoning
        self._answering = answering

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts of both agents, by agent and name; part of a run's identity."""
        return {**prompts_of("reasoning", self._reasoning), **prompts_of("answering", self._answering)}

    async def generate(self, question: Question, n: int, *, seed: int = 0) -> list[ReasoningPath]:
        """The system's answer as paths: `SYSTEMS[...].paths` of them, whatever `n`.

        Raises:
            StopRun: nothing more may be asked.
        """
        made = await self._asked(question, seed)
        made_of = question_calls.get(None)
        calls = tuple(key.hex() for key in made_of.recorded) if made_of else ()
        return to_paths(replace(made, answer=made.answer.model_copy(update={"calls": calls})))

    async def _asked(self, question: Question, seed: int) -> SystemAnswer[ReasoningPath]:
        blank = ReasoningPath(question_id=question.id, index=0, status="ok", seed=seed)
        if self._reasoning is None:
            return SystemAnswer(await self._answered(question, blank, blank))
        try:
            path = await self._reasoning.reason(question, seed=seed)
        except ModelError as error:
            lost = unanswered(blank, error)
            # Its cost is counted once.
            again = lost.model_copy(update={"usage": Usage()})
            return SystemAnswer(lost, None if self._answering is None else again)
        own = concluded(path)
        if self._answering is None:
            return SystemAnswer(own)
        return SystemAnswer(await self._answered(question, path, blank), own)

    async def _answered(self, question: Question, path: ReasoningPath, blank: ReasoningPath) -> ReasoningPath:
        if self._answering is None:
            return blank
        try:
            return answer_path(blank, await self._answering.summarize(question, path))
        except ModelError as error:
            return unanswered(blank, error)
