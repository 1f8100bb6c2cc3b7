"""`Pipeline`: a run from questions to two trained agents. Building is `RunBuilder`'s; training is added here.

pipeline = Pipeline.from_config("insightv.toml", run="runs/charts")
pipeline.build("questions.jsonl")
pipeline.train()
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Literal

from insightv.concurrency import blocking_twin
from insightv.config.file import origin_of, write_settings
from insightv.config.roles import RoleFactory
from insightv.config.settings import Settings, load_settings
from insightv.config.trust import keep_own
from insightv.errors import ConfigError, InputError, require
from insightv.evaluate.judge_audit import JudgeAudit
from insightv.evaluate.pilot import PilotReport, read_sampled, report_on, sample
from insightv.inputs.questions import QuestionFile
from insightv.runs.builder import Questions, RunBuilder, checked_watch
from insightv.runs.lock import RunLock
from insightv.runs.log import run_log
from insightv.runs.reader import CONFIG, DATABASE, LOG
from insightv.runs.session import Watch
from insightv.runs.stage_ledger import Entry, Ledger, TrainingResult
from insightv.runs.status import RunStatus, read_status
from insightv.runs.store import pending
from insightv.train.plan import plan_of
from insightv.train.recipes import check_train
from insightv.train.rollouts import Rollouts
from insightv.train.row_sets import check_sets
from insightv.train.run_datasets import write_datasets
from insightv.train.stages import Tell, Training

_BUILT = ("seed", "generator", "scorers", "bands", "images")
"""Sections that say how the paths of a run came about."""


class Pipeline(RunBuilder):
    """The five roles and a run's folder: `build` makes the data, `train` the agents.

    Each role is an object, the name of a registered one, or a table as in the configuration (`use`, `model`, options).
    A ChatModel that is an attribute of an object given here is put into the run's journal, in a copy of the object.

    Raises:
        ConfigError: settings are wrong.
    """

    _runs: Rollouts | None = None

    def _checked(self, table: Mapping[str, Any]) -> Settings:
        settings = super()._checked(table)
        check_train(settings)
        return settings

    async def abuild(
        self,
        questions: Questions | None = None,
        *,
        bad_rows: Literal["stop", "skip"] = "stop",
        allow_change: bool = False,
        retry_failed: bool = False,
        datasets: bool = True,
        watch: Watch | None = None,
    ) -> RunStatus:
        """Generate, assess and select: make the run, or continue it where it stopped. Returns the run's status.

        `questions` may be left out where the run has its questions already. `watch` is shown how the build stands,
        twice a second, on the loop that builds; what it raises stops the build, which can be resumed.

        Raises:
            InputError, ConfigError, PluginError: nothing was started.
            StopRun: stopped and resumable (key, quota, budget, disk, held by another process, interrupted).
        """
        watch = checked_watch(watch)
        general = None
        if datasets:
            RoleFactory(self._registry, self.settings).check_agents()
            # What is wrong with the sets is said before they are paid for.
            general = await asyncio.to_thread(check_sets, self.settings)
        async with self._resumed(questions, watch, bad_rows, allow=allow_change, retry=retry_failed) as session:
            await self._built(session, watch)
            if datasets:
                watch(session.snapshot("datasets"))
                write = partial(write_datasets, self.folder, self.settings, self._raise_if_stopped, general=general)
                await asyncio.to_thread(write)
            watch(session.snapshot("done"))
            return await session.database.do(read_status)

    build: Final = blocking_twin(abuild)

    async def apilot(
        self,
        questions: Questions | None = None,
        size: int = 50,
        *,
        bad_rows: Literal["stop", "skip"] = "stop",
        allow_change: bool = False,
        watch: Watch | None = None,
    ) -> PilotReport:
        """Do a sample of `size` questions, spread over the file by the seed, and say what the whole will take.

        The judges are asked some more about the sample, to see how far they can be trusted. `abuild` continues with
        the rest and pays for nothing again; neither does the same pilot. No datasets are written.

        Raises:
            InputError, ConfigError, PluginError: nothing was started.
            StopRun: stopped and resumable, as `abuild`.
        """
        if size < 1:
            raise ConfigError(f"a pilot of {size} questions: take at least 1, and 2 for an interval")
        watch = checked_watch(watch)
        async with self._resumed(questions, watch, bad_rows, allow=allow_change) as session:
            seqs = await session.database.do(partial(sample, size=size, seed=self.settings.seed))
            todo = await session.database.do(partial(pending, after=0, limit=len(seqs), among=seqs))
            session.tally.total = session.tally.done + len(todo)
            await self._built(session, watch, seqs)
            audit = JudgeAudit(self.settings, session, seqs)
            await self._work(session, watch, audit, "auditing")
            watch(session.snapshot("done"))
            sampled = await session.database.do(partial(read_sampled, seqs=seqs))
            return report_on(self.settings, session, sampled, audit)

    pilot: Final = blocking_twin(apilot)

    async def atrain(
        self, *, allow_change: bool = False, watch: Watch | None = None, tell: Tell | None = None
    ) -> TrainingResult:
        """Train what `[train]` says on the run, or continue where that stopped.

        Returns the recipe, its stages with their facts (see `runs.stage_facts`), and the folders of the agents.

        Raises:
            InputError, ConfigError, PluginError, MissingExtra: nothing was started, or there is nothing to train on.
            RunChanged: what was trained before was trained with something else, and `allow_change` is False.
            StopRun: stopped and resumable (budget, disk, held by another process, interrupted).
        """
        for package in ("torch", "transformers", "trl", "peft", "accelerate", "datasets"):
            require(package, "train")
        if not (self.folder / DATABASE).is_file():
            raise InputError(f"there is no run in {str(self.folder)!r}; make one with: insightv build")
        lock = RunLock(self.folder)
        lock.acquire()
        self._interrupted = None
        try:
            plan = await asyncio.to_thread(partial(plan_of, self.settings, self.folder, self._registry))
            heldout = None if plan.heldout is None else await asyncio.to_thread(partial(_digests, plan.heldout))
            runs = Rollouts(self.folder, self.settings, self._registry, self._objects, heldout, watch, allow_change)
            self._runs = runs
            self._raise_if_stopped()
            with run_log(self.folder / LOG), Ledger(self.folder / DATABASE) as ledger:
                training = Training(plan, runs, ledger, tell or _untold)
                training.refuse_changes()
                write_settings(self._as_built(), self.folder / CONFIG, origin_of(None, self.folder / CONFIG))
                keep_own(self.folder, self.settings, self._source)
                return await training.run()
        finally:
            self._runs = None
            lock.release()

    train: Final = blocking_twin(atrain)

    def _keep_settings(self) -> None:
        super()._keep_settings()
        keep_own(self.folder, self.settings, self._source)

    def _as_built(self) -> Settings:
        """The settings to keep: those of the training, but what the run was built with stays as it was built."""
        kept = self.folder / CONFIG
        if not kept.is_file():
            return self.settings
        built = load_settings(kept)
        return self.settings.model_copy(update={name: getattr(built, name) for name in _BUILT})

    def interrupt(self, signal_number: int = 2) -> None:
        """Stop a build or training: no further call is begun, calls in flight are recorded. Any thread may ask."""
        super().interrupt(signal_number)
        if self._runs is not None:
            self._runs.interrupt(signal_number)


def _digests(file: QuestionFile) -> frozenset[str]:
    return frozenset(digest for _, digest in file.items())


def _untold(event: str, stage: Entry) -> None:
    """Nobody listens."""
