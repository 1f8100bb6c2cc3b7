"""The HTTP seam of the `openai` backend: bytes in, bytes out. It knows no JSON, no retries and no endpoints.

`Transport` is the seam; `HttpTransport`, over aiohttp, is the default. Head, body and what it unpacks to have a largest
size. No redirect is followed (pictures are for one origin), no cookie kept, no .netrc read, no proxy used unasked.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import weakref
import zlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from insightv.backends.openai.address import Proxy, proxy_of, unused_proxy
from insightv.errors import TooManyOpenFiles

CONNECT_TIMEOUT_S = 30.0
KEEP_S = 15.0
"""An idle connection is used again within this time; servers close theirs in the end, maybe while it is used."""
_ONE_WRITE_BYTES, _HEAD_BYTES = 256 * 1024, 8192
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "insightv", "Content-Type": "application/json"}


class TransportFailure(Exception):
    """No whole reply came back. `head` is the start of what did come."""

    def __init__(self, text: str, *, head: bytes = b"") -> None:
        super().__init__(text)
        self.head = head


class NoConnection(TransportFailure):
    """The server could not be reached: nothing was sent."""


class BrokenReply(TransportFailure):
    """The connection broke, or what came is not HTTP."""


class UnreadableReply(TransportFailure):
    """The reply is larger than allowed, or compressed in a way that cannot be read."""


class CutReply(TransportFailure):
    """The body had begun, then broke off or proved damaged: a server is there, and this reply of it is of no use."""


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
            TooManyOpenFiles: nothing was sent, for want of a descriptor.
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

    def __init__(self, *, max_reply_bytes: int, proxy: Proxy = "none") -> None:
        self.proxy: Proxy = proxy
        self._most_bytes = max_reply_bytes
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
        weakref.finalize(self, _let_go, self._sessions)

    @asynccontextmanager
    async def open(self, url: str, headers: Mapping[str, str], body: Sequence[bytes]) -> AsyncIterator[Incoming]:
        """See `Transport.open`."""
        response = await self._ask("POST", url, headers, body)
        try:
            yield Incoming(response.status, response.headers, self._chunks(response))
        finally:
            response.close()  # the connection, unless its reply has been read to the end

    async def status(self, url: str, headers: Mapping[str, str]) -> int:
        """The status with which a GET is answered; its body is not waited for.

        Raises:
            TransportFailure: no reply came.
        """
        response = await self._ask("GET", url, headers, ())
        response.close()
        return response.status

    async def aclose(self) -> None:
        """Close all connections; those of another loop that runs end soon after."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        _let_go(self._sessions)
        if session is not None:
            with suppress(TimeoutError):  # a server that takes nothing more leaves what was to be sent unsent
                async with asyncio.timeout(1):
                    await session.close()

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, str], body: Sequence[bytes]
    ) -> aiohttp.ClientResponse:
        proxy = proxy_of(url) if self.proxy == "environment" else None
        size = sum(map(len, body))
        data = b"".join(body) if size <= _ONE_WRITE_BYTES else _part_by_part(body)
        headers = {**headers, "Content-Length": str(size)}
        try:
            asking = self._session().request
            return await asking(method, url, headers=headers, data=data, proxy=proxy, allow_redirects=False)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _no_reply(error, url, proxy) from None

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body as it comes, unpacked; the cap bounds the bytes that come and those that they unpack to.

        A body that breaks off is a CutReply from its first byte on, except where the status says what is to be done.
        """
        inflate = _inflater(", ".join(response.headers.getall("Content-Encoding", ())))
        cap, came, seen, head = self._most_bytes, 0, 0, b""
        try:
            while piece := await response.content.readany():
                came += len(piece)
                plain = inflate.decompress(piece, cap - seen + 1) if inflate else piece
                seen += len(plain)
                head = head or plain[:_HEAD_BYTES]
                if max(came, seen) > cap:
                    raise UnreadableReply(f"the reply is larger than max_reply_bytes = {cap}", head=head)
                if inflate and inflate.unused_data:  # it keeps them all, so nothing may be fed to it any more
                    raise UnreadableReply("the reply goes on behind the end of its compressed part", head=head)
                yield plain
            if inflate and came and not inflate.eof:
                raise BrokenReply("the compressed reply is cut")
        except (BrokenReply, aiohttp.ClientError, OSError, zlib.error) as error:
            failure = error if isinstance(error, BrokenReply) else _broken(error)
            if not response.content.total_bytes:
                raise failure from None
            if response.status < 400:
                raise CutReply(str(failure), head=head) from None

    def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            for ended in [known for known in list(self._sessions) if known.is_closed()]:
                self._sessions.pop(ended).detach()
            session = self._sessions[loop] = aiohttp.ClientSession(
                connector=_Connector(),
                headers=_HEADERS,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S),
                auto_decompress=False,
            )
        return session


class _Exchange(ResponseHandler):
    """One connection. What comes over it while nothing is asked ends it: it is no reply, and must not become one."""

    asked = True

    def data_received(self, data: bytes) -> None:
        if data and not self.asked:
            self.abort()
            return
        super().data_received(data)
        if not self.asked and self.should_close:  # the reply ended, and more came behind it
            self.abort()
        elif self.exception() is not None and self._payload is not None and not self._payload.is_eof():
            # aiohttp would let whoever reads a body wait for ever where its framing breaks.
            self._payload.set_exception(BrokenReply("the reply is not HTTP"))

    def given_back(self) -> None:
        """The reply was read, or is not wanted any more."""
        self.asked = False
        if self.transport is not None and self.transport.get_write_buffer_size():
            self.abort()  # a server that does not read would keep a connection open that has bytes to send


class _Connector(aiohttp.TCPConnector):
    """The connections of one event loop."""

    def __init__(self) -> None:
        super().__init__(limit=0, keepalive_timeout=KEEP_S, resolver=aiohttp.ThreadedResolver())
        self._factory = partial(_Exchange, loop=asyncio.get_running_loop())  # type: ignore[assignment]  # a subclass

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        exchange = cast(_Exchange, connection.protocol)
        exchange.asked = True
        connection.add_callback(exchange.given_back)
        return connection

    def end(self) -> None:
        self._ending = asyncio.ensure_future(self.close())

    def __del__(self, _: object = None) -> None:
        """Say nothing of connections that were not closed: they end with their loop."""


def _let_go(sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession]) -> None:
    """Close sessions from outside their loops."""
    while sessions:
        loop, session = sessions.popitem()
        connector = session.connector
        session.detach()
        if isinstance(connector, _Connector) and loop.is_running():
            loop.call_soon_threadsafe(connector.end)


async def _part_by_part(body: Sequence[bytes]) -> AsyncIterator[bytes]:
    """A large body, so that an image shared by many bodies is not copied."""
    for part in body:
        yield part


def _inflater(encoding: str) -> zlib._Decompress | None:
    """What decompresses a reply, where it is compressed although identity was asked for."""
    if (name := encoding.strip().lower()) in ("", "identity"):
        return None
    if name not in ("gzip", "x-gzip", "deflate"):
        raise UnreadableReply(f"the reply is compressed with {name[:40]!r}, although 'identity' was asked for")
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)


def _no_reply(error: Exception, url: str, proxy: str | None) -> TransportFailure:
    TooManyOpenFiles.raise_if_behind(getattr(error, "os_error", error), f"a connection to {url}")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        text = f"no connection within {CONNECT_TIMEOUT_S:.0f} s"
    elif isinstance(error, aiohttp.ClientHttpProxyError):
        text = f"cannot connect (answer {error.status})"
    elif isinstance(error, aiohttp.ClientConnectorError | ValueError):
        text = f"cannot connect ({_reason(getattr(error, 'os_error', error))})"
    else:
        return _broken(error)
    return NoConnection(f"{text}, through the proxy of the environment" if proxy else text + unused_proxy(url))


def _broken(error: Exception) -> BrokenReply:
    if isinstance(error, aiohttp.ClientResponseError):
        return BrokenReply("the reply is not HTTP", head=error.message.encode(errors="replace")[:_HEAD_BYTES])
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return BrokenReply("the server closed the connection without a reply")
    if isinstance(error, aiohttp.ClientPayloadError | zlib.error):
        return BrokenReply("the reply was cut or damaged")
    return BrokenReply(f"the connection broke ({_reason(error)})")


def _reason(error: Exception) -> str:
    """What the system says of an error, in words without addresses."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message}"
    if isinstance(error, socket.gaierror | ssl.SSLError):
        return error.strerror or type(error).__name__
    return os.strerror(number) if (number := getattr(error, "errno", None)) else type(error).__name__
