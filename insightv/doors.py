"""The blocking doors to async code: one background loop per process, so that they work in a notebook as well."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing
from functools import cache, wraps
from queue import SimpleQueue
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

from insightv.errors import InsightvError

S = TypeVar("S")
P = ParamSpec("P")
T = TypeVar("T")
_THREAD = "insightv-loop"


@cache
def _background_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name=_THREAD, daemon=True).start()
    return loop


async def _whatever_comes(work: Coroutine[Any, Any, T]) -> tuple[Any, BaseException | None]:
    """The result, or the error: one that is no Exception would end the loop, and whoever waits would wait for ever."""
    try:
        return await work, None
    except (SystemExit, KeyboardInterrupt) as error:
        return None, error


class _Begun(Generic[T]):
    """A coroutine on the background loop; `then` is called there when it has ended, however it did."""

    def __init__(self, work: Coroutine[Any, Any, T], then: Callable[[], None]) -> None:
        if threading.current_thread().name == _THREAD:
            work.close()
            raise InsightvError("a blocking call from inside insightv's own loop would never return; await the a-twin")
        self._loop = _background_loop()
        self._work, self._then = work, then
        self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._task = self._loop.create_task(_whatever_comes(self._work))
        self._task.add_done_callback(lambda _: self._then())

    def cancel(self) -> None:
        """End it; that may take a while."""
        self._loop.call_soon_threadsafe(lambda: self._task.cancel())

    def result(self) -> T:
        """What it came to, once it has ended."""
        value, error = self._task.result()
        if error is not None:
            raise error
        return cast(T, value)


def blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the background loop and wait for it.

    An interrupt of the waiting thread cancels it and waits until it has ended; a second one does not wait.

    Raises:
        InsightvError: called from that loop itself, where waiting would never end.
    """
    ended = threading.Event()
    begun = _Begun(work, ended.set)
    try:
        ended.wait()
    except BaseException:
        begun.cancel()
        ended.wait()
        raise
    return begun.result()


def blocking_stream(pieces: AsyncGenerator[T, None]) -> Iterator[T]:
    """What an async generator tells, as it comes, from the background loop; one that is left early is ended there.

    Raises:
        InsightvError: as `blocking`.
    """
    told: SimpleQueue[tuple[T] | None] = SimpleQueue()

    async def tell() -> None:
        async with aclosing(pieces):
            async for piece in pieces:
                told.put((piece,))

    begun, ended = _Begun(tell(), lambda: told.put(None)), False
    try:
        while (piece := told.get()) is not None:
            yield piece[0]
        ended = True
        begun.result()
    finally:
        if not ended:
            begun.cancel()
            while told.get() is not None:
                """A piece that nobody wants any more."""


def twin_of(method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[S, P], T]:
    """The blocking twin of an async method, to stand in the same class; works inside a notebook too."""

    @wraps(method)
    def twin(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        real: Callable[P, Coroutine[Any, Any, T]] = getattr(self, method.__name__)  # that of a subclass, if it has one
        return blocking(real(*args, **kwargs))

    twin.__name__ = method.__name__.removeprefix("a")
    twin.__qualname__ = method.__qualname__.replace(method.__name__, twin.__name__)
    twin.__doc__ = f"`{method.__name__}`, blocking; works inside a notebook too.\n\n{method.__doc__ or ''}"
    return twin
