"""Waiting between two tries of a call, which ends at once where whoever asks wants no further try.

A wait may be hours (a parked server); nothing is in flight in it, so nothing paid is lost by leaving it.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

from insightv.errors import StopRun

no_more_tries: ContextVar[asyncio.Event | None] = ContextVar("insightv_no_more_tries", default=None)
"""Set, in the context of each call, by whoever may be told to stop; None: nobody is."""


class NotTriedAgain(StopRun):
    """The run was told to stop while a call waited for its next try."""


async def pause(seconds: float) -> None:
    """Sleep.

    Raises:
        NotTriedAgain: no further try is wanted.
    """
    stop = no_more_tries.get()
    if stop is None:
        await asyncio.sleep(seconds)
        return
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
    raise NotTriedAgain("the run was told to stop before the call was tried again")
