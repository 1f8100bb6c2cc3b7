"""Sending while a client may go: the work of a request ends with its client; one that takes nothing is left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import ExitStack, aclosing, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from insightv.server.response import KEEP_ALIVE

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

T = TypeVar("T")
QUIET_S = 15.0
"""After this long without an event a comment goes out, so that nothing between here and the client gives up."""
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class ClientGone(Exception):
    """The client has closed the connection, or takes nothing."""


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes; the body must have been read.

    Raises:
        ClientGone: it went.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


class EventStream:
    """A response of server-sent events: each piece of `events` is one or more of them, as bytes.

    The client may take `send_s` for each piece. `held` is let go at the end, however that comes.
    """

    def __init__(self, events: AsyncGenerator[bytes, None], send_s: float, held: ExitStack) -> None:
        self._events = events
        self._send_s = send_s
        self._held = held
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, as far as the client takes it."""
        with self._held, suppress(ClientGone):
            async with aclosing(self._events):
                await unless_gone(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        await self._one(send, {"type": "http.response.start", "status": 200, "headers": _HEADERS})
        ping = asyncio.ensure_future(self._ping(send))
        try:
            async for piece in self._events:
                await self._one(send, _body(piece))
                await asyncio.sleep(0)  # many pieces may be there at once: other clients' turn, and to see this one go
            await self._one(send, _body(b"", more=False))
        finally:
            ping.cancel()
            await asyncio.gather(ping, return_exceptions=True)

    async def _one(self, send: Send, message: Message) -> None:
        try:
            async with asyncio.timeout(self._send_s):
                await send(message)
        except TimeoutError:
            raise ClientGone from None
        self._sent_at = time.monotonic()

    async def _ping(self, send: Send) -> None:
        while True:
            await asyncio.sleep(QUIET_S)
            if time.monotonic() - self._sent_at >= QUIET_S:
                await self._one(send, _body(KEEP_ALIVE))


def _body(piece: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": piece, "more_body": more}


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
