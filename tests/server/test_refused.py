"""What a client costs that is not let in: its connection, and next to nothing of the others' time."""

from __future__ import annotations

import contextlib
import json
import logging
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from insightv import Reasoner
from insightv.server import accept, connection
from insightv.testing import ScriptedModel
from tests.server.serving import Served, chat
from tests.servers.fake_openai import FakeServer
from tests.world import command, wait_for

KEY = "k-0123456789abcdef"
PATH = "/v1/chat/completions"
CHUNK = b"1\r\nx\r\n"
AUTHORIZED = f"Authorization: Bearer {KEY}\r\n"
JSON = "Content-Type: application/json\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served(lambda: Reasoner.of(ScriptedModel(lambda *_: "B")), key=KEY, max_body_bytes=2000, body_s=0.5) as served:
        yield served


def head(method: str, path: str, *lines: str) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{''.join(lines)}\r\n".encode()


def rest(client: socket.socket) -> bytes:
    """All that still comes, up to the end of the connection."""
    client.settimeout(20)
    said = b""
    while piece := client.recv(10_000):
        said += piece
    return said


def one_reply(client: socket.socket) -> bytes:
    """The next reply, of a known length."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += client.recv(1) or pytest.fail("closed without a reply")
    length = int(said.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    return said + client.recv(length, socket.MSG_WAITALL)


def test_small_replies_are_not_held_back_until_the_last_one_is_acknowledged(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port)):
        assert served._server is not None
        connections = served._server.server_state.connections
        wait_for(lambda: connections)
        for each in connections:
            taken = each.transport.get_extra_info("socket")
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("status", "request_head"),
    [
        (401, head("POST", PATH, CHUNKED)),
        (401, head("POST", PATH, "Content-Length: 1000000\r\n")),
        (401, head("GET", "/page.js", "Content-Length: 1000000\r\n")),
        (403, head("POST", PATH, AUTHORIZED, "Origin: https://evil.example\r\n", CHUNKED)),
        (404, head("POST", "/v1/nothing", AUTHORIZED, CHUNKED)),
        (405, head("PUT", PATH, AUTHORIZED, CHUNKED)),
        (408, head("POST", PATH, AUTHORIZED, JSON, CHUNKED)),
        (413, head("POST", PATH, AUTHORIZED, JSON, "Content-Length: 1000000\r\n")),
        (415, head("POST", PATH, AUTHORIZED, CHUNKED)),
        (200, head("GET", "/v1/models", AUTHORIZED, CHUNKED)),
        (400, head("POST", PATH, AUTHORIZED, "Transfer-Encoding: chunked, gzip\r\n")),
    ],
)
def test_a_reply_to_a_request_whose_body_is_unread_ends_the_connection(
    served: Served, status: int, request_head: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(request_head + CHUNK)
        said = rest(client)
    first, _, body = said.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 %d" % status)
    assert b"connection: close" in first.lower()
    assert json.loads(body)["object" if status == 200 else "error"]


def test_a_reply_to_a_whole_request_keeps_the_connection(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        for _ in range(2):
            for asked, status in ((head("GET", "/v1/models"), 401), (head("GET", "/v1/models", AUTHORIZED), 200)):
                client.sendall(asked)
                said = one_reply(client)
                assert said.startswith(b"HTTP/1.1 %d" % status)
                assert b"connection: close" not in said


@pytest.mark.parametrize("junk", [b"x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"])
def test_what_is_no_http_is_told_so_in_the_shape_of_the_api(served: Served, junk: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(junk)
        first, _, body = rest(client).partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["error"]["code"] == "invalid_http"


def test_a_refused_client_reads_why_although_it_sends_on(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(head("POST", PATH, "Content-Length: 500000\r\n"))
        for _ in range(50):
            client.sendall(b"x" * 10_000)
            time.sleep(0.002)
        assert rest(client).startswith(b"HTTP/1.1 401")


def test_a_refused_client_that_sends_for_ever_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LINGER_S", 0.3)
    for much in (b"x" * 65_536, b"x"):
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.settimeout(20)
            client.sendall(head("POST", PATH, CHUNKED))

            def cut_off(client: socket.socket = client, much: bytes = much) -> bool:
                try:
                    client.sendall(much)
                except ConnectionError:
                    return True
                return False

            wait_for(cut_off, 15)


@contextmanager
def pumping(served: Served, count: int, request_head: bytes) -> Iterator[None]:
    """Clients that send bodies of one-byte chunks as fast as they are taken, and come again when they are refused."""
    over = threading.Event()

    def pump() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", served.port)) as client:
                client.settimeout(5)
                client.sendall(request_head)
                while not over.is_set():
                    client.sendall(CHUNK * 20_000)

    threads = [threading.Thread(target=pump) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(20)


@pytest.mark.parametrize("authorized", [False, True])
def test_bodies_of_one_byte_chunks_keep_nobody_waiting(authorized: bool) -> None:
    with (
        Served(lambda: Reasoner.of(ScriptedModel(lambda *_: "B")), key=KEY, body_s=30) as served,
        pumping(served, 3, head("POST", PATH, *([AUTHORIZED, JSON] if authorized else []), CHUNKED)),
    ):
        time.sleep(0.2)
        waits = []
        for _ in range(10):
            began = time.monotonic()
            assert served.request("GET", "/v1/models", Authorization=f"Bearer {KEY}").status == 200
            waits.append(time.monotonic() - began)
    assert sorted(waits)[5] < 0.25, waits


@pytest.mark.parametrize("size", [1, 5])
def test_a_body_in_too_many_pieces_is_refused(served: Served, size: int) -> None:
    chunk = b"%x\r\n%s\r\n" % (size, b"x" * size)
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(head("POST", PATH, AUTHORIZED, JSON, CHUNKED) + chunk * 3000)
        said = rest(client)
    assert said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))
    assert size > 1 or b"invalid_http" in said


def test_a_turn_of_the_loop_parses_a_bounded_part(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    whole = connection.BoundedProtocol.handle_events

    def counted(self: connection.BoundedProtocol) -> None:
        whole(self)
        parsed.append(connection.EVENTS - self.conn.left)

    monkeypatch.setattr(connection.BoundedProtocol, "handle_events", counted)
    with Served(lambda: Reasoner.of(ScriptedModel(lambda *_: "B")), body_s=30) as served:
        body = json.dumps(chat(image="")).encode()
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(head("POST", PATH, JSON, CHUNKED, "Connection: close\r\n") + chunks + b"0\r\n\r\n")
            assert rest(client).startswith(b"HTTP/1.1 200")
    assert max(parsed) == connection.EVENTS
    assert sum(parsed) > len(body)


def test_without_descriptors_clients_wait_and_the_log_stays_small() -> None:
    with FakeServer() as fake, ExitStack() as held:
        model = ("--model", "openai/fake", "--base-url", fake.base_url)
        arguments = command("serve", *model, "--port", 0, "--json", "--set", "serve.max_connections=500")
        few = ["sh", "-c", 'ulimit -n 60; exec "$@"', "sh", *arguments]
        process = held.enter_context(subprocess.Popen(few, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        held.callback(process.kill)
        assert process.stdout is not None
        port = int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])
        clients = [held.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(150)]
        time.sleep(1)
        for client in clients[:140]:
            client.close()
        clients[-1].sendall(head("GET", "/v1/models", "Connection: close\r\n"))
        assert rest(clients[-1]).startswith(b"HTTP/1.1 200")
        process.terminate()
        said = process.communicate(timeout=30)[1].decode()
    assert said.count("clients have to wait") == 1
    assert "Too many open files" in said
    assert "Traceback" not in said


def test_clients_beyond_the_most_connections_wait_until_others_are_gone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept, "PAUSE_S", 0.02)
    caplog.set_level(logging.WARNING)
    with Served(lambda: Reasoner.of(ScriptedModel([])), max_connections=3) as served:
        clients = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(4)]
        clients[3].sendall(head("GET", "/v1/models"))
        assert not select.select([clients[3]], [], [], 0.3)[0]
        clients[0].close()
        assert clients[3].recv(1000).startswith(b"HTTP/1.1 200")
        for client in clients:
            client.close()
    assert [record.getMessage() for record in caplog.records if "wait" in record.getMessage()] == [
        "clients have to wait until others are gone: 3 are connected, which is the limit; see serve.max_connections"
    ]


def test_a_request_that_has_come_when_the_server_stops_is_answered() -> None:
    with Served(lambda: Reasoner.of(ScriptedModel([]))) as served:
        clients = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(20)]
        for client in clients:
            client.sendall(head("GET", "/v1/models"))
            assert one_reply(client).startswith(b"HTTP/1.1 200")
        assert served._server is not None
        loop_is_busy, go_on = threading.Event(), threading.Event()

        def keep_busy() -> None:
            loop_is_busy.set()
            go_on.wait(20)
            for each in list(served._server.server_state.connections):  # type: ignore[union-attr]
                each.shutdown()

        served.loop.call_soon_threadsafe(keep_busy)
        loop_is_busy.wait(20)
        for client in clients:
            client.sendall(head("GET", "/v1/models"))
        go_on.set()
        assert all(rest(client).startswith(b"HTTP/1.1 200") for client in clients)
        for client in clients:
            client.close()
