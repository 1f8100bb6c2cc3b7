"""`RunBuilder`: the roles wired to one run, and its building. Order, resume, durability; knows no prompt and no model.

`Pipeline` is a RunBuilder that also trains; an evaluation and a round of training build runs of their own with it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from insightv.atomic_files import CreatedFiles
from insightv.config.file import write_settings
from insightv.config.identity import object_identity, role_identity
from insightv.config.plugin_loading import default_registry
from insightv.config.roles import Assembly, RoleFactory, given_tables
from insightv.config.settings import Settings, check_settings
from insightv.config.trust import settings_for
from insightv.errors import ConfigError, InputError, InsightvError, Interrupted, StopRun, StorageFull
from insightv.inputs.image_store import ImageStore
from insightv.inputs.plain_file import refuse_strange
from insightv.interfaces import Generator, PreferenceTrainer, ReasoningAgent, Scorer, SummaryAgent
from insightv.plugins import Registry
from insightv.records import Question
from insightv.runs import ingest
from insightv.runs.host_limits import calls_that_fit, check_space
from insightv.runs.limiter import StopSwitch
from insightv.runs.lock import RunLock
from insightv.runs.log import run_log
from insightv.runs.loop_watchdog import blockers_named
from insightv.runs.question_loop import QuestionLoop
from insightv.runs.reader import CONFIG, DATABASE, IMAGES, LOG, load_run
from insightv.runs.session import Session, Snapshot, Tally, Watch
from insightv.runs.status import RunStatus, read_status

log = logging.getLogger("insightv")
_WARNINGS = 20
Questions = str | Path | Iterable[Question | dict[str, Any]]


class Work(Protocol):
    """What asks models about the questions of a run; it can be stopped between two calls."""

    async def run(self) -> None:
        """Do it all."""

    async def wind_up(self) -> None:
        """End what is in flight."""


class RunBuilder:
    """The roles and the folder of a run, as in `Pipeline`. Raises ConfigError where settings are wrong."""

    _source: Path | None

    def __init__(
        self,
        *,
        run: str | Path,
        generator: Generator | Assembly[Generator] | str | Mapping[str, Any] | None = None,
        scorers: Sequence[Scorer | str | Mapping[str, Any]] | None = None,
        reasoning_agent: ReasoningAgent | str | Mapping[str, Any] | None = None,
        summary_agent: SummaryAgent | str | Mapping[str, Any] | None = None,
        trainer: PreferenceTrainer | str | Mapping[str, Any] | None = None,
        settings: Settings | Mapping[str, Any] | None = None,
        registry: Registry | None = None,
    ) -> None:
        self.folder: Path = Path(run).absolute()
        self._registry = registry or default_registry()
        self._objects: dict[str, object] = {}
        agents = {"reasoning_agent": reasoning_agent, "summary_agent": summary_agent}
        roles = {"generator": generator, "scorers": scorers, **agents, "trainer": trainer}
        table = given_tables(settings, roles, self._objects, self._registry)
        self.settings: Settings = self._checked(table)
        RoleFactory(self._registry, self.settings).check_options()
        for part in self._objects.values():
            if isinstance(part, Generator | Scorer):
                object_identity(part)  # one that cannot be compared is refused before anything is started
        self._origin, self._source = "", None
        self._switch: StopSwitch | None = None
        self._interrupted: Interrupted | None = None

    def _checked(self, table: Mapping[str, Any]) -> Settings:
        return check_settings(table)

    @classmethod
    def from_config(
        cls,
        path: str | Path | None = None,
        *,
        run: str | Path,
        changes: Iterable[str] = (),
        registry: Registry | None = None,
        trust: bool = False,
        own: bool = True,
    ) -> Self:
        """One from a TOML file; without one, from the `config.toml` that the run was made with.

        `changes` are `section.key=value` texts on top. `trust` consents to what settings in the run's folder start,
        send and open, where somebody else made it. `own`: the file is the caller's, not one that only the folder names.
        Raises ConfigError, also where there is no consent.
        """
        given = settings_for(Path(run) / CONFIG, path, changes, trust=trust, own=own)
        made = cls(run=run, settings=given.settings, registry=registry)
        made._origin, made._source = given.origin, given.source
        return made

    async def abuild(
        self,
        questions: Questions | None = None,
        *,
        bad_rows: Literal["stop", "skip"] = "stop",
        allow_change: bool = False,
        retry_failed: bool = False,
        watch: Watch | None = None,
    ) -> RunStatus:
        """Generate and assess, as `Pipeline.abuild` does, without data sets. Returns the run's status."""
        watch = checked_watch(watch)
        async with self._resumed(questions, watch, bad_rows, allow=allow_change, retry=retry_failed) as session:
            await self._built(session, watch)
            watch(session.snapshot("done"))
            return await session.database.do(read_status)

    @asynccontextmanager
    async def _resumed(
        self,
        questions: Questions | None,
        watch: Watch,
        bad_rows: Literal["stop", "skip"],
        *,
        allow: bool,
        retry: bool = False,
    ) -> AsyncIterator[Session]:
        """The run, begun or resumed: held and open, its questions taken in, its settings compared and written."""
        self._interrupted = None
        if bad_rows not in ("stop", "skip"):
            raise ConfigError(f'bad_rows is {bad_rows!r}; it is "stop" or "skip"')
        if questions is None and not (self.folder / DATABASE).is_file():
            refuse_strange(self.folder / DATABASE)
            raise InputError(f"{self.folder} has no questions yet; give a questions file")
        created = CreatedFiles()
        async with self._session(created) as session:
            intake = None
            if questions is not None:
                watch(Snapshot("checking", Tally()))
                store = ImageStore(self.folder / IMAGES, created.add)
                read = partial(ingest.read_intake, questions, self.settings, bad_rows, store, self._raise_if_stopped)
                intake = await asyncio.to_thread(read)
                _warn(intake.source.warnings)
            await session.switch.heard_by(session.check())
            if session.switch.error is not None:
                raise session.switch.error
            await asyncio.to_thread(session.open, self.folder)
            identity = self._identity(session)
            prepare = partial(ingest.prepare, identity=identity, intake=intake, allow=allow, retry=retry)
            session.begin(await session.database.do(prepare))
            left = session.tally.total - session.tally.done
            check_space(self.folder, left * self.settings.generator.paths)
            self._keep_settings()
            yield session

    def _keep_settings(self) -> None:
        """Write the settings into the run's folder."""
        write_settings(self.settings, self.folder / CONFIG, self._origin)

    async def _built(self, session: Session, watch: Watch, among: Sequence[int] | None = None) -> None:
        """Every question has its outcome, or every one of those in `among`."""
        log.info("build began: %d of %d questions done", session.tally.done, session.tally.total)
        names = [table.use for table in self.settings.scorers]
        await self._work(session, watch, QuestionLoop(self.settings, session, names, among))
        unfinished = session.tally.total - session.tally.done
        if unfinished:
            raise InsightvError(f"{unfinished} questions have no outcome although the build has ended; resume it")
        log.info("build done")

    def interrupt(self, signal_number: int = 2) -> None:
        """Stop a build: no further call is begun, calls in flight are recorded. Any thread may ask."""
        self._interrupted = Interrupted(signal_number)
        if self._switch is not None:
            self._switch.stop(self._interrupted)

    def _raise_if_stopped(self, _: int = 0) -> None:
        """Raise Interrupted where `interrupt` was called; long work outside the loop asks this."""
        if self._interrupted is not None:
            raise self._interrupted

    def status(self) -> RunStatus:
        """`astatus`, blocking."""
        with load_run(self.folder) as run:
            return run.status()

    async def astatus(self) -> RunStatus:
        """The run's counts and sums."""
        return await asyncio.to_thread(self.status)

    @asynccontextmanager
    async def _session(self, created: CreatedFiles) -> AsyncIterator[Session]:
        """The run's folder, held, with the roles built; everything is let go of at the end.

        Where no run was begun, what is `created` on the way is removed again, and nothing else.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True)
            created.add(self.folder)
        except (FileExistsError, NotADirectoryError) as error:
            if not self.folder.is_dir():  # asked after, since another build may have just made it
                raise InputError(
                    f"{self.folder} cannot be a run's folder: a file is in its place; name another"
                ) from error
        except OSError as error:
            raise StorageFull.of(self.folder, error) from error
        lock = RunLock(self.folder, created)
        lock.acquire()
        try:
            with run_log(self.folder / LOG, created):
                run = self.settings.run
                fitting = run.model_copy(update={"concurrency": calls_that_fit(run.concurrency)})
                settings = self.settings.model_copy(update={"run": fitting})
                session = Session(settings, self._registry, self._objects, self.folder)
                self._switch = session.switch
                try:
                    yield session
                finally:
                    self._switch = None
                    await session.aclose()
        finally:
            if not (self.folder / DATABASE).exists():
                created.remove_all()  # while the lock is held: nobody else has begun in the folder
            lock.release()

    def _identity(self, session: Session) -> dict[str, Any]:
        settings = self.settings
        scorers = zip(session.scorers, settings.scorers, strict=True)
        return {
            "seed": settings.seed,
            "generator": role_identity(session.generator, settings.generator, self._objects.get("generator")),
            "scorers": {
                str(i): role_identity(part, table, self._objects.get(f"scorers.{i}"))
                for i, (part, table) in enumerate(scorers)
            },
            "bands": settings.bands.model_dump(),
            "images": {"max_pixels": settings.images.max_pixels},
        }

    async def _work(self, session: Session, watch: Watch, work: Work, phase: str = "building") -> None:
        ticker = asyncio.create_task(session.tick(watch, phase))
        try:
            with session.database.patiently():
                async with blockers_named():
                    await work.run()
        except asyncio.CancelledError:
            session.switch.stop(Interrupted())
            await work.wind_up()
            raise
        finally:
            ticker.cancel()
            await asyncio.gather(ticker, return_exceptions=True)
            try:
                await session.keep_sums()
            except StopRun:  # of some seconds only: what the run was stopped by counts
                if session.switch.error is None:
                    raise
        if session.switch.error is not None:
            log.info("build stopped: %s: %s", type(session.switch.error).__name__, session.switch.error)
            raise session.switch.error


def _unwatched(snapshot: Snapshot) -> None:
    """Nobody watches."""


def checked_watch(watch: Watch | None) -> Watch:
    """The function that is shown how a build stands; one that does nothing where none is given.

    Raises:
        ConfigError: it is an async function.
    """
    if inspect.iscoroutinefunction(watch):
        raise ConfigError("watch is an async function; give a plain one, which may start tasks")
    return watch or _unwatched


def _warn(warnings: Sequence[str]) -> None:
    """Say what was done about rows that can be used but are not as they should be."""
    for warning in warnings[:_WARNINGS]:
        log.warning(warning)
    if len(warnings) > _WARNINGS:
        log.warning("... and %d more of the kind", len(warnings) - _WARNINGS)
