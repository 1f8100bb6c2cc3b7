"""The body of a reply as it comes: unpacked, capped, and told apart where it breaks off. It knows no connection."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

from insightv.backends.openai.connection import BrokenReply, TransportFailure

_HEAD_BYTES = 8192


class UnreadableReply(TransportFailure):
    """The reply is larger than allowed, or compressed in a way that cannot be read."""


class CutReply(TransportFailure):
    """The body had begun, then broke off or proved damaged: a server is there, and this reply of it is of no use."""


async def plain_pieces(
    next_piece: Callable[[], Awaitable[bytes | None]], encoding: str, cap: int
) -> AsyncIterator[bytes]:
    """The pieces of a body, decompressed as `encoding` (its Content-Encoding) says; `next_piece` ends with None.

    `cap` bounds the bytes that come and the bytes that they unpack to.

    Raises:
        BrokenReply: the connection broke before any byte of the body.
        CutReply: it broke later, or what came cannot be unpacked.
        UnreadableReply: the body is too large, compressed in another way, or goes on behind its compressed end.
    """
    unpack = _Unpacking.of(encoding)
    came, seen, head = 0, 0, b""
    try:
        while (piece := await next_piece()) is not None:
            came += len(piece)
            plain = unpack.feed(piece, cap - seen + 1) if unpack else piece
            seen += len(plain)
            head = head or plain[:_HEAD_BYTES]
            if max(came, seen) > cap:
                raise UnreadableReply(f"the reply is larger than max_reply_bytes = {cap}", head=head)
            if unpack and unpack.beyond:
                raise UnreadableReply("the reply goes on behind the end of its compressed part", head=head)
            yield plain
        if unpack and came and not unpack.whole:
            raise BrokenReply("the compressed reply is cut")
    except BrokenReply as failure:
        if not came:
            raise
        raise CutReply(str(failure), head=head) from None


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

    @property
    def beyond(self) -> bool:
        """Whether there were bytes behind the end; a decompressor keeps them all, so none may be fed to it then."""
        return bool(self._inflate.unused_data)
