"""A run's training: the recipe's stages in order, each done once, resumed where it stopped, and measured when done.

    RUN/rounds/0/policy            the reasoning agent after supervised training
    RUN/rounds/K/{paths,policy}    round K: fresh paths of the policy before (a run of its own), and the policy after
    RUN/rounds/last/{paths,set}    fresh paths of the last policy, and the set that the summary agent is trained on
    RUN/checkpoints/               the agents as they are used: reasoning, summary, direct, multi-turn

The ledger says what is done. A stage is what it was trained from, on and with: where that differs from what the ledger
says, the training stops and names the differences, or, where changes are allowed, does the stage anew.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson

from insightv.backends.checkpoints import identity_of, last_complete
from insightv.errors import InputError, RunChanged, differences_between
from insightv.runs.reader import CHECKPOINTS, DATASETS, ROUNDS, RunReader
from insightv.runs.stage_facts import StageFacts, StageId
from insightv.runs.stage_ledger import Entry, Ledger, TrainingResult
from insightv.train.dpo_round import Round, evidence, fresh_paths, placed, trainer_of
from insightv.train.finetune.fit import STEPS
from insightv.train.finetune.process import run_here, run_job
from insightv.train.finetune.settings import Job, Stage
from insightv.train.plan import TrainingPlan
from insightv.train.publish import own_place, publish, tell_shown
from insightv.train.recipes import agent_settings
from insightv.train.rollouts import Rollouts
from insightv.train.run_datasets import why_empty, write_datasets, write_summary_set

log = logging.getLogger("insightv")
T = TypeVar("T")
ALONE = {"direct": "direct-cot", "multi-turn": "multi-turn"}
"""The system that asks a model trained alone."""
TITLES = {
    "direct": "One model that reasons and answers in one reply",
    "multi-turn": "One model that reasons in one turn and answers in the next",
}
Tell = Callable[[str, Entry], None]
"""Called with an event ("begin", "done", "kept") and the stage as the ledger has it."""


class Training:
    """One training of a run that this process holds."""

    def __init__(self, plan: TrainingPlan, runs: Rollouts, ledger: Ledger, tell: Tell) -> None:
        self._plan = plan
        self._runs = runs
        self._ledger = ledger
        self._tell = tell
        self._folder = runs.folder
        self._train = plan.settings.train

    async def run(self) -> TrainingResult:
        """Do what is not done yet; returns the recipe, every stage of it, and where the agents are.

        Raises:
            RunChanged: a stage was done with something else; each difference is named.
            InputError: there is nothing to train on.
            StopRun: stopped and resumable.
        """
        stages = self._plan.stages()
        if self._plan.course.rounds:
            trainer_of(self._runs)  # one that cannot be made is said before anything is trained
        if "summary" in stages:  # a model alone stands beside the agents, and changes nothing of them
            self._ledger.lay_aside({entry.name for entry in self._ledger.entries()} - {*stages, *ALONE})
        done: list[Entry] = []
        reasoning: Path | None = None
        for name, identity in stages.items():
            if name == "reasoning":
                entry = await self._reasoning(identity)
            elif name == "summary":
                entry = await self._summary(identity, reasoning)
            elif name.round is not None and reasoning is not None:
                entry = await self._round(name, name.round, identity, reasoning)
            else:
                entry = await self._alone(name, identity)
            done.append(entry)
            if name.round is not None:
                reasoning = self._result(entry.facts)
        if "summary" in stages:
            tell_shown(self._folder, self._plan.settings)
        trained = [name for name in ("reasoning", "summary", self._plan.course.alone) if name in stages]
        return TrainingResult(self._train.recipe, tuple(done), {name: self._checkpoint(name) for name in trained})

    async def _reasoning(self, identity: dict[str, Any]) -> Entry:
        job = self._job("reasoning", self._folder / DATASETS / "reason", self._folder / ROUNDS / "0" / "policy")

        async def work() -> StageFacts:
            facts = await self._supervised(job, await self._written("reason"))
            before = await self._runs.accuracy("reasoning-only", reasoning=self._plan.base)
            after = await self._runs.accuracy("reasoning-only", reasoning=str(job.out))
            return facts | evidence(before, after)

        return await self._stage(StageId("reasoning"), identity, work)

    async def _round(self, name: StageId, number: int, identity: dict[str, Any], policy: Path) -> Entry:
        folder = self._folder / ROUNDS / str(number)
        one = Round(number, folder, self._runs, trainer_of(self._runs), self._plan.external)

        async def work() -> StageFacts:
            return await self._runs.allowed(lambda: one.run(policy), folder / "policy.training")

        return await self._stage(name, identity | {"policy": identity_of(policy)}, work)

    async def _summary(self, identity: dict[str, Any], reasoning: Path | None) -> Entry:
        last = self._folder / ROUNDS / "last"
        fresh = last / "paths" if reasoning is not None and self._train.summary_paths else None
        job = self._job("summary", last / "set", self._checkpoint("summary"))

        async def work() -> StageFacts:
            facts = StageFacts()
            if fresh is not None and reasoning is not None:
                status = await self._runs.paths(str(reasoning), fresh, "last", self._train.summary_paths)
                facts = fresh_paths(status)
            settings, raise_if_stopped = self._plan.settings, self._runs.raise_if_stopped
            made = await asyncio.to_thread(write_summary_set, self._folder, settings, fresh, job.data, raise_if_stopped)
            facts |= await self._supervised(job, made.rows)
            base, summary = self._plan.base, str(job.out)
            if reasoning is None:
                before = await self._runs.accuracy("summary-only", summary=base)
                return facts | evidence(before, await self._runs.accuracy("summary-only", summary=summary))
            before = await self._runs.accuracy("reasoner", reasoning=base, summary=base)
            after = await self._runs.accuracy("reasoner", reasoning=str(reasoning), summary=summary)
            return facts | evidence(before, after)

        identity |= {"reasoner": identity_of(reasoning) if reasoning is not None else None}
        self._refuse({StageId("summary"): identity})  # while the agents still stand
        await asyncio.to_thread(publish, self._folder, self._ledger, reasoning)
        return await self._stage(StageId("summary"), identity, work)

    async def _alone(self, name: StageId, identity: dict[str, Any]) -> Entry:
        job = self._job(name, self._folder / DATASETS / name, self._checkpoint(name))
        system = ALONE[name]

        async def work() -> StageFacts:
            facts = await self._supervised(job, await self._written(name))
            before = await self._runs.accuracy(system, alone=self._plan.base)
            return facts | evidence(before, await self._runs.accuracy(system, alone=str(job.out)))

        return await self._stage(name, identity, work)

    async def _written(self, name: str) -> int:
        """The number of rows of a set of the run, written anew: the same run gives the same bytes."""
        write = partial(write_datasets, self._folder, self._plan.settings, self._runs.raise_if_stopped, (name,))
        return (await asyncio.to_thread(write))[name].rows

    async def _stage(self, name: StageId, identity: dict[str, Any], work: Callable[[], Awaitable[StageFacts]]) -> Entry:
        """A stage that is done: as it is in the ledger, or after its work."""
        self._refuse({name: identity})
        entry = self._ledger.find(name)
        if entry is not None and entry.done and entry.identity == identity and self._whole(entry):
            self._tell("kept", entry)
            return entry
        self._runs.raise_if_stopped()
        self._tell("begin", self._ledger.begin(name, identity))
        log.info("training: %s began", name)
        facts = await work()
        facts |= StageFacts(result_identity=await asyncio.to_thread(identity_of, self._result(facts)))
        entry = self._ledger.finish(name, facts)
        shown = facts.as_json()
        log.info(
            "training: %s done: %s", name, json.dumps({k: shown.get(k) for k in ("after", "rolled_back", "pairs")})
        )
        self._tell("done", entry)
        return entry

    def _result(self, facts: StageFacts) -> Path:
        """The policy or agent that a stage ends with."""
        if facts.result is None:
            raise InputError("a stage of the ledger is done and names no result; restore run.db from a copy")
        return self._folder / facts.result

    def _begun(self, entry: Entry) -> bool:
        """Whether anything was trained in a stage; what failed before that has no result that could be mixed."""
        number = entry.name.round
        out = self._checkpoint(entry.name) if number is None else self._folder / ROUNDS / str(number) / "policy"
        return entry.done or last_complete(out.with_name(f"{out.name}.training") / STEPS) is not None

    def _whole(self, entry: Entry) -> bool:
        """Whether the result of a stage is there unchanged."""
        try:
            found = identity_of(self._result(entry.facts))
        except InputError:
            found = ""
        if found != entry.facts.result_identity:
            log.warning("training: the result of %s is gone or damaged; it is done again", entry.name)
            return False
        return True

    def refuse_changes(self) -> None:
        """Before anything is started: hold every stage that the ledger has against what it would be now.

        Raises:
            RunChanged: one differs; each difference is named.
            ConfigError: a folder that a stage would replace holds what insightv did not write.
        """
        agents = ("reasoning", "summary") if self._plan.course.summary else (self._plan.course.alone,)
        for agent in agents:
            own_place(self._folder, agent)
        self._refuse(self._plan.stages())

    def _refuse(self, stages: Mapping[StageId, Mapping[str, Any]]) -> None:
        found: list[str] = []
        for name, identity in stages.items():
            entry = self._ledger.find(name)
            if entry is not None and self._begun(entry):
                found += _differences(entry, identity)
        if found and not self._runs.allow_change:
            raise RunChanged.of(
                "the run was trained with something else",
                found,
                "give --allow-change to train these stages (and those that follow from them) anew, or use another "
                "--run",
            )

    async def _supervised(self, job: Job, rows: int) -> StageFacts:
        if not rows:
            with RunReader(self._folder) as run:
                why = why_empty(run.status(), [table.use for table in self._plan.settings.scorers])
            raise InputError(f"the set in {str(job.data)!r} has no rows: {why}")

        def work() -> Path:
            return run_job(job, self._runs.raise_if_stopped) if self._train.child else run_here(job)

        await self._runs.allowed(lambda: asyncio.to_thread(work), job.work)
        report = orjson.loads((job.out / "report.json").read_bytes())
        for warning in report.get("warnings", ()):
            log.warning("training: %s", warning)
        losses = [entry["loss"] for entry in report["log"] if "loss" in entry]
        return StageFacts(
            **{name: report[name] for name in ("steps", "rows_trained_on", "rows_left_out", "resumed_from_step")},
            change_kept=report.get("change_kept"),
            loss=losses[-1] if losses else report["loss"],
            result=placed(job.out, self._folder),
        )

    def _job(self, agent: str, data: Path, out: Path) -> Job:
        stage: Stage = "summary" if agent == "summary" else "reason"
        settings = agent_settings(self._plan.settings, agent)
        title = TITLES.get(agent, "")
        return Job(stage=stage, policy=self._plan.base, data=data, out=out, settings=settings, title=title)

    def _checkpoint(self, agent: str) -> Path:
        return self._folder / CHECKPOINTS / agent


def _differences(entry: Entry, identity: Mapping[str, Any]) -> list[str]:
    """What a stage was done with and would not be now; `identity` may lack what only the stage itself finds out."""
    then = {name: value for name, value in entry.identity.items() if name in identity or name in _DECLARED}
    return [f"{entry.name}: {difference}" for difference in differences_between(then, identity)]


_DECLARED = ("external", "pairs", "generation", "scorers", "bands")
"""What a stage's identity has in some recipes only."""
