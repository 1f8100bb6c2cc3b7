"""A connection by itself: what one reply leaves behind must not reach the next request."""

import asyncio
from contextlib import suppress

import pytest

from insightv.backends.openai.connection import Connection
from insightv.backends.openai.http import HttpTransport, UnreadableReply

SIZES = (300_000, 2, 263_000, 5)
REQUEST = b"GET / HTTP/1.1\r\n\r\n"


async def replies() -> list[int]:
    """The lengths of the bodies that come over one connection, each taken whole."""
    left = iter(SIZES)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for size in left:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
        found: list[int] = []
        for _ in SIZES:
            async with asyncio.timeout(10):
                await connection.ask(REQUEST, [], whole=True)
                body = connection.at_once(max(SIZES))
                while body is None or len(body) < SIZES[len(found)]:
                    body = (body or b"") + (await connection.piece() or b"")
            found.append(len(body))
        connection.close()
        await asyncio.sleep(0)
    return found


def test_a_reply_over_the_bound_of_what_is_unread_does_not_stop_the_next() -> None:
    assert asyncio.run(replies()) == list(SIZES)


def test_what_is_left_of_a_reply_does_not_begin_the_next() -> None:
    ended = asyncio.Queue[None]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while await reader.read(1000):
                coding, body = sent.pop(0)
                head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: 5\r\n\r\n" % coding
                writer.write(head + body)
        writer.close()
        ended.put_nowait(None)

    async def twice() -> bytes:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            transport = HttpTransport(max_reply_bytes=1000)
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            with pytest.raises(UnreadableReply):
                await transport.post(url, {}, [b"{}"])
            reply = await transport.post(url, {}, [b"{}"])
            await transport.aclose()
            async with asyncio.timeout(5):
                for _ in range(2):  # each reply had a connection of its own
                    await ended.get()
            return reply.body

    sent = [(b"br", b"wrong"), (b"identity", b"right")]
    assert asyncio.run(twice()) == b"right"
