"""The HTTP seam of the `openai` backend: bytes in, bytes out. It knows no JSON, no retries and no endpoints.

`Transport` is the seam; `HttpTransport` is the lean default. Redirects are not followed (a body with images must
not be posted to another origin), cookies are not kept, and proxies and .netrc of the environment are not used.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from insightv.backends.openai.connection import BrokenReply, Connection, NoConnection, TransportFailure
from insightv.backends.openai.reply_body import CutReply, UnreadableReply, plain_pieces
from insightv.errors import ConfigError

__all__ = [
    "BrokenReply",
    "CutReply",
    "HttpTransport",
    "Incoming",
    "NoConnection",
    "Reply",
    "Transport",
    "TransportFailure",
    "UnreadableReply",
]

CONNECT_TIMEOUT_S = 30.0
KEEP_S = 15.0
"""An idle connection is used again within this time; servers close theirs in the end, maybe in the moment of use."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A reply whose body is still to be read; `headers` is a mapping that ignores case."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that has been read whole; `headers` is a mapping that ignores case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(ABC):
    """Posts a body and hands back what comes, of any status, within a cap on its decompressed size."""

    @abstractmethod
    def open(
        self, url: str, headers: Mapping[str, str], body: Sequence[bytes]
    ) -> AbstractAsyncContextManager[Incoming]:
        """POST the parts of `body`, joined; the connection is given back, or closed, on leaving the context.

        Raises:
            TransportFailure: no whole reply came; also while the chunks are read.
        """

    async def post(self, url: str, headers: Mapping[str, str], body: Sequence[bytes]) -> Reply:
        """The whole reply to one POST.

        Raises:
            TransportFailure: no whole reply came.
        """
        async with self.open(url, headers, body) as incoming:
            return Reply(incoming.status, incoming.headers, b"".join([chunk async for chunk in incoming.chunks]))

    async def aclose(self) -> None:
        """Close all connections; nothing to do by default."""
        return None


