"""What one build of a run holds while it runs: database, journaled models, roles, budget, the numbers to show."""

from __future__ import annotations

import asyncio
import copy
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from insightv.config.factories import ModelSpec
from insightv.config.roles import Assembly, Part, RoleFactory
from insightv.config.sections import RunSection
from insightv.config.settings import OBJECT, Settings
from insightv.errors import ConfigError, require
from insightv.inputs.image_store import ImageStore
from insightv.interfaces import ChatModel, Generator, Scorer
from insightv.plugin_guard import closed, declared_models, described, held, within
from insightv.plugins import Registry
from insightv.records import Band, ReasoningPath
from insightv.runs.budget import Budget
from insightv.runs.database import Database
from insightv.runs.job_ledger import RunJobLedger
from insightv.runs.journal import Journal, JournaledModel
from insightv.runs.limiter import CallLimiter, StopSwitch
from insightv.runs.question_opener import QuestionOpener
from insightv.runs.reader import DATABASE, IMAGES
from insightv.runs.schema import TOTALS, open_database
from insightv.runs.status import RunStatus
from insightv.runs.store import read_totals, sums_statements

if TYPE_CHECKING:
    from insightv.runs.workers.pool import WorkerPool

T = TypeVar("T")
_TICK_S = 0.5
_ELAPSED_EVERY_S = 5.0


@dataclass
class Tally:
    """What the run holds so far, for showing: the same numbers as `RunReader.status` has for finished questions."""

    total: int = 0
    done: int = 0
    paths: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("ok", "rejected", "failed"), 0))
    bands: dict[str, int] = field(default_factory=lambda: dict.fromkeys((band.value for band in Band), 0))

    def count(self, paths: Sequence[ReasoningPath], bands: dict[int, Band]) -> None:
        """Count a finished question."""
        self.done += 1
        for path in paths:
            self.paths[path.status] += 1
        for band in bands.values():
            self.bands[band.value] += 1


@dataclass(frozen=True)
class Snapshot:
    """How a build stands, for showing; `phase` is checking, building, auditing, datasets or done."""

    phase: str
    tally: Tally
    requests: int = 0
    tokens: int = 0
    usd: float = 0.0
    in_flight: int = 0
    elapsed_s: float = 0.0


Watch = Callable[[Snapshot], None]


