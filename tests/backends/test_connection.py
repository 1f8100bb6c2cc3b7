"""Connections: what a server may do with one, and that nothing of one reply reaches the next request."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from insightv.backends.openai import http
from insightv.backends.openai.http import BrokenReply, CutReply, HttpTransport, NoConnection, Reply, UnreadableReply
from tests.backends.asking import Serve, open_sockets, raw_server

RIGHT = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright"
WRONG = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
Run = Callable[[Any], Any]


async def asked(serve: Serve, work: Callable[[HttpTransport, str], Awaitable[Any]], limit_s: float = 10) -> Any:
    """What `work` does with a transport and the URL of a raw server."""
    async with raw_server(serve) as url:
        transport = HttpTransport(max_reply_bytes=1_000_000)
        try:
            async with asyncio.timeout(limit_s):
                return await work(transport, url)
        finally:
            await transport.aclose()


async def once(transport: HttpTransport, url: str) -> Reply:
    return await transport.post(url, {}, [b"{}"])


def answering(
    *pieces: bytes, wait_s: float = 0.05, again: bool = False, connections: list[asyncio.StreamWriter] | None = None
) -> Serve:
    """A server that answers each request with these pieces, one after the other, then closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if connections is not None:
            connections.append(writer)
        while True:
            await reader.readuntil(b"\r\n\r\n{}")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(wait_s)
            if not again:
                return

    return serve


async def several(transport: HttpTransport, url: str) -> list[bytes]:
    found = []
    for _ in range(4):
        found.append((await once(transport, url)).body)
        await asyncio.sleep(0.15)
    return found


@LOOPS
@pytest.mark.parametrize(
    "pieces",
    [
        (RIGHT + WRONG,),
        (RIGHT + WRONG[:20],),
        (RIGHT, WRONG),
        (RIGHT, WRONG[:20]),
        (RIGHT, b"junk"),
        (RIGHT, b"\0" * 99),
    ],
)
def test_what_comes_unasked_is_no_reply_to_the_next_request(run: Run, pieces: Sequence[bytes]) -> None:
    connections: list[asyncio.StreamWriter] = []
    assert run(asked(answering(*pieces, again=True, connections=connections), several)) == [b"right"] * 4
    assert len(connections) == 4 or len(pieces) == 1


@LOOPS
def test_more_behind_a_body_in_pieces_is_no_reply_to_the_next_request(run: Run) -> None:
    serve = answering(CHUNKED, b"0\r\n\r\n" + WRONG, again=True)
    assert run(asked(serve, several)) == [b"{}"] * 4


def test_a_flood_over_an_idle_connection_ends_it_at_once() -> None:
    cut = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(RIGHT)
        await asyncio.sleep(0.05)
        try:
            while True:
                writer.write(WRONG * 1000)
                await writer.drain()
        finally:
            cut.set()

    async def work(transport: HttpTransport, url: str) -> None:
        await once(transport, url)
        async with asyncio.timeout(2):
            await cut.wait()

    asyncio.run(asked(serve, work))


def test_a_reply_that_is_left_unread_does_not_begin_the_next() -> None:
    replies = [b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 5\r\n\r\nwrong", RIGHT]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n{}")
            writer.write(replies.pop(0))

    async def work(transport: HttpTransport, url: str) -> bytes:
        with pytest.raises(UnreadableReply):
            await once(transport, url)
        return (await once(transport, url)).body

    assert asyncio.run(asked(serve, work)) == b"right"


@LOOPS
def test_connections_are_used_again_for_a_limited_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "KEEP_S", 0.3)
    connections = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while True:
            await reader.readuntil(b"\r\n\r\n{}")
            writer.write(RIGHT)

    async def work(transport: HttpTransport, url: str) -> None:
        for _ in range(5):
            await once(transport, url)
        assert len(connections) == 1
        await asyncio.sleep(0.5)
        await once(transport, url)
        assert len(connections) == 2

    run(asked(serve, work))


@LOOPS
def test_a_connection_that_the_server_closed_while_it_was_idle_is_not_used(run: Run) -> None:
    async def work(transport: HttpTransport, url: str) -> list[bytes]:
        return await several(transport, url)

    assert run(asked(answering(RIGHT, wait_s=0), work)) == [b"right"] * 4


def test_a_post_is_not_sent_twice_when_the_server_closes_in_the_moment_of_use() -> None:
    """Whether it was received is not known: the caller counts the try and repeats it."""
    requests = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (RIGHT, b""):
            requests.append(await reader.readuntil(b"\r\n\r\n{}"))
            writer.write(answer)

    async def work(transport: HttpTransport, url: str) -> None:
        await once(transport, url)
        with pytest.raises(BrokenReply, match="closed the connection without a reply"):
            await once(transport, url)
        await once(transport, url)

    asyncio.run(asked(serve, work))
    assert len(requests) == 3


