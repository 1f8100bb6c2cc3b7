"""Blocking calls of async code: one background loop per process, so that they work in a notebook as well."""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import aclosing, suppress
from functools import cache, wraps
from queue import SimpleQueue
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from insightv.errors import InsightvError

S = TypeVar("S")
P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")
_THREAD = "insightv-loop"
_starting = threading.Lock()


def _background_loop() -> asyncio.AbstractEventLoop:
    with _starting:  # two threads that come at once must not get one each
        return _started_loop()


@cache
def _started_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=_turn, args=[loop], name=_THREAD, daemon=True).start()
    return loop


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    while True:
        # asyncio lets these two out of the loop as well; the task that raised them has them, and whoever waits for it.
        with suppress(SystemExit, KeyboardInterrupt):
            loop.run_forever()


def _start_anew() -> None:
    """For a forked process: it has the loop of its parent, but not the thread that turns it."""
    global _starting
    _starting = threading.Lock()
    _started_loop.cache_clear()


os.register_at_fork(after_in_child=_start_anew)


def _in_background() -> bool:
    return threading.current_thread().name == _THREAD


class _Begun(Generic[T]):
    """A coroutine on the background loop; `then` is called there when it has ended, however it did."""

    def __init__(self, work: Coroutine[Any, Any, T], then: Callable[[], None]) -> None:
        if _in_background():
            work.close()
            raise InsightvError("a blocking call from inside insightv's own loop would never return; await the a-twin")
        self._loop = _background_loop()
        self._work, self._then = work, then
        self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._work)
        self._task.add_done_callback(lambda _: self._then())

    def cancel(self) -> None:
        """End it; that may take a while."""
        self._loop.call_soon_threadsafe(lambda: self._task.cancel())

    def result(self) -> T:
        """What it came to, once it has ended."""
        return self._task.result()


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


def blocking_stream(pieces: AsyncGenerator[T, None]) -> Generator[T, None, None]:
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
            # In a cycle it is collected wherever that is seen to: waiting in the loop's own thread would never end.
            while not _in_background() and told.get() is not None:
                """A piece that nobody wants any more."""


def blocking_twin(method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[S, P], T]:
    """The blocking twin of an async method, to stand in the same class; works inside a notebook too."""

    @wraps(method)
    def twin(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        real: Callable[P, Coroutine[Any, Any, T]] = getattr(self, method.__name__)  # that of a subclass, if it has one
        return blocking(real(*args, **kwargs))

    return _named_as_twin(twin, method)


def blocking_stream_twin(
    method: Callable[Concatenate[S, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[S, P], Generator[T, None, None]]:
    """The blocking twin of an async generator method, as `blocking_twin`; leaving it early ends the calls in flight."""

    @wraps(method)
    def twin(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        real: Callable[P, AsyncGenerator[T, None]] = getattr(self, method.__name__)
        return blocking_stream(real(*args, **kwargs))

    return _named_as_twin(twin, method)


def _named_as_twin(twin: F, method: Callable[..., object]) -> F:
    twin.__name__ = method.__name__.removeprefix("a")
    twin.__qualname__ = method.__qualname__.replace(method.__name__, twin.__name__)
    twin.__doc__ = f"`{method.__name__}`, blocking; works inside a notebook too.\n\n{method.__doc__ or ''}"
    return twin


class _Late(BaseException):
    """Raised within work that takes too long; no `except Exception` of a library's keeps it."""


def in_time(work: Callable[[], T], most_s: float) -> T:
    """Do `work`, which is Python alone, in a thread of its own that is ended after `most_s` seconds, or by Ctrl-C here.

    Raises:
        TimeoutError: it took longer.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # whoever waits has it
            done.set_exception(error)

    thread = threading.Thread(target=run, name="insightv-in-time", daemon=True)
    thread.start()
    try:
        return done.result(most_s)
    finally:
        if not done.done() and thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_Late))


async def all_of(jobs: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of jobs that run at once; the first error ends the others before it is raised as it is."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await end_all(tasks)


async def end_all(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
