"""`Pipeline`: a run from questions to two trained agents. Building is `RunBuilder`'s; training is added here.

pipeline = Pipeline.from_config("insightv.toml", run="runs/charts")
pipeline.build("questions.jsonl")
pipeline.train()
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from insightv.builder import RunBuilder
from insightv.config import Settings, load_settings
from insightv.doors import twin_of
from insightv.errors import InputError, require
from insightv.ledger import Ledger
from insightv.lock import RunLock
from insightv.policy_runs import PolicyRuns
from insightv.questions import QuestionFile
from insightv.run import CONFIG, DATABASE, LOG
from insightv.runlog import run_log
from insightv.session import Watch
from insightv.settings_file import origin_of, write_settings
from insightv.training import Tell, Training
from insightv.training_plan import plan_of

_BUILT = ("seed", "generator", "scorers", "bands", "images")
"""Sections that say how the paths of a run came about."""


class Pipeline(RunBuilder):
    """The five roles and a run's folder: `build` makes the data, `train` the agents.

    Each role is an object, the name of a registered one, or a table as in the configuration (`use`, `model`, options).
    A ChatModel that is an attribute of an object given here is put into the run's journal, in a copy of the object.

    Raises:
        ConfigError: settings are wrong.
    """

    _runs: PolicyRuns | None = None

    async def atrain(
        self, *, allow_change: bool = False, watch: Watch | None = None, tell: Tell | None = None
    ) -> dict[str, Any]:
        """Train what `[train]` says on the run, or go on where that stopped.

        Returns the recipe, its stages with their facts (see `insightv.ledger`), and the folders of the agents.

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
        try:
            runs = PolicyRuns(self.folder, self.settings, self._registry, self._objects, watch, allow_change)
            self._runs = runs
            plan = await asyncio.to_thread(partial(plan_of, self.settings, self.folder, self._registry))
            if plan.heldout is not None:
                runs.heldout = frozenset(await asyncio.to_thread(partial(_digests, plan.heldout)))
            with run_log(self.folder / LOG), Ledger(self.folder / DATABASE) as ledger:
                training = Training(plan, runs, ledger, tell or _untold)
                training.refuse_changes()
                write_settings(self._as_built(), self.folder / CONFIG, origin_of(None, self.folder / CONFIG))
                return await training.run()
        finally:
            self._runs = None
            lock.release()

    train = twin_of(atrain)

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


def _digests(file: QuestionFile) -> list[str]:
    return [digest for _, digest in file.items()]


def _untold(event: str, facts: Mapping[str, Any]) -> None:
    """Nobody listens."""