class Session:
    """A build's parts. Making one builds the roles and touches no disk; `open` opens the run's database.

    `objects` are roles given as objects, by their place in the settings. `folder` is the run's.

    Raises:
        ConfigError, PluginError, MissingExtra: a role cannot be built.
    """

    database: Database
    budget: Budget
    opener: QuestionOpener

    def __init__(
        self, settings: Settings, registry: Registry, objects: Mapping[str, object], folder: Path | None = None
    ) -> None:
        self._settings = settings
        self._objects = objects
        self._wrapped: list[JournaledModel] = []
        self._gate = CallLimiter(settings.run.concurrency)
        self.switch = StopSwitch(self._gate)
        self.journal = Journal(self._gate, self.switch)
        self._pool = _pool(settings.run)
        place = self._pool.model if self._pool else ModelSpec.make
        self.workshop = RoleFactory(registry, settings, self._journaled, None if self._pool else folder, place)
        self.generator: Part[Generator] = self._part("generator", settings.generator.use, self.workshop.generator)
        self.scorers: list[Part[Scorer]] = [
            self._part(f"scorers.{i}", table.use, partial(self.workshop.scorer, table))
            for i, table in enumerate(settings.scorers)
        ]
        self.tally = Tally()
        self._elapsed_before = 0.0
        self._setbacks: Counter[str] = Counter()
        self._began = self._kept = time.monotonic()

    async def check(self) -> None:
        """Look whether every model can be asked; raises ConfigError as `ChatModel.check`."""
        await asyncio.gather(*(model.check() for model in self._wrapped))

    def open(self, folder: Path) -> None:
        """Open the run's database, made if it is not there, and put the models into its journal.

        Raises:
            ConfigError: money is limited and a model has no price.
            StorageFull: the folder cannot be written.
        """
        Budget(self._settings.run, dict.fromkeys(TOTALS, 0.0)).check_prices({model.name for model in self._wrapped})
        self.database = open_database(folder / DATABASE, self.switch.stop)
        totals = self.database.submit(read_totals).result()
        self.budget = Budget(self._settings.run, totals)
        self.journal.open(self.database, self.budget)
        for model in self._wrapped:
            if model.jobs is not None:
                model.jobs.keep_jobs(RunJobLedger(self.database, self.switch))
        self.opener = QuestionOpener(self.database, ImageStore(folder / IMAGES), self._settings.images)
        self._elapsed_before = totals["elapsed_s"]
        self._began = self._kept = time.monotonic()

    def begin(self, status: RunStatus) -> None:
        """Take the numbers of the run as it stands."""
        self.tally.total, self.tally.done = status.questions.total, status.questions.done
        self.tally.paths = {"ok": status.paths.ok, "rejected": status.paths.rejected, "failed": status.paths.failed}
        self.tally.bands = dict(status.bands)
        self.journal.answered = self.tally.paths["ok"] + self.tally.paths["rejected"] > 0

    @property
    def price_shares(self) -> dict[str, float]:
        """The part of the listed price that calls of each model cost; the larger where it is asked in two ways."""
        shares: dict[str, float] = {}
        for model in self._wrapped:
            shares[model.name] = max(model.price_share, shares.get(model.name, 0.0))
        return shares

    @property
    def sends_jobs(self) -> bool:
        """Whether some calls go out as jobs, whose time nobody can foresee."""
        return any(model.jobs is not None for model in self._wrapped)

    def _journaled(self, model: ChatModel, deadline_s: float | None) -> ChatModel:
        wrapped = JournaledModel(model, self.journal, deadline_s)
        self._wrapped.append(wrapped)
        return wrapped

    def _part(self, place: str, use: str, build: Callable[[], Part[T]]) -> Part[T]:
        given: Any = self._objects.get(place)
        if isinstance(given, Assembly):
            return Part(given.make(self.workshop), None, self._settings.run.deadline_s)
        if given is not None:
            return Part(self._adopted(given), None, self._settings.run.deadline_s)
        if use.startswith(OBJECT):
            name = use.removeprefix(OBJECT)
            raise ConfigError(f"{place} of this run was an object of {name}; give such an object to Pipeline again")
        return build()

    def _adopted(self, thing: Any, depth: int = 4) -> Any:
        """A thing whose ChatModels are in the journal: it, or a copy where it is one, or has some in it."""
        if isinstance(thing, ChatModel):
            return self._journaled(thing, self._settings.run.deadline_s)
        if (declared := declared_models(thing)) is not None:
            deadline_s = self._settings.run.deadline_s
            return thing.with_models({name: self._journaled(one, deadline_s) for name, one in declared.items()})
        if not depth:
            return thing
        parts = held(thing)
        adopted = {name: self._adopted(value, depth - 1) if within(value) else value for name, value in parts.items()}
        _refuse_hidden(thing, parts)
        if all(adopted[name] is value for name, value in parts.items()):
            return thing
        if type(thing) in (list, tuple):
            return type(thing)(adopted.values())
        if type(thing) is dict:
            return adopted
        own = copy.copy(thing)
        for name, value in adopted.items():
            if value is not parts[name]:
                object.__setattr__(own, name, value)
        return own

    def snapshot(self, phase: str) -> Snapshot:
        """The build as it stands."""
        elapsed = self._elapsed_before + time.monotonic() - self._began
        budget = self.budget
        return Snapshot(phase, self.tally, budget.requests, budget.tokens, budget.usd, budget.in_flight, elapsed)

    async def tick(self, watch: Watch, phase: str) -> None:
        """Show the build to `watch` and keep its running sums, until cancelled."""
        while True:
            try:
                watch(self.snapshot(phase))
            except Exception as error:  # the caller's own: it ends the build, which raises it
                self.switch.stop(error)
                return
            if time.monotonic() - self._kept >= _ELAPSED_EVERY_S:
                await self.keep_sums()
            await asyncio.sleep(_TICK_S)

    async def keep_sums(self) -> None:
        """Add the seconds and the setbacks since the last time to the run's totals."""
        now = time.monotonic()
        passed, self._kept = now - self._kept, now
        setbacks: Counter[str] = Counter()
        for model in {id(wrapped.model): wrapped.model for wrapped in self._wrapped}.values():
            setbacks.update(model.setbacks)
        fresh, self._setbacks = setbacks - self._setbacks, setbacks
        await self.database.write(sums_statements(passed, fresh))

    async def aclose(self) -> None:
        """Close models and database."""
        await asyncio.gather(*(closed([model]) for model in self.workshop.models))
        if self._pool is not None:
            await self._pool.aclose()
        if hasattr(self, "database"):  # it was opened
            await asyncio.to_thread(self.database.close)


def _refuse_hidden(thing: object, parts: Mapping[Any, object]) -> None:
    """Refuse a part whose model is in an object of its own, where the journal would not see it."""
    for name, value in parts.items():
        plain = value is None or isinstance(value, str | bytes | int | float | type)
        if not plain and not within(value) and any(isinstance(one, ChatModel) for one in held(value).values()):
            raise ConfigError(
                f"{described(thing)} holds a model within its {name}, where its calls are not recorded; hold it as "
                "an attribute, or say so by `models` and `with_models` (see insightv.interfaces)"
            )


def _pool(section: RunSection) -> WorkerPool | None:
    """The workers of a run whose models are held elsewhere; None where this process holds them."""
    if section.executor == "local":
        return None
    if section.executor == "ray":
        require("ray", "ray")
    from insightv.runs.workers.pool import WorkerPool

    if section.executor == "process":
        from insightv.runs.workers.processes import LocalProcesses

        return WorkerPool(LocalProcesses(section.process), section.process)
    from insightv.runs.workers.ray_actors import RayCluster

    return WorkerPool(RayCluster(section.ray, section.concurrency), section.ray)
