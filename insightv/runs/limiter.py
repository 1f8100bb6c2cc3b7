"""Who may ask next: at most `limit` calls at a time, the oldest question's first. Knows no model and no journal.

Chains of questions that are open are served before a new question is begun, so a server's prefix cache stays warm and
questions end early. Waiting costs O(log n).
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from itertools import count
from typing import Any


class CallLimiter:
    """Slots for calls, given to the waiter of the lowest priority number, then to the one that came first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._free = limit
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()
        self._closed: BaseException | None = None

    async def acquire(self, priority: int) -> None:
        """Take a slot, or wait for one; give it back with `release`.

        Raises:
            BaseException: what `close` was given.
        """
        if self._closed is not None:
            raise self._closed
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), turn))
        try:
            await turn
        except asyncio.CancelledError:
            # The slot may have been given in the same pass of the loop in which the waiter was cancelled.
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release()
            raise

    def release(self) -> None:
        """Give a slot back, to the next waiter if there is one."""
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def close(self, error: BaseException) -> None:
        """Refuse every waiter, and whoever comes, with `error`; slots in use stay in use."""
        self._closed = error
        for _, _, turn in self._waiting:
            if not turn.done():
                turn.set_exception(error)
        self._waiting.clear()


class StopSwitch:
    """The one place where a run is stopped. The first error counts; `stop` may be called from any thread."""

    def __init__(self, gate: CallLimiter) -> None:
        self.error: BaseException | None = None
        self.thrown = asyncio.Event()
        self._gate = gate
        self._loop = asyncio.get_running_loop()

    def stop(self, error: BaseException) -> None:
        """Let no further call begin; calls in flight continue."""
        self._loop.call_soon_threadsafe(self._stop, error)

    async def heard_by(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`, but cancel what is left of it when the switch is thrown; an error of the work throws it.

        What is waited for (a parked server, a free place) may be hours away; a stop is heard at once.
        """
        working, stopped = asyncio.create_task(work), asyncio.create_task(self.thrown.wait())
        try:
            await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            working.cancel()
            stopped.cancel()
            [done, _] = await asyncio.gather(working, stopped, return_exceptions=True)
        if isinstance(done, Exception):
            self._stop(done)

    def _stop(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error
            self._gate.close(error)
            self.thrown.set()
