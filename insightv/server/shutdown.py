"""How the server ends: the signals it takes, and what questions that are still at work then are told."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from insightv.server.errors import unavailable

T = TypeVar("T")


class Stop:
    """Once `now` is called, all that waits in `unless` ends with an error, and so does all that begins to."""

    def __init__(self) -> None:
        self.called: bool = False
        self._waits: set[asyncio.Timeout] = set()

    def now(self) -> None:
        """Stop; from the loop's own thread."""
        if not self.called:
            self.called = True
            moment = asyncio.get_running_loop().time()
            for wait in self._waits:
                wait.reschedule(moment)

    async def unless(self, work: Awaitable[T]) -> T:
        """The result of `work`.

        Raises:
            ApiError: 503, it was stopped before.
        """
        try:
            async with asyncio.timeout(0 if self.called else None) as wait:
                self._waits.add(wait)
                try:
                    return await work
                finally:
                    self._waits.discard(wait)
        except TimeoutError:
            if wait.expired():
                raise unavailable("the server is being stopped; ask again when it is back") from None
            raise


class Signals:
    """SIGINT and SIGTERM, taken on the running loop: the first calls `act`, a second one ends the process at once."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act
        self.number = 0
        """The first that came; 0 as long as there is none."""

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take them until the block ends."""
        loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self._came, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _came(self, number: int) -> None:
        if self.number:
            os._exit(128 + number)
        self.number = number
        self.act()
