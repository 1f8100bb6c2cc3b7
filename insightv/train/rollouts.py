"""Asking a checkpoint: its fresh paths, assessed as the run's own, and its held-out accuracy.

Each is a durable run of its own within the run's folder, so it resumes at the very call; its engine is let go of before
it returns, so that the device is free for training.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import nsmallest
from pathlib import Path
from typing import Any, Protocol, TypeVar

from insightv.agents.adapters import AgentGenerator
from insightv.agents.replies.conclusion import concluded
from insightv.atomic_files import remove
from insightv.backends.model_folder import weights_digest
from insightv.config.roles import Assembly, RoleFactory
from insightv.config.settings import RoleTable, Settings, check_settings
from insightv.errors import Interrupted, RunChanged
from insightv.evaluate.evaluation import Evaluation
from insightv.evaluate.results import RESULT, Result, read_result
from insightv.inputs.image_store import STORED, ImageStore
from insightv.interfaces import Generator, ReasoningAgent
from insightv.plugins import Registry
from insightv.reasoner.checkpoint_agents import trained_table
from insightv.records import Question, ReasoningPath, seed_of
from insightv.runs.builder import RunBuilder
from insightv.runs.reader import IMAGES, RunReader
from insightv.runs.session import Watch
from insightv.runs.status import RunStatus

T = TypeVar("T")


class PolicyPaths(AgentGenerator):
    """Paths of a trained reasoning agent, each with the answer that it comes to by itself."""

    async def generate(self, question: Question, n: int, *, seed: int = 0) -> list[ReasoningPath]:
        """See `AgentGenerator.generate`."""
        return [concluded(path) for path in await super().generate(question, n, seed=seed)]


class _Stoppable(Protocol):
    def interrupt(self, signal_number: int = 2) -> None:
        """Stop."""


@dataclass
class Rollouts:
    """The runs of one training.

    `objects` are the run's roles that were given as objects, by their place; `heldout` the digests of the held-out
    questions, None where there are none.
    """

    folder: Path
    settings: Settings
    registry: Registry
    objects: Mapping[str, object]
    heldout: frozenset[str] | None = None
    watch: Watch | None = None
    allow_change: bool = False
    _current: _Stoppable | None = field(default=None, init=False)
    _stopped: Interrupted | None = field(default=None, init=False)

    def interrupt(self, signal_number: int = 2) -> None:
        """Stop what is being asked; nothing more is begun."""
        self._stopped = Interrupted(signal_number)
        if self._current is not None:
            self._current.interrupt(signal_number)

    def raise_if_stopped(self) -> None:
        """Raise Interrupted where `interrupt` was called."""
        if self._stopped is not None:
            raise self._stopped

    def table(self, table: RoleTable, policy: str, **options: Any) -> RoleTable:
        """An agent's table with the checkpoint (or hub id) as its model, named alike wherever this process stands."""
        train = self.settings.train
        policy = str(Path(policy).absolute()) if Path(policy).is_dir() else policy
        asked = trained_table(table, policy, train.backend, train.backend_options)
        return type(table).model_validate(asked.model_dump(exclude_unset=True) | options)

    async def paths(self, policy: str, out: Path, name: str, n: int) -> RunStatus:
        """Write and assess `n` paths for questions of the run, drawn by `name`, in the run `out`; returns its status.

        Raises:
            RunChanged: `out` holds something else.
            StopRun: stopped and resumable.
        """
        chosen = self.settings.train.generation
        agent = self.table(self.settings.reasoning_agent, policy, temperature=chosen.temperature)
        table = self.settings.model_dump(exclude_unset=True, exclude={"train", "scorers", "questions"})
        own = agent.model_dump(mode="json", exclude={"model", "backend"}, exclude_none=True)
        table["seed"] = seed_of(self.settings.seed, name) % 2**31
        table["generator"] = {"paths": n, "agent": own, "policy": weights_digest(f"policy/{policy}") or policy}
        builder = RunBuilder(
            run=out,
            generator=Assembly("insightv.policy", partial(_paths_of, table=agent)),
            scorers=[self._scorer(place) for place in range(len(self.settings.scorers))],
            settings=check_settings(table),
            registry=self.registry,
        )
        drawn = seed_of(self.settings.seed, name)
        draw = partial(questions_of, self.folder, chosen.questions, drawn, out, self.raise_if_stopped)

        async def build() -> RunStatus:
            questions = await asyncio.to_thread(draw)
            return await self._asked(builder, builder.abuild(questions, watch=self.watch))

        return await self.allowed(build, out)

    async def allowed(self, work: Callable[[], Awaitable[T]], half: Path) -> T:
        """The work; where it starts from something else, and changes are allowed, without what was half done.

        Raises:
            RunChanged: it starts from something else, and changes are not allowed.
        """
        try:
            return await work()
        except RunChanged:
            if not self.allow_change:
                raise
        remove(half)
        return await work()

    async def accuracy(
        self, system: str, reasoning: str | None = None, summary: str | None = None, alone: str | None = None
    ) -> Result | None:
        """The held-out result of a system whose agents are these checkpoints; None without held-out questions.

        A model `alone` takes the generator's place, as systems of one model have it. What failed is tried again.

        Raises:
            StopRun: stopped and resumable.
        """
        settings = self.settings
        if settings.train.heldout is None:
            return None
        agents: dict[str, RoleTable] = {}
        if reasoning is not None:
            agents["reasoning_agent"] = self.table(settings.reasoning_agent, reasoning)
        if summary is not None:
            agents["summary_agent"] = self.table(settings.summary_agent, summary)
        if alone is not None:
            agents["generator"] = self.table(settings.generator, alone)
        evaluation = Evaluation(
            self.folder,
            settings.train.heldout,
            system=system,
            settings=settings.model_copy(update=agents),
            registry=self.registry,
        )
        if (evaluation.folder / RESULT).is_file():  # written last; its name does not say of which pictures
            found = read_result(evaluation.folder)
            if self.heldout is not None and {row.digest for row in found.rows} != self.heldout:
                remove(evaluation.folder)
            elif not any(row.outcome == "failed" for row in found.rows):
                return found
        return await self._asked(evaluation, evaluation.arun(retry_failed=True, watch=self.watch))

    async def _asked(self, stoppable: _Stoppable, work: Coroutine[Any, Any, T]) -> T:
        self._current = stoppable
        try:
            self.raise_if_stopped()
            return await work
        finally:
            self._current = None
            work.close()

    def _scorer(self, place: int) -> Any:
        table = self.settings.scorers[place].model_dump(exclude_unset=True)
        return self.objects.get(f"scorers.{place}", table)


def _paths_of(workshop: RoleFactory, table: RoleTable) -> Generator:
    return PolicyPaths(workshop.agent(table, ReasoningAgent))


def questions_of(
    folder: Path, count: int | None, seed: int, out: Path, raise_if_stopped: Callable[[], None]
) -> Sequence[Question]:
    """`count` questions of a run drawn by the seed (None: all), in the run's order.

    Their pictures are those of the run, byte for byte: named by digest, and kept for the run `out` too.
    `raise_if_stopped` raises where it should stop.

    Raises:
        ImageError: the run has lost a picture, or one was changed.
        StorageFull: `out` cannot be written.
    """
    with RunReader(folder) as run:
        found = [assessed.question for assessed in run.assessed(pictures=False)]
        if count is not None and count < len(found):
            lots = ((seed_of(seed, question.id), place) for place, question in enumerate(found))
            found = [found[place] for place in sorted(place for _, place in nsmallest(count, lots))]
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = ImageStore(out / IMAGES)
        for image in {image: None for question in found for image in question.images}:
            raise_if_stopped()
            store.take(str(image).removeprefix(STORED), run.images)
        return found
