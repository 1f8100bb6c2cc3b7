"""A connection by itself: what one reply leaves behind must not reach the next request."""

import asyncio

from insightv.backends.connection import Connection

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
                body = connection.at_once()
                while body is None or len(body) < SIZES[len(found)]:
                    body = (body or b"") + (await connection.piece() or b"")
            found.append(len(body))
        connection.close()
        await asyncio.sleep(0)
    return found


def test_a_reply_over_the_bound_of_what_is_unread_does_not_stop_the_next() -> None:
    assert asyncio.run(replies()) == list(SIZES)
