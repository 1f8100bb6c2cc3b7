"""One HTTP/1.1 connection: a request out, its reply in, with as little work as can be. It knows no JSON and no retries.

What a server sends is not trusted: a head has a largest size, framing that is not plain is refused, and a reply that
nobody reads holds the server up instead of filling memory.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

_MOST_HEAD_BYTES = 64 * 1024
_MOST_LINE_BYTES = 8 * 1024
_MOST_UNREAD_BYTES = 256 * 1024
_ONE_WRITE_BYTES = 256 * 1024
_STATUS = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: [^\r\n\0]*)?")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")
_BODILESS = (204, 304)


class TransportFailure(Exception):
    """No whole reply came back. `head` is the start of what did come."""

    def __init__(self, text: str, *, head: bytes = b"") -> None:
        super().__init__(text)
        self.head = head


class NoConnection(TransportFailure):
    """The server could not be reached: nothing was sent."""


class BrokenReply(TransportFailure):
    """The connection broke, or what came is not HTTP."""


class Headers(Mapping[str, str]):
    """Headers by name, whatever its case; of one that is repeated all values, with commas between."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, str] = {}
        for name, value in pairs:
            key = name.lower()
            self._values[key] = f"{self._values[key]}, {value}" if key in self._values else value

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Connection(asyncio.Protocol):
    """A connection for one request at a time."""

    def __init__(self) -> None:
        self._reusable = False
        self.status = 0
        self.headers = Headers()
        self._transport: asyncio.Transport | None = None
        self._stage: Literal["idle", "head", "body"] = "idle"
        self._buffer = bytearray()
        self._framing: Literal["length", "chunked", "close"] = "length"
        self._left = 0
        self._in_trailers = self._lasts = False
        self._pieces: deque[bytes] = deque()
        self._unread = 0
        self._whole = self._paused = self._full = False
        self._failure: TransportFailure | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def reusable(self) -> bool:
        """Whether another request may follow; not where some of the last reply was left, which would begin the next."""
        return self._reusable and not self._pieces

    async def ask(self, head: bytes, body: Sequence[bytes], *, whole: bool) -> None:
        """Send a request and wait for the head of its reply; with `whole` for its body too, unless that is large.

        Raises:
            BrokenReply: no reply came, or it was cut.
        """
        self._stage, self._whole, self._reusable = "head", whole, False
        await self._send(head, body)
        while self._stage == "head" or (whole and self._stage == "body" and self._unread <= _MOST_UNREAD_BYTES):
            await self._wait()
        if self._failure is not None and not self._pieces:
            raise self._failure

    def at_once(self, most: int) -> bytes | None:
        """The body, where all of it is there in at most so many bytes; None where it is to be taken piece by piece."""
        if self._stage != "idle" or self._failure is not None or self._unread > most:
            return None
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._unread = 0
        self._read_on()
        return body

    async def piece(self) -> bytes | None:
        """The next piece of the body; None at its end.

        Raises:
            BrokenReply: the reply was cut, or is not HTTP.
        """
        self._whole = False
        while not self._pieces:
            if self._failure is not None:
                raise self._failure
            if self._stage == "idle":
                return None
            await self._wait()
        piece = self._pieces.popleft()
        self._unread -= len(piece)
        if self._unread <= _MOST_UNREAD_BYTES:
            self._read_on()
        return piece

    def _read_on(self) -> None:
        """Read again where reading was held up: also for the next reply, if this one ended meanwhile."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Let go of the connection, whatever is under way."""
        self._reusable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport  # type: ignore[assignment]  # create_connection makes a whole Transport

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._reusable = False
        if self._stage == "body" and self._framing == "close" and error is None:
            self._stage = "idle"
        elif self._stage != "idle":
            self._fail(self._loss(error))
        self._transport = None
        self._wake()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._full = True

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._full = False
        self._wake()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._over:  # nobody has asked: what comes now is no reply
            return self.close()
        self._buffer += data
        try:
            if self._stage == "head":
                self._read_head()
            if self._stage == "body":
                self._read_body()
        except BrokenReply as failure:
            self._fail(failure)
        if self._over or not self._whole or self._unread > _MOST_UNREAD_BYTES:
            self._wake()

    @property
    def _over(self) -> bool:
        return self._stage == "idle"

    async def _send(self, head: bytes, body: Sequence[bytes]) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            raise BrokenReply("the server closed the connection without a reply")
        if sum(map(len, body)) <= _ONE_WRITE_BYTES:
            transport.write(b"".join((head, *body)))
            return
        # A large body goes out part by part, so that an image shared by many bodies is not copied.
        for part in (head, *body):
            transport.write(part)
            while self._full and self._stage == "head":
                await self._wait()
            if self._stage != "head":  # the server has answered before it was asked all
                self._lasts = self._reusable = False
                return

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _read_head(self) -> None:
        while self._stage == "head":
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > _MOST_HEAD_BYTES or not b"HTTP/1.".startswith(self._buffer[:7]):
                    raise self._no_http()
                return
            first, *lines = bytes(self._buffer[:end]).split(b"\r\n")
            found = _STATUS.fullmatch(first)
            if found is None or found[2] == b"101":
                raise self._no_http()
            del self._buffer[: end + 4]
            if found[2][:1] != b"1":  # else: the reply itself is still to come
                self.status = int(found[2])
                self.headers = Headers(map(self._header, lines))
                self._frame(found[1] == b"1")

    def _header(self, line: bytes) -> tuple[str, str]:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not _NAME.fullmatch(name) or "\0" in value:
            raise self._no_http()
        return name, value.strip(" \t")

    def _frame(self, newer: bool) -> None:
        """Begin the body: how its end will be known, and whether the connection lasts beyond it."""
        headers = self.headers
        token = headers.get("Connection", "").lower()
        self._lasts = "close" not in token if newer else "keep-alive" in token
        self._stage, self._left, self._in_trailers = "body", 0, False
        coding, lengths = headers.get("Transfer-Encoding"), headers.get("Content-Length")
        if self.status in _BODILESS:
            self._framing = "length"
        elif coding is not None:
            if coding.lower() != "chunked" or lengths is not None:
                raise self._no_http()
            self._framing = "chunked"
        elif lengths is not None:
            [length, *others] = {each.strip() for each in lengths.split(",")}
            if others or not (length.isascii() and length.isdigit() and len(length) < 16):
                raise self._no_http()
            self._framing, self._left = "length", int(length)
        else:
            self._framing, self._lasts = "close", False

    def _read_body(self) -> None:
        if self._framing == "chunked":
            self._read_chunks()
        else:
            self._take(self._left if self._framing == "length" else len(self._buffer))
            if self._framing == "length" and not self._left:
                self._end()

    def _read_chunks(self) -> None:
        while self._stage == "body":
            if self._left > 2:
                self._take(self._left - 2)
                if self._left > 2:
                    return
            if self._left:  # the line break behind a chunk
                if len(self._buffer) < 2:
                    return
                if self._buffer[:2] != b"\r\n":
                    raise self._no_http()
                del self._buffer[:2]
                self._left = 0
            line = self._line()
            if line is None:
                return
            if self._in_trailers:
                if not line:
                    self._end()
                continue
            found = _SIZE.fullmatch(line)
            if found is None:
                raise self._no_http()
            size = int(found[1], 16)
            self._left, self._in_trailers = (size + 2, False) if size else (0, True)

    def _line(self) -> bytes | None:
        """The next line; None where it is not whole yet."""
        end = self._buffer.find(b"\r\n", 0, _MOST_LINE_BYTES)
        if end < 0:
            if len(self._buffer) >= _MOST_LINE_BYTES:
                raise self._no_http()
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _take(self, most: int) -> None:
        """Move what is there of the body to the pieces, at most so many bytes."""
        piece = bytes(self._buffer[:most])
        if not piece:
            return
        del self._buffer[: len(piece)]
        self._left -= min(self._left, len(piece))
        self._pieces.append(piece)
        self._unread += len(piece)
        if self._unread > _MOST_UNREAD_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _end(self) -> None:
        self._stage = "idle"
        self._reusable = self._lasts and not self._buffer

    def _loss(self, error: Exception | None) -> BrokenReply:
        if isinstance(error, OSError):
            return BrokenReply(f"the connection broke ({error.strerror or type(error).__name__})")
        if self._stage == "head" and not self._buffer:
            return BrokenReply("the server closed the connection without a reply")
        return BrokenReply("the reply was cut")

    def _no_http(self) -> BrokenReply:
        return BrokenReply("the reply is not HTTP", head=bytes(self._buffer[:_MOST_LINE_BYTES]))

    def _fail(self, failure: TransportFailure) -> None:
        self._failure, self._stage = failure, "idle"
        self.close()
        self._wake()
