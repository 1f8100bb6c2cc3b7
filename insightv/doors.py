"""The blocking door to async code: one background loop per process, so that it works in a notebook as well."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar, cast

from insightv.errors import InsightvError

T = TypeVar("T")


@cache
def _background_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="insightv-loop", daemon=True).start()
    return loop


async def _whatever_comes(work: Coroutine[Any, Any, T]) -> tuple[Any, BaseException | None]:
    """The result, or the error: one that is no Exception would end the loop, and whoever waits would wait for ever."""
    try:
        return await work, None
    except (SystemExit, KeyboardInterrupt) as error:
        return None, error


def blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the background loop and wait for it.

    An interrupt of the waiting thread cancels it and waits until it has ended; a second one does not wait.

    Raises:
        InsightvError: called from that loop itself, where waiting would never end.
    """
    loop = _background_loop()
    if threading.current_thread().name == "insightv-loop":
        work.close()
        raise InsightvError("a blocking call from inside insightv's own loop would never return; await the a-twin")
    ended, begun = threading.Event(), list[asyncio.Task[tuple[Any, BaseException | None]]]()

    def begin() -> None:
        begun.append(loop.create_task(_whatever_comes(work)))
        begun[0].add_done_callback(lambda _: ended.set())

    loop.call_soon_threadsafe(begin)
    try:
        ended.wait()
    except BaseException:
        loop.call_soon_threadsafe(lambda: begun[0].cancel())
        ended.wait()
        raise
    value, error = begun[0].result()
    if error is not None:
        raise error
    return cast(T, value)
