"""What clients share is shared: places, decoders and memory, between addresses, over real connections."""

from __future__ import annotations

import asyncio
import base64
import gc
import http.client
import json
import re
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from insightv import Reasoner
from insightv.config.sections import ServeSection
from insightv.server.fairness import Turns, client_of
from insightv.testing import ScriptedModel, sample_picture
from tests.inputs.hostile import png
from tests.server.serving import Served, chat
from tests.server.test_command import serving
from tests.servers.fake_openai import FakeServer, Settings
from tests.world import wait_for

PATH = "/v1/chat/completions"
ONE, OTHER = "127.0.0.1", "127.0.0.2"


def ask(port: int, body: Any, address: str = ONE) -> tuple[int, Any, Any]:
    """Status, headers and JSON of one request from an address."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60, source_address=(address, 0))
    try:
        connection.request("POST", PATH, json.dumps(body).encode(), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        return reply.status, reply.headers, json.loads(reply.read())
    finally:
        connection.close()


def gauge(served: Served, name: str) -> int:
    found = re.search(rf"^insightv_{name} (\d+)$", served.request("GET", "/metrics").text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def large_url(size: int) -> str:
    """A small picture in a large file: what comes after its end is passed over."""
    return "data:image/png;base64," + base64.b64encode(sample_picture().data + b"\0" * size).decode()


def pictures_of(url: str, count: int) -> Any:
    body = chat(image=url)
    body["messages"][0]["content"] += body["messages"][0]["content"][1:] * (count - 1)
    return body


@contextmanager
def sending(port: int, sent: int, address: str = ONE) -> Iterator[socket.socket]:
    """A request of which so many bytes have been sent, and of which there is more to come."""
    with socket.create_connection(("127.0.0.1", port), source_address=(address, 0)) as client:
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: {sent + 1}\r\n\r\n".encode() + b" " * sent)
        yield client


def test_turns_go_round_between_clients() -> None:
    order: list[str] = []

    async def work(turns: Turns, client: str) -> None:
        async with turns.turn(client):
            order.append(client)
            await asyncio.sleep(0)

    async def run() -> None:
        turns = Turns(1)
        await asyncio.gather(*(work(turns, client) for client in "aaaabbc"))
        assert turns.may_wait("a")

    asyncio.run(run())
    assert "".join(order) == "aabcaba"


def test_a_turn_that_nobody_waits_for_any_more_goes_to_the_next() -> None:
    async def run() -> None:
        turns = Turns(1)
        await turns.take("a")
        gone, at_the_moment, stays = (asyncio.create_task(turns.take(client)) for client in "bcd")
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        turns.leave("a")
        at_the_moment.cancel()  # it has been given the place, and does not know it yet
        await asyncio.wait_for(stays, 5)
        turns.leave("d")
        await asyncio.wait_for(turns.take("e"), 5)

    asyncio.run(run())


def test_a_client_waits_as_long_as_it_has_less_than_its_share() -> None:
    async def run() -> None:
        turns = Turns(4)
        for _ in range(4):
            assert turns.may_wait("a")
            await turns.take("a")
        assert not turns.may_wait("a")
        waiting = []
        for _ in range(2):
            assert turns.may_wait("b")
            waiting.append(asyncio.create_task(turns.take("b")))
            await asyncio.sleep(0)
        assert not turns.may_wait("b")
        assert turns.may_wait("c")
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert turns.may_wait("b")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("client", "whose"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::", 1), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1), "fe80::/64"),
        (("testclient", 1), "testclient"),
        (None, "-"),
    ],
)
def test_whose_request_it_is(client: Any, whose: str) -> None:
    assert client_of({"client": client}) == whose


def test_pictures_of_one_client_do_not_hold_up_those_of_another() -> None:
    url = "data:image/png;base64," + base64.b64encode(png(2500, 2500)).decode()
    with Served(lambda: Reasoner.of(ScriptedModel(lambda *_: "B"))) as served, ThreadPoolExecutor(12) as many:
        assert ask(served.port, chat(), OTHER)[0] == 200
        began = time.monotonic()
        large = [many.submit(ask, served.port, pictures_of(url, 3)) for _ in range(12)]
        wait_for(lambda: gauge(served, "in_flight") == 12)
        assert ask(served.port, chat(), OTHER)[0] == 200
        small_s = time.monotonic() - began
        assert sum(each.done() for each in large) < 6, f"it waited for {small_s:.1f} s"
        assert [each.result()[0] for each in large] == [200] * 12


def test_one_client_takes_no_more_places_than_its_share_while_another_waits() -> None:
    with (
        FakeServer(Settings(latency_s=600)) as fake,
        Served(lambda: Reasoner.of("openai/fake", base_url=fake.base_url), concurrency=2, wait_s=60) as served,
        ExitStack() as held,
    ):
        body = json.dumps(chat(image="")).encode()

        def begin(address: str) -> socket.socket:
            client = held.enter_context(
                socket.create_connection(("127.0.0.1", served.port), source_address=(address, 0))
            )
            head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            return client

        first, second = begin(ONE), begin(ONE)
        wait_for(lambda: len(fake.log()) == 2)
        waits = begin(OTHER)
        wait_for(lambda: gauge(served, "bytes_in_flight") > 0)
        time.sleep(0.2)
        status, headers, form = ask(served.port, chat(image=""))
        assert (status, form["error"]["code"]) == (429, "busy")
        assert int(headers["Retry-After"]) >= 1
        first.close()
        wait_for(lambda: len(fake.log()) == 3)
        waits.close()
        second.close()
        wait_for(lambda: gauge(served, "in_flight") == 0)


def test_a_client_that_waits_for_a_place_is_told_to_come_back_after_a_while() -> None:
    with (
        FakeServer(Settings(latency_s=600)) as fake,
        Served(lambda: Reasoner.of("openai/fake", base_url=fake.base_url), concurrency=1, wait_s=0.3) as served,
    ):
        asking = threading.Thread(target=ask, args=(served.port, chat(image="", insightv={"deadline_s": 3})))
        asking.start()
        wait_for(lambda: len(fake.log()) == 1)
        began = time.monotonic()
        status, headers, form = ask(served.port, chat(image=""), OTHER)
        assert (status, form["error"]["code"]) == (429, "busy")
        assert int(headers["Retry-After"]) >= 1
        assert 0.3 <= time.monotonic() - began < 3
        asking.join()


def test_requests_hold_a_bounded_number_of_bytes_and_leave_room_for_another_client() -> None:
    limits: dict[str, Any] = {"max_body_bytes": 100_000, "max_bytes_in_flight": 300_000}
    with Served(lambda: Reasoner.of(ScriptedModel(lambda *_: "B")), **limits) as served, ExitStack() as held:
        for _ in range(2):
            held.enter_context(sending(served.port, 90_000))
        wait_for(lambda: gauge(served, "bytes_in_flight") == 180_000)
        padded = {**chat(image=""), "user": "x" * 90_000}
        status, headers, form = ask(served.port, padded)
        assert (status, form["error"]["code"]) == (429, "busy")
        assert int(headers["Retry-After"]) >= 1
        assert ask(served.port, padded, OTHER)[0] == 200
        assert ask(served.port, chat(image=""))[0] == 200, "what is small has room"
        with sending(served.port, 90_000, OTHER):
            wait_for(lambda: gauge(served, "bytes_in_flight") == 270_000)
            assert ask(served.port, padded, "127.0.0.3")[0] == 429
        held.close()
        wait_for(lambda: gauge(served, "bytes_in_flight") == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_images_are_let_go_of_once_they_are_decoded(stream: bool) -> None:
    def resident_mb(pid: int) -> float:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("utf-8"))
        return int(found[1]) / 1024 if found else 0

    count, size = 8, 6 * 2**20
    with FakeServer(Settings(latency_s=600)) as fake, ExitStack() as held:
        model = ("--model", "openai/fake", "--base-url", fake.base_url)
        process, url = held.enter_context(serving(*model))
        port = int(url.rpartition(":")[2])
        body = json.dumps({**chat(image=large_url(size)), "stream": stream}).encode()
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        before = resident_mb(process.pid)
        for number in range(count):
            client = held.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            wait_for(lambda number=number: len(fake.log()) == number + 1)
        assert resident_mb(process.pid) - before < count * len(body) / 2**20 / 2


def test_a_bound_that_no_request_fits_in_is_refused() -> None:
    with pytest.raises(ValueError, match="max_bytes_in_flight = 2000 is below max_body_bytes = 3000"):
        ServeSection(max_body_bytes=3000, max_bytes_in_flight=2000)


def test_the_table_of_limits_names_every_key_with_its_default_and_a_reason() -> None:
    text = (Path(__file__).parents[2] / "docs" / "serve_limits.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \| (.+?) \| (.*?)\s*\|$", text, re.MULTILINE)
    fields = ServeSection.model_fields
    assert [row[0] for row in rows] == list(fields)
    for name, default, reason, _ in rows:
        assert default == (json.dumps(value) if isinstance(value := fields[name].default, str) else f"{value}"), name
        assert len(reason) > 20


@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_request_leaves_nothing_behind_that_only_the_collector_finds(stream: bool) -> None:
    size = 2**20
    later_image: Any = pictures_of(large_url(size), 2)
    later_image["messages"][0]["content"][1] = chat(image="data:image/png;base64,AAAA")["messages"][0]["content"][1]
    bodies = [{**later_image, "stream": stream}, {**chat(image=""), "user": "x" * size, "n": 2}]
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n"
    with Served(lambda: Reasoner.of(ScriptedModel(lambda *_: "B")), max_body_bytes=2 * size) as served:
        assert [ask(served.port, body)[0] for body in bodies] == [422, 422]
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(5):
                assert [ask(served.port, body)[0] for body in bodies] == [422, 422]
                with socket.create_connection(("127.0.0.1", served.port)) as client:  # too large only as it arrives
                    client.sendall(head.encode() + b"%x\r\n%s\r\n" % (3 * size, b" " * 3 * size))
                    assert client.recv(12) == b"HTTP/1.1 413"
            wait_for(lambda: gauge(served, "bytes_in_flight") == 0)
            assert tracemalloc.get_traced_memory()[0] < size
        finally:
            tracemalloc.stop()
            gc.enable()