class HttpTransport(Transport):
    """Connections that are kept, of each event loop that uses it: a notebook's own, and that of the blocking calls."""

    def __init__(self, *, max_reply_bytes: int) -> None:
        self._max_reply_bytes = max_reply_bytes
        self._targets: dict[tuple[object, ...], _Target] = {}
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}
        self._tls: ssl.SSLContext | None = None

    @asynccontextmanager
    async def open(self, url: str, headers: Mapping[str, str], body: Sequence[bytes]) -> AsyncIterator[Incoming]:
        """See `Transport.open`."""
        target = self._target("POST", url, headers)
        connection = await self._connection(target.server)
        try:
            await connection.ask(target.head(body), body, whole=False)
            yield Incoming(connection.status, connection.headers, self._chunks(connection))
        finally:
            self._give_back(target.server, connection)

    async def post(self, url: str, headers: Mapping[str, str], body: Sequence[bytes]) -> Reply:
        """See `Transport.post`. A reply of moderate size is taken at once, not chunk by chunk."""
        target = self._target("POST", url, headers)
        connection = await self._connection(target.server)
        try:
            await connection.ask(target.head(body), body, whole=True)
            data = None if "Content-Encoding" in connection.headers else connection.at_once(self._max_reply_bytes)
            if data is None:
                data = b"".join([chunk async for chunk in self._chunks(connection)])
            return Reply(connection.status, connection.headers, data)
        finally:
            self._give_back(target.server, connection)

    async def status(self, url: str, headers: Mapping[str, str]) -> int:
        """The status with which a GET is answered; its body is not waited for.

        Raises:
            TransportFailure: no reply came.
        """
        target = self._target("GET", url, headers)
        connection = await self._connection(target.server)
        try:
            await connection.ask(target.head(()), (), whole=False)
            return connection.status
        finally:
            self._give_back(target.server, connection)

    async def _chunks(self, connection: Connection) -> AsyncIterator[bytes]:
        encoding = connection.headers.get("Content-Encoding", "")
        try:
            async for plain in plain_pieces(connection.piece, encoding, self._max_reply_bytes):
                yield plain
        except CutReply:
            if connection.status < 400:  # else: the status says what is to be done, with or without the whole text
                raise

    async def _connection(self, server: _Server) -> Connection:
        """One that is idle, the last used first, or a new one.

        Raises:
            NoConnection: the server cannot be reached.
        """
        loop = asyncio.get_running_loop()
        if loop not in self._pools:
            for ended in [known for known in self._pools if known.is_closed()]:
                del self._pools[ended]
            self._pools[loop] = _Pool()
        pool = self._pools[loop]
        connection = pool.take(server, loop.time()) or await self._connected(server)
        pool.busy.add(connection)
        return connection

    async def _connected(self, server: _Server) -> Connection:
        if server.tls and self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        loop, tls = asyncio.get_running_loop(), self._tls if server.tls else None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S) as limit:
                connecting = partial(loop.create_connection, Connection, server.host, server.port, ssl=tls)
                if tls and isinstance(loop, asyncio.BaseEventLoop):  # uvloop has no such thing
                    # A public name may have an address that leads nowhere, so its addresses are tried side by side.
                    connecting = partial(connecting, happy_eyeballs_delay=0.25)
                made: tuple[asyncio.BaseTransport, Connection] = await connecting()
                return made[1]
        except (OSError, UnicodeError) as error:
            if limit.expired():
                raise NoConnection(f"no connection within {CONNECT_TIMEOUT_S:.0f} s") from None
            raise NoConnection(f"cannot connect ({_reason(error)})") from None

    def _give_back(self, server: _Server, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:  # it was closed meanwhile
            connection.close()
        else:
            pool.put(server, connection, loop.time())

    def _target(self, method: str, url: str, headers: Mapping[str, str]) -> _Target:
        key = (method, url, *headers.items())
        target = self._targets.get(key)
        if target is None:
            target = self._targets[key] = _Target.of(method, url, headers)
        return target

    async def aclose(self) -> None:
        """Close all connections; those of another loop that runs end soon after."""
        here = asyncio.get_running_loop()
        while self._pools:
            loop, pool = self._pools.popitem()
            if loop is not here and loop.is_running():
                loop.call_soon_threadsafe(pool.close)
            elif not loop.is_closed():
                pool.close()
        await asyncio.sleep(0)  # a connection is closed in the loop's next pass


class _Server(NamedTuple):
    tls: bool
    host: str
    port: int


class _Pool:
    """The connections of one event loop."""

    def __init__(self) -> None:
        self.busy: set[Connection] = set()
        self._idle: dict[_Server, deque[tuple[float, Connection]]] = {}

    def take(self, server: _Server, now: float) -> Connection | None:
        """One that is idle, the last used first."""
        idle = self._idle.get(server)
        while idle:
            since, connection = idle.pop()
            if connection.reusable and now - since < KEEP_S:
                return connection
            connection.close()
        return None

    def put(self, server: _Server, connection: Connection, now: float) -> None:
        """Keep one for the next request, if it may have another; close those that have been idle too long."""
        self.busy.discard(connection)
        if not connection.reusable:
            return connection.close()
        idle = self._idle.setdefault(server, deque())
        idle.append((now, connection))
        while now - idle[0][0] >= KEEP_S:
            idle.popleft()[1].close()
        return None

    def close(self) -> None:
        """Close all of them."""
        for connection in (*self.busy, *(connection for idle in self._idle.values() for _, connection in idle)):
            connection.close()
        self.busy.clear()
        self._idle.clear()


@dataclass(frozen=True, slots=True)
class _Target:
    """Where requests go, and how each begins."""

    server: _Server
    opening: bytes

    @classmethod
    def of(cls, method: str, url: str, headers: Mapping[str, str]) -> _Target:
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        fields = {
            "Host": parts.netloc.rpartition("@")[2],
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "User-Agent": "insightv",
            "Content-Type": "application/json",
            **headers,
        }
        path = quote(parts.path or "/", safe="/:@!$&'()*+,;=~%-._") + (f"?{parts.query}" if parts.query else "")
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        if any(not line.isprintable() for line in lines):
            raise ConfigError("the server's address or a header holds a line break or another unprintable character")
        opening = "\r\n".join([*lines, "Content-Length: "]).encode()
        return cls(_Server(tls, parts.hostname or "", parts.port or (443 if tls else 80)), opening)

    def head(self, body: Sequence[bytes]) -> bytes:
        return b"%b%d\r\n\r\n" % (self.opening, sum(map(len, body)))


def _reason(error: OSError | UnicodeError) -> str:
    """Why no connection was made, in words without addresses."""
    number = getattr(error, "errno", None)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message}"
    if isinstance(error, socket.gaierror | ssl.SSLError) or not isinstance(number, int):
        refused = "refused" in str(error).lower() or f"Errno {errno.ECONNREFUSED}" in str(error)
        return "Connection refused" if refused else getattr(error, "strerror", None) or type(error).__name__
    return os.strerror(number)
