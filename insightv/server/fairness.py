"""What clients share: places that they take in turn, and the bytes that all their requests may hold."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from threading import Lock
from typing import Any

from insightv.server.errors import ApiError


def client_of(scope: Mapping[str, Any]) -> str:
    """Whose request it is: an address, or of IPv6 the network that one household has. All clients share one key."""
    host = str((scope.get("client") or ("-",))[0])
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return host
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))


class Turns:
    """So many at once. Whoever waits is let in when it is the turn of its client, one of each client after the other.

    Belongs to no event loop, as requests of one application may come from several.
    """

    def __init__(self, places: int) -> None:
        self._places = self._free = places
        self._held: Counter[str] = Counter()
        self._lines: dict[str, deque[Future[None]]] = {}
        """Those who wait, by client; the client whose turn is next comes first."""
        self._lock = Lock()

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Wait for a place, and have it for the block."""
        await self.take(client)
        try:
            yield
        finally:
            self.leave(client)

    async def take(self, client: str) -> None:
        """Wait for a place; it is to be left."""
        with self._lock:
            if self._free and not self._lines:
                self._free -= 1
                self._held[client] += 1
                return
            mine: Future[None] = Future()
            self._lines.setdefault(client, deque()).append(mine)
        try:
            await asyncio.wrap_future(mine)
        except asyncio.CancelledError:
            self._give_up(client, mine)
            raise

    def leave(self, client: str) -> None:
        """Give a place to the next one."""
        with self._lock:
            self._held[client] -= 1
            self._held += Counter()  # drops those who hold none
            while self._lines:
                following = next(iter(self._lines))
                line = self._lines.pop(following)
                theirs = line.popleft()
                if line:
                    self._lines[following] = line
                if theirs.set_running_or_notify_cancel():
                    self._held[following] += 1
                    theirs.set_result(None)
                    return
            self._free += 1

    def may_wait(self, client: str) -> bool:
        """Whether a client has fewer than its share of the places, those included that it waits for; or one is free."""
        with self._lock:
            if self._free and not self._lines:
                return True
            share = max(1, self._places // len({*self._held, *self._lines, client}))
            waiting = sum(map(len, self._lines.values()))
            return waiting < self._places and self._held[client] + len(self._lines.get(client, ())) < share

    def _give_up(self, client: str, mine: Future[None]) -> None:
        with self._lock:
            line = self._lines.get(client, deque())
            if mine in line:
                line.remove(mine)
            if not line:
                self._lines.pop(client, None)
        if mine.done() and not mine.cancelled():  # it was given a place at the same moment
            self.leave(client)


class Bytes:
    """The bytes that requests hold, at most `most` in all, and `most_of_one` of one client.

    They count from when they arrive until pictures are opened, and then as what is kept of them.
    """

    def __init__(self, most: int, most_of_one: int) -> None:
        self.held = 0
        self._by_client: Counter[str] = Counter()
        self._most = most
        self._most_of_one = most_of_one

    def room(self, client: str, count: int) -> None:
        """See that a client may hold so many more.

        Raises:
            ApiError: 429, not at present.
        """
        if self.held + count > self._most or self._by_client[client] + count > self._most_of_one:
            text = "the requests at work hold as many bytes as they may (serve.max_bytes_in_flight); come back later"
            raise ApiError(429, "busy", text, headers={"Retry-After": "5"})

    def change(self, client: str, by: int) -> None:
        """Count them."""
        self.held += by
        self._by_client[client] += by
        if not self._by_client[client]:
            del self._by_client[client]
