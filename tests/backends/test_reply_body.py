"""Bodies as they come: what is compressed or broken off is told apart, and never fills memory."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Sequence

import pytest

from insightv.backends.openai.connection import BrokenReply, TransportFailure
from insightv.backends.openai.reply_body import CutReply, UnreadableReply, plain_pieces

TEXT = b'{"choices":[]}'
PACKED = gzip.compress(TEXT)
BROKEN = BrokenReply("the connection broke")


def read(pieces: Sequence[bytes | BrokenReply], encoding: str = "", cap: int = 100_000) -> tuple[bytes, int]:
    """The plain body, and how many pieces were taken; an error among the pieces is raised in its place."""
    taken = 0

    async def next_piece() -> bytes | None:
        nonlocal taken
        taken += 1
        piece = pieces[taken - 1] if taken <= len(pieces) else None
        if isinstance(piece, BrokenReply):
            raise piece
        return piece

    async def whole() -> bytes:
        return b"".join([piece async for piece in plain_pieces(next_piece, encoding, cap)])

    try:
        return asyncio.run(whole()), taken
    except TransportFailure as failure:
        failure.args = (*failure.args, taken)
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


@pytest.mark.parametrize("junk", [[PACKED + b"\0" * 9], [PACKED, b"x", b"x", b"x"], [PACKED + b"x", *[b"x"] * 9]])
def test_bytes_behind_a_compressed_body_end_it_at_once(junk: list[bytes]) -> None:
    with pytest.raises(UnreadableReply, match="goes on behind") as caught:
        read(junk, "gzip")
    assert caught.value.head in (TEXT, b"")
    assert caught.value.args[1] <= 2, "pieces were taken after the end"


def test_a_second_compressed_part_is_refused_too() -> None:
    with pytest.raises(UnreadableReply, match="goes on behind"):
        read([PACKED, PACKED], "gzip")


@pytest.mark.parametrize(
    ("pieces", "encoding"),
    [
        ([b"x" * 60, b"x" * 60], ""),
        ([gzip.compress(b"x" * 101)], "gzip"),
        # Blocks of nothing: they unpack to no byte, however many there are.
        ([PACKED[:10], *[b"\0\0\0\xff\xff" * 10] * 9], "gzip"),
    ],
)
def test_the_cap_holds_for_what_comes_and_for_what_it_unpacks_to(pieces: list[bytes], encoding: str) -> None:
    with pytest.raises(UnreadableReply, match="larger than max_reply_bytes = 100") as caught:
        read(pieces, encoding, cap=100)
    assert caught.value.args[1] <= 3


@pytest.mark.parametrize(
    ("pieces", "encoding", "head"),
    [
        ([TEXT[:5], TEXT[5:9], BROKEN], "", TEXT[:5]),
        ([PACKED[:-9], BROKEN], "gzip", TEXT),
        ([PACKED[:-9]], "gzip", TEXT),
        ([PACKED[:3], BROKEN], "gzip", b""),
        ([b"no gzip at all"], "gzip", b""),
    ],
)
def test_a_body_that_breaks_off_is_cut_with_its_start_kept(
    pieces: list[bytes | BrokenReply], encoding: str, head: bytes
) -> None:
    with pytest.raises(CutReply) as caught:
        read(pieces, encoding)
    assert caught.value.head == head


def test_a_connection_that_breaks_before_the_body_is_no_reply() -> None:
    with pytest.raises(BrokenReply, match="the connection broke"):
        read([BROKEN])


def test_an_encoding_that_was_not_asked_for_and_is_not_known_is_named() -> None:
    with pytest.raises(UnreadableReply, match="'br'"):
        read([TEXT], "br")
