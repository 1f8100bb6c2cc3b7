"""The HTTP seam of the `openai` backend: bytes in, bytes out. It knows no JSON, no retries and no endpoints.

`Transport` is the seam; `AiohttpTransport` is the lean default. Redirects are not followed (a body with images must
not be posted to another origin), cookies are not kept, and proxies and .netrc of the environment are not used.
"""

from __future__ import annotations

import asyncio
import zlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.payload import Payload

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

CONNECT_TIMEOUT_S = 30.0
_ONE_WRITE_BYTES = 256 * 1024


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


class AiohttpTransport(Transport):
    """One aiohttp session for each event loop that uses it: a notebook's own, and that of the blocking calls."""

    def __init__(self, *, max_reply_bytes: int, connections: int) -> None:
        self._max_reply_bytes = max_reply_bytes
        self._connections = connections
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}

    @asynccontextmanager
    async def open(self, url: str, headers: Mapping[str, str], body: Sequence[bytes]) -> AsyncIterator[Incoming]:
        """See `Transport.open`."""
        session = await self._session_here()
        try:
            async with session.post(url, data=_Spliced(body), headers=headers, allow_redirects=False) as response:
                yield Incoming(response.status, response.headers, self._chunks(response))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NoConnection(_reason(error)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise BrokenReply(_reason(error)) from None

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        cap = self._max_reply_bytes
        unpack = _Unpacking.of(response.headers.get("Content-Encoding", ""))
        seen, head = 0, b""
        async for chunk in response.content.iter_any():
            plain = unpack.feed(chunk, cap - seen + 1) if unpack else chunk
            seen += len(plain)
            head = head or plain[:8192]
            if seen > cap:
                response.close()
                raise UnreadableReply(f"the reply is larger than max_reply_bytes = {cap}", head=head)
            yield plain
        if unpack and not unpack.whole:
            raise BrokenReply("the compressed reply is cut", head=head)

    async def _session_here(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None or session.closed:
            for ended in [known for known in self._sessions if known.is_closed()]:
                await self._sessions.pop(ended).close()
            session = self._sessions[loop] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, ttl_dns_cache=300),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                headers={"Accept-Encoding": "identity", "User-Agent": "insightv"},
                auto_decompress=False,
                trust_env=False,
            )
        return session

    async def aclose(self) -> None:
        """Close the sessions and their connections; those of another loop that runs end soon after."""
        here = asyncio.get_running_loop()
        while self._sessions:
            loop, session = self._sessions.popitem()
            if loop is not here and loop.is_running():
                # Not waited for: that loop's thread may be the one that waits for this to end.
                asyncio.run_coroutine_threadsafe(session.close(), loop)
            else:
                await session.close()


class _Spliced(Payload):
    """A body in parts. A large one is written part by part, so that an image shared by many bodies is not copied."""

    _autoclose = True
    _default_content_type = "application/json"

    def __init__(self, parts: Sequence[bytes]) -> None:
        super().__init__(parts)
        self._parts = parts
        self._size = sum(map(len, parts))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._parts).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        if (self._size or 0) <= _ONE_WRITE_BYTES:
            await writer.write(b"".join(self._parts))
            return
        for part in self._parts:
            await writer.write(part)


class _Unpacking:
    """Decompresses a reply that is compressed although identity was asked for, never beyond a given size."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)

    @classmethod
    def of(cls, encoding: str) -> _Unpacking | None:
        name = encoding.strip().lower()
        if name in ("", "identity"):
            return None
        if name not in ("gzip", "x-gzip", "deflate"):
            raise UnreadableReply(f"the reply is compressed with {name[:40]!r}, although 'identity' was asked for")
        return cls()

    def feed(self, chunk: bytes, limit: int) -> bytes:
        try:
            return self._inflate.decompress(chunk, limit)
        except zlib.error as error:
            raise BrokenReply(f"the compressed reply is damaged ({error})") from None

    @property
    def whole(self) -> bool:
        return self._inflate.eof


def _reason(error: Exception) -> str:
    """What went wrong in words, without the addresses of objects and connection keys that aiohttp prints."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect ({error.os_error.strerror or type(error.os_error).__name__})"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection without a reply"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the reply was cut"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the reply is not HTTP"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"no connection within {CONNECT_TIMEOUT_S:.0f} s"
    return f"the connection broke ({getattr(error, 'strerror', None) or type(error).__name__})"