@LOOPS
@pytest.mark.parametrize(
    ("pieces", "failure", "text"),
    [
        ((b"",), BrokenReply, "without a reply"),
        ((b"SSH-2.0-OpenSSH_9.6\r\n",), BrokenReply, "is not HTTP"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",), BrokenReply, "is not HTTP"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",), BrokenReply, "is not HTTP"),
        (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",),
            BrokenReply,
            "is not HTTP",
        ),
        ((RIGHT + b"junk",), BrokenReply, "is not HTTP"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",), BrokenReply, "cut"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"}"), CutReply, "cut"),
        ((CHUNKED,), CutReply, "cut"),
        ((CHUNKED, b"zz\r\n{}\r\n"), CutReply, "is not HTTP"),
        ((CHUNKED, b"2\r\n{}junk"), CutReply, "is not HTTP"),
    ],
)
def test_broken_framing_fails_at_once(run: Run, pieces: Sequence[bytes], failure: type[Exception], text: str) -> None:
    with pytest.raises(failure, match=text):
        run(asked(answering(*pieces, wait_s=0.01), once, limit_s=5))


def endless(first: bytes, piece: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(first)
        for _ in range(200_000_000 // len(piece)):
            writer.write(piece)
            await writer.drain()

    return serve


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (b"HTTP/1.1 200 ", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\n", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n" * 10_000),
        (CHUNKED + b"0\r\n", b"A: b\r\n" * 10_000),
    ],
    ids=["status", "name", "value", "fields", "trailers"],
)
def test_a_head_has_a_largest_size(first: bytes, piece: bytes) -> None:
    with pytest.raises((BrokenReply, CutReply), match="is not HTTP"):
        asyncio.run(asked(endless(first, piece), once))


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        (CHUNKED + b"2;", b"x" * 65536),
        (CHUNKED, b"0" * 65536),
        (b"", b"\r\n" * 30_000),
    ],
    ids=["interim replies", "chunk extension", "chunk size", "blank lines"],
)
def test_what_never_ends_fills_no_memory_and_ends_by_the_deadline(first: bytes, piece: bytes) -> None:
    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    before, began = resident_mb(), time.monotonic()
    with pytest.raises((TimeoutError, BrokenReply, CutReply)):
        asyncio.run(asked(endless(first, piece), once, limit_s=1))
    assert time.monotonic() - began < 5
    assert resident_mb() - before < 50


def test_a_body_that_drips_ends_by_the_deadline() -> None:
    with pytest.raises(TimeoutError):
        asyncio.run(asked(answering(*[CHUNKED] + [b"1\r\nx\r\n"] * 1000), once, limit_s=0.5))


@LOOPS
@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"], ids=["silent", "413"]
)
def test_a_server_that_does_not_read_keeps_no_connection_open(run: Run, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await asyncio.sleep(0.8)

    async def work(transport: HttpTransport, url: str) -> None:
        before = open_sockets()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                reply = await transport.post(url, {}, [b"x" * 20_000_000] * 3)
                assert (reply.status, reply.body) == (413, b"big")
        await asyncio.sleep(0.1)
        assert open_sockets() == before + 1, "beside the server's own"

    run(asked(serve, work))


def test_no_cookie_is_kept_and_no_netrc_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine localhost login anna password canary\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    heads = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append(await reader.readuntil(b"\r\n\r\n{}"))
            writer.write(RIGHT.replace(b"OK\r\n", b"OK\r\nSet-Cookie: canary=1; Path=/\r\n"))

    # Of a server without a name no client keeps cookies.
    asyncio.run(asked(serve, lambda transport, url: several(transport, url.replace("127.0.0.1", "localhost"))))
    assert len(heads) == 4
    assert not any(word in head.lower() for head in heads for word in (b"cookie", b"authorization", b"canary"))
    assert all(b"accept-encoding: identity\r\n" in head.lower() for head in heads)


def test_nobody_listens_in_words_without_addresses() -> None:
    async def work(transport: HttpTransport, url: str) -> None:
        await transport.post("http://127.0.0.1:9/v1", {}, [b"{}"])

    with pytest.raises(NoConnection, match=r"^cannot connect \(Connection refused\)$"):
        asyncio.run(asked(answering(), work))


def test_loops_that_have_ended_are_forgotten_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async def alone(transport: HttpTransport) -> None:
        async with raw_server(answering(RIGHT, wait_s=0, again=True)) as url:
            await once(transport, url)

    def thrice() -> None:
        transport = HttpTransport(max_reply_bytes=1000)
        for _ in range(3):
            asyncio.run(alone(transport))
        assert len(transport._sessions) == 1

    thrice()
    gc.collect()
    assert not caplog.records
