"""Bodies as they come: what is compressed or broken off is told apart, and never fills memory."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Sequence

import pytest

from insightv.backends.openai.http import BrokenReply, CutReply, HttpTransport, TransportFailure, UnreadableReply
from tests.backends.asking import raw_server

TEXT = b'{"choices":[]}'
PACKED = gzip.compress(TEXT)
CUT = None
"""In place of a piece: the connection ends."""


def read(pieces: Sequence[bytes | None], encoding: str = "", cap: int = 100_000) -> tuple[bytes, int]:
    """The plain body, and how many pieces were sent before the connection was closed."""
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n{}")
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        for piece in pieces:
            if piece is None or reader.at_eof():
                return
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            sent += 1
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.write(b"0\r\n\r\n")

    async def whole() -> bytes:
        async with raw_server(serve) as url, asyncio.timeout(10):
            transport = HttpTransport(max_reply_bytes=cap)
            try:
                return (await transport.post(url, {}, [b"{}"])).body
            finally:
                await transport.aclose()
                await asyncio.sleep(0.05)

    try:
        return asyncio.run(whole()), sent
    except TransportFailure as failure:
        failure.args = (*failure.args, sent)
        raise


@pytest.mark.parametrize(
    ("pieces", "encoding", "body"),
    [
        ([TEXT[:3], TEXT[3:]], "", TEXT),
        ([TEXT], " Identity", TEXT),
        ([PACKED], "gzip", TEXT),
        ([PACKED[i : i + 1] for i in range(len(PACKED))], "x-gzip", TEXT),
        ([zlib.compress(TEXT)], "deflate", TEXT),
        ([], "", b""),
        ([], "gzip", b""),
    ],
)
def test_whole_bodies(pieces: list[bytes], encoding: str, body: bytes) -> None:
    assert read(pieces, encoding)[0] == body


@pytest.mark.parametrize("junk", [[PACKED + b"\0" * 9], [PACKED, b"x", *[b"x"] * 50], [PACKED + b"x", *[b"x"] * 50]])
def test_bytes_behind_a_compressed_body_end_it_at_once(junk: list[bytes]) -> None:
    with pytest.raises(UnreadableReply, match="goes on behind") as caught:
        read(junk, "gzip")
    assert caught.value.head in (TEXT, b"")
    assert caught.value.args[1] <= 10, "pieces were taken after the end"


def test_a_second_compressed_part_is_refused_too() -> None:
    with pytest.raises(UnreadableReply, match="goes on behind"):
        read([PACKED, PACKED], "gzip")


@pytest.mark.parametrize(
    ("pieces", "encoding"),
    [
        ([b"x" * 60, b"x" * 60], ""),
        ([gzip.compress(b"x" * 101)], "gzip"),
        ([gzip.compress(b"x" * 50_000_000)], "gzip"),
        # Blocks of nothing: they unpack to no byte, however many there are.
        ([PACKED[:10], *[b"\0\0\0\xff\xff" * 10] * 90], "gzip"),
    ],
)
def test_the_cap_holds_for_what_comes_and_for_what_it_unpacks_to(pieces: list[bytes], encoding: str) -> None:
    with pytest.raises(UnreadableReply, match="larger than max_reply_bytes = 100") as caught:
        read(pieces, encoding, cap=100)
    assert caught.value.args[1] <= 12


@pytest.mark.parametrize(
    ("pieces", "encoding", "head"),
    [
        ([TEXT[:5], TEXT[5:9], CUT], "", TEXT[:5]),
        ([PACKED[:-9], CUT], "gzip", TEXT),
        ([PACKED[:-9]], "gzip", TEXT),
        ([PACKED[:3], CUT], "gzip", b""),
        ([b"no gzip at all"], "gzip", b""),
    ],
)
def test_a_body_that_breaks_off_is_cut_with_its_start_kept(
    pieces: list[bytes | None], encoding: str, head: bytes
) -> None:
    with pytest.raises(CutReply) as caught:
        read(pieces, encoding)
    assert caught.value.head == head


def test_a_connection_that_breaks_before_the_body_is_no_reply() -> None:
    with pytest.raises(BrokenReply, match="cut"):
        read([CUT])


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
def test_an_encoding_that_was_not_asked_for_and_is_not_known_is_named(encoding: str) -> None:
    with pytest.raises(UnreadableReply, match=f"'{encoding}'"):
        read([TEXT], encoding)
