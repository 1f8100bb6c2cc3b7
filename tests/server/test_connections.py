"""Clients that go, wait, take nothing or come in numbers: over real connections."""

from __future__ import annotations

import asyncio
import json
import resource
import select
import socket
import struct
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from insightv import ChatModel, Completion, Reasoner, Sampling
from insightv import Message as Said
from insightv.records import Schema
from insightv.server import listen, streaming
from insightv.server.app import make_app
from insightv.testing import ScriptedModel
from tests.server.serving import Served, chat
from tests.servers.fake_openai import FakeServer, Settings
from tests.world import wait_for

PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


class Slow(ChatModel):
    """Answers nothing, and says when it is asked."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def chat(
        self, messages: Sequence[Said], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        self.asked.set()
        await asyncio.Event().wait()
        return []


def begin(served: Served, body: Any, **options: int) -> socket.socket:
    """A connection that has sent a request, and takes `SO_RCVBUF` bytes of the reply."""
    client, data = socket.socket(), json.dumps(body).encode()
    for name, value in options.items():
        client.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    client.connect(("127.0.0.1", served.port))
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    client.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return client


def wait_for_work(served: Served, count: int) -> None:
    wait_for(lambda: f"insightv_in_flight {count}\n" in served.request("GET", "/metrics").text)


def test_beyond_its_concurrency_it_says_when_to_come_back() -> None:
    with (
        FakeServer(Settings(latency_s=600)) as fake,
        Served(lambda: Reasoner.of("openai/fake", base_url=fake.base_url), concurrency=2) as served,
    ):
        with begin(served, chat()), begin(served, chat(stream=True)):
            wait_for_work(served, 2)
            for stream in (False, True):
                reply = served.request("POST", PATH, chat(stream=stream))
                assert (reply.status, json.loads(reply.text)["error"]["code"]) == (429, "busy")
                assert int(str(reply.getheader("Retry-After"))) >= 1
        wait_for_work(served, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_ends_its_work(stream: bool) -> None:
    settings = Settings(piece_s=0.05) if stream else Settings(latency_s=600)
    with FakeServer(settings) as fake, Served(lambda: Reasoner.of("openai/fake", base_url=fake.base_url)) as served:
        with begin(served, chat("Long. [truth=7] [steps=200]", stream=stream)) as client:
            wait_for(lambda: len(fake.log()) == 1)
            if stream:
                assert b"200 OK" in client.recv(1000)
        wait_for(lambda: fake.log()[0]["gone"])
        wait_for_work(served, 0)


def test_a_stream_that_is_there_at_once_is_not_sent_on_to_a_client_that_has_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps = "".join(f"### Step {number}\nText of it.\n" for number in range(5000))
    model = ScriptedModel([f"<thoughts>\n{steps}</thoughts>", "B"])
    with Served(lambda: Reasoner.of(model)) as served:
        with begin(served, chat(stream=True)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        wait_for_work(served, 0)
    assert "socket.send() raised exception" not in caplog.text
    assert len(model.asked) == 1


def test_a_client_that_takes_nothing_is_left() -> None:
    long = "word " * 400_000
    thoughts = f"<thoughts>\n### Look\n{long}\n### End\nB.\n</thoughts>"
    with (
        Served(lambda: Reasoner.of(ScriptedModel([thoughts, "B"])), send_s=0.5) as served,
        begin(served, chat(stream=True), SO_RCVBUF=2048),
    ):
        wait_for_work(served, 1)
        wait_for_work(served, 0)


def test_a_client_that_does_not_even_take_the_head_is_left() -> None:
    async def never(*_: object) -> Any:
        await asyncio.Event().wait()

    async def events() -> AsyncGenerator[bytes, None]:
        yield b"data: 1"

    held, let_go = ExitStack(), list[bool]()
    held.callback(let_go.append, True)
    asyncio.run(asyncio.wait_for(streaming.EventStream(events(), 0.05, held)({}, never, never), 10))
    assert let_go == [True]


def test_a_client_that_goes_away_is_no_fault_of_middleware_around_the_server() -> None:
    model, begun = Slow(), asyncio.Event()

    class Middleware(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            return await call_next(request)

    async def receive() -> Message:
        if not begun.is_set():
            begun.set()
            return {"type": "http.request", "body": json.dumps(chat(image="")).encode()}
        await model.asked.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    sent: list[Message] = []
    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": PATH, "headers": headers, "query_string": b""}
    asyncio.run(Middleware(make_app(Reasoner.of(model)))(scope, receive, send))
    assert sent[0]["status"] == 499


def test_large_bodies_that_arrive_at_once_are_bounded_together(fake: FakeServer) -> None:
    size = 100_000
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    )
    with Served(lambda: Reasoner.of("openai/fake", base_url=fake.base_url), max_body_bytes=size) as served:
        clients = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(12)]
        for client in clients:
            client.sendall(head.encode() + b"x" * (size - 1))
        wait_for(lambda: select.select(clients, [], [], 0)[0])
        first = select.select(clients, [], [], 0)[0][0]
        assert first.recv(12) == b"HTTP/1.1 429"
        for client in clients:
            client.close()
        wait_for(lambda: served.request("POST", PATH, chat()).status == 200)


def test_a_body_that_never_ends_is_given_up(fake: FakeServer) -> None:
    with (
        Served(lambda: Reasoner.of("openai/fake", base_url=fake.base_url), body_s=0.3) as served,
        socket.create_connection(("127.0.0.1", served.port)) as client,
    ):
        client.sendall(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\n".encode())
        client.sendall(b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        client.settimeout(20)
        assert client.recv(1000).startswith(b"HTTP/1.1 408")


def test_a_quiet_stream_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "QUIET_S", 0.05)
    with (
        FakeServer(Settings(latency_s=0.4)) as fake,
        Served(lambda: Reasoner.of("openai/fake", base_url=fake.base_url)) as served,
    ):
        text = served.request("POST", PATH, chat(stream=True)).text
    assert ": waiting\n\n" in text
    assert text.endswith("data: [DONE]\n\n")


def test_a_connection_that_takes_nothing_is_closed(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "STUCK_S", 0.5, raising=False)
    monkeypatch.setattr(listen, "IDLE_S", 1)
    monkeypatch.setattr(listen, "HEADER_S", 1)
    with Served(lambda: Reasoner.of("openai/fake", base_url=fake.base_url)) as served, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", served.port))
        client.sendall(b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)  # about 10 MB of replies
        assert served._server is not None
        connections = served._server.server_state.connections
        wait_for(lambda: len(connections) == 1)
        wait_for(lambda: not connections, 10)


def test_a_connection_that_drips_after_a_request_is_closed(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "IDLE_S", 0.5)
    monkeypatch.setattr(listen, "HEADER_S", 2.0)
    with (
        Served(lambda: Reasoner.of("openai/fake", base_url=fake.base_url)) as served,
        socket.create_connection(("127.0.0.1", served.port)) as client,
    ):
        client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        said = b""
        while b"insightv-summary" not in said:
            said += client.recv(10_000) or pytest.fail("closed before the first request was answered")
        client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n")

        def closed() -> bool:
            try:
                client.sendall(b"X: y\r\n")
            except ConnectionError:
                return True
            return bool(select.select([client], [], [], 0.02)[0])

        wait_for(closed, 10)


def test_a_thousand_idle_and_slow_clients_do_not_stop_a_good_one(fake: FakeServer) -> None:
    kept, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # both ends of a thousand connections are in this process
    with Served(lambda: Reasoner.of("openai/fake", base_url=fake.base_url)) as served:
        idle = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(1000)]
        for number, client in enumerate(idle):
            client.sendall(
                [b"", b"POST /v1/chat", f"POST {PATH} HTTP/1.1\r\nContent-Length: 9\r\n\r\n{{".encode()][number % 3]
            )
        began = time.monotonic()
        assert served.request("POST", PATH, chat()).status == 200
        assert time.monotonic() - began < 20
        for client in idle:
            client.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (kept, most))
