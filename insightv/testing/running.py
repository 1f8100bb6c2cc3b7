"""How checks are run: on a loop of their own, with a deadline, watching whether the loop can run anything else."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from insightv.interfaces import ChatModel
from insightv.records import Completion, Message, Record, Sampling, Schema

T = TypeVar("T")
_BEAT_S = 0.01
_ATTEMPTS = 3


class ConformanceError(AssertionError):
    """A part does not keep its contract; the text says what is wrong, the value and the cure."""


@dataclass(frozen=True)
class Limits:
    """Seconds: `timeout_s` for one call, `block_s` for which a call may hold the event loop, `cancel_s` to let go."""

    timeout_s: float = 60.0
    block_s: float = 0.2
    cancel_s: float = 2.0


def run_checks(checks: Coroutine[Any, Any, None], limits: Limits, what: str) -> None:
    """Run checks to their end, in a thread with a loop of its own: a notebook's loop may be running in this one.

    Raises:
        ConformanceError: a check found something, or the checks hold their loop for ten times the deadline of a call.
    """
    found: list[BaseException] = []
    ended = threading.Event()

    async def report() -> None:
        try:
            await checks
        except BaseException as error:  # it is raised again below, in the caller's thread
            found.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=lambda: asyncio.run(report()), name="insightv-testing", daemon=True)
    thread.start()
    if ended.wait(10 * limits.timeout_s):
        thread.join(limits.cancel_s)  # longer only where a task of the part's will not be cancelled
    else:
        raise ConformanceError(
            f"{what} was not back after {10 * limits.timeout_s:g} s and cannot be interrupted: it blocks the event "
            "loop; await, or put blocking work into asyncio.to_thread"
        )
    if found:
        raise found[0]


def made(part: object, role: type[T], model: ChatModel | None) -> T:
    """A part from what the author gave: the part itself, or a factory of it, which gets the model if it takes one."""
    if isinstance(part, role):
        if model is not None:
            raise ConformanceError(
                f"{type(part).__name__} is an object, so model= cannot be put into it; give its class or a function"
            )
        return part
    if not callable(part):
        raise ConformanceError(f"{part!r} is neither a {role.__name__} nor a callable that makes one")
    takes_model = "model" in inspect.signature(part).parameters
    if takes_model and model is None and inspect.signature(part).parameters["model"].default is inspect.Parameter.empty:
        raise ConformanceError(f"{part!r} needs a model; give one, for example model=ScriptedModel('...')")
    if model is not None and not takes_model:
        raise ConformanceError(f"{part!r} has no parameter `model`; leave out model=")
    built = part(model=model) if model is not None else part()
    if not isinstance(built, role):
        raise ConformanceError(
            f"{part!r} made a {type(built).__name__}, which is not a {role.__name__}; "
            f"derive from insightv.{role.__name__}"
        )
    return built


async def called(what: str, call: Callable[[], Awaitable[T]], limits: Limits) -> T:
    """The result of a call that must succeed, in time, without holding the loop.

    A call that held the loop is repeated: only what it does each time counts, not a busy machine or a first import.
    """
    gaps = []
    for _ in range(_ATTEMPTS):
        result, gap = await _watched(what, call, limits)
        gaps.append(gap)
        if gap <= limits.block_s:
            return result
    raise ConformanceError(
        f"{what} held the event loop for {min(gaps):.2f} s each time, so nothing else could run "
        f"(limit {limits.block_s:g} s); await, or put blocking work into asyncio.to_thread"
    )


async def _watched(what: str, call: Callable[[], Awaitable[T]], limits: Limits) -> tuple[T, float]:
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        last = time.monotonic()
        while True:
            await asyncio.sleep(_BEAT_S)
            now = time.monotonic()
            longest, last = max(longest, now - last - _BEAT_S), now

    task = asyncio.create_task(beat())
    await asyncio.sleep(0)
    try:
        result = await _awaited(what, call, limits)
        await asyncio.sleep(2 * _BEAT_S)  # the beat may not have run since the call
    finally:
        task.cancel()
    return result, longest


async def _awaited(what: str, call: Callable[[], Awaitable[T]], limits: Limits) -> T:
    try:
        async with asyncio.timeout(limits.timeout_s) as deadline:
            pending = call()
            if not inspect.isawaitable(pending):
                raise ConformanceError(f"{what} returned a {type(pending).__name__} at once; make it `async def`")
            return await pending
    except ConformanceError:
        raise
    except TimeoutError as error:
        if deadline.expired():
            raise ConformanceError(f"{what} gave no result within {limits.timeout_s:g} s") from error
        raise ConformanceError(f"{what} raised TimeoutError: {error}") from error
    # Whatever a part raises on samples is the finding, sys.exit among it.
    except (Exception, SystemExit) as error:
        raise ConformanceError(f"{what} raised {type(error).__name__}: {error}") from error


async def ends_when_cancelled(what: str, call: Callable[[], Awaitable[Any]], after_s: float, limits: Limits) -> None:
    """Start a call, cancel it after `after_s`, and check that it lets go."""

    async def work() -> Any:
        return await call()

    task = asyncio.create_task(work())
    await asyncio.sleep(after_s)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=limits.cancel_s)
    if not done:
        raise ConformanceError(
            f"{what} went on for more than {limits.cancel_s:g} s after it was cancelled; "
            "let asyncio.CancelledError through"
        )
    if not task.cancelled():
        task.exception()  # a result or an error is an end too


class WatchedModel(ChatModel):
    """The author's model, counting calls; with an `error` set it raises that, with `hang` it never answers."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model
        self.name: str = model.name
        self.calls: int = 0
        self.error: Exception | None = None
        self.hang = False

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        """The model's replies, after a wait that differs from call to call: concurrent calls end out of order."""
        self.calls += 1
        if self.hang:
            await asyncio.Event().wait()
        await asyncio.sleep(0.001 * (3 - self.calls % 4))
        if self.error is not None:
            raise self.error
        return await self._model.chat(messages, sampling, n=n, schema=schema)


def snapshot(*records: Record) -> list[dict[str, Any]]:
    """The contents of records as they are now."""
    return [record.model_dump() for record in records]


def unchanged(what: str, before: list[dict[str, Any]], *records: Record) -> None:
    """Check that records are as they were."""
    for old, record in zip(before, records, strict=True):
        now = record.model_dump()
        changed = sorted(key for key in old | now if old.get(key) != now.get(key))
        if changed:
            raise ConformanceError(
                f"{what} changed its input: {type(record).__name__}.{changed[0]} was {old.get(changed[0])!r:.120} "
                f"and is {now.get(changed[0])!r:.120}; others see the same objects, so copy before changing"
            )
