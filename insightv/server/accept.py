"""How clients are let in: no more than there are descriptors for, and without a word too much where they run out."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import time
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger("insightv.server")

PAUSE_S = 0.2
"""How long nobody is let in where there is no room."""
QUIET_S = 10.0
"""How long nothing more is said of that."""
AT_ONCE = 16
"""Clients that are let in before it is the turn of those that are in."""
OWN_FILES = 64
"""Descriptors that the server needs beside those of clients and engines."""


def most_connections(concurrency: int) -> int:
    """The connections that leave descriptors for the engines and for the server's own files; half of a few."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, limit // 2, limit - concurrency - OWN_FILES)


class Entrance:
    """Lets clients in at a listening socket, as long as fewer than `most` are; `inside()` counts them.

    asyncio's own loop tries 2048 times a second where there are no descriptors, with a traceback for each.
    """

    def __init__(
        self, bound: socket.socket, protocol: Callable[[], asyncio.Protocol], inside: Callable[[], int], most: int
    ) -> None:
        bound.setblocking(False)
        self._bound = bound
        self._protocol = protocol
        self._inside = inside
        self._most = most
        self._said = float("-inf")
        self._entering: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._let_in())

    async def close(self) -> None:
        """Let in those who are connected already, and then nobody."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        with suppress(OSError):
            while not self._full():
                self._enter(self._bound.accept()[0])
        self._bound.close()
        await asyncio.gather(*self._entering)

    async def _let_in(self) -> None:
        loop, count = asyncio.get_running_loop(), 0
        while True:
            if self._full():
                await self._pause(f"{self._most} are connected, which is the limit; see serve.max_connections")
                continue
            try:
                client, _ = await loop.sock_accept(self._bound)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                await self._pause(f"{error.strerror}; lower serve.max_connections, or raise the limit (ulimit -n)")
                continue
            self._enter(client)
            count += 1
            if not count % AT_ONCE:
                await asyncio.sleep(0)

    def _full(self) -> bool:
        return self._inside() + len(self._entering) >= self._most

    async def _pause(self, why: str) -> None:
        if time.monotonic() - self._said > QUIET_S:
            self._said = time.monotonic()
            log.warning("clients have to wait until others are gone: %s", why)
        await asyncio.sleep(PAUSE_S)

    def _enter(self, client: socket.socket) -> None:
        task = asyncio.create_task(self._connect(client))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _connect(self, client: socket.socket) -> None:
        client.setblocking(False)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, client)
        except OSError as error:  # it has gone already
            log.debug("a client was not let in: %s", error)
            client.close()
