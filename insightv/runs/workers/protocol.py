"""Workers as a run sees them: what holds them, how one is reached, and whose turn it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol


class Lost(Exception):
    """A worker is gone, or out of reach; what it was asked may have been done or not."""


class WorkerHandle(Protocol):
    """A worker as it is reached from here."""

    async def call(self, method: str, *args: Any) -> Any:
        """What a method of `worker.Worker` returns; waits until the worker has a place and has begun.

        Raises:
            Lost: the worker is gone.
            ConfigError: the worker cannot even begin.
        """

    def dismiss(self) -> None:
        """End the worker, if it still lives."""


class Cluster(Protocol):
    """Machines that have room for workers.

    `table` is its place in the settings, `cure` says why workers may not be ready. `blames_calls`: a worker that is
    lost was likely brought down by one of its calls; they are asked again one at a time, and the second loss ends one.
    `close_s` is how long a worker has to let go of its models.
    """

    table: str
    cure: str
    blames_calls: bool
    close_s: float

    def connect(self) -> tuple[int, int]:
        """The number of workers that a run is to have, and how many of them have room. Blocks.

        Raises:
            ConfigError: there is no such cluster, or it has no room at all.
        """

    def start(self) -> WorkerHandle:
        """A new worker."""

    def close(self) -> None:
        """Leave the cluster. Blocks."""


@dataclass(eq=False)
class Member:
    """A worker whose models are ready."""

    number: int
    hand: WorkerHandle
    host: str
    in_flight: int = 0
    alone: int = 0
    answered: bool = False
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def turn(self, alone: bool) -> AsyncIterator[None]:
        """The time of a call here. One that is to be `alone` waits for those in flight; no other begins meanwhile."""
        self.alone += alone
        try:
            await self._until((lambda: not self.in_flight) if alone else (lambda: not self.alone))
            self.in_flight += 1
            try:
                yield
            finally:
                self.in_flight -= 1
        finally:
            self.alone -= alone
            self._tell()

    async def _until(self, free: Callable[[], bool]) -> None:
        while not free() and not self.lost.is_set():
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def lose(self) -> None:
        """Nobody is to wait for it any more."""
        self.lost.set()
        self._tell()
