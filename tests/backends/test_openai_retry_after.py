"""Retry-After: its forms, and that no worker asks too early."""

from __future__ import annotations

import asyncio
import threading
import time
from email.utils import formatdate
from typing import Any

import pytest
from multidict import CIMultiDict

from insightv.backends.openai import endpoint
from insightv.backends.openai.retry_after import retry_after_s
from insightv.errors import EndpointParked, ModelError
from insightv.records import Sampling
from tests.backends.asking import ANSWER, SAMPLING, ask, model_at, question, with_model
from tests.servers.fake_openai import FakeServer, Settings

NOW = 1_800_000_000.0
SERVER_DATE = formatdate(NOW - 7200, usegmt=True)  # the server's clock is two hours behind


def server_date(shift: float) -> str:
    return formatdate(NOW - 7200 + shift, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"retry-after": " 3 "}, 3.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "3, 5"}, 5.0),
        ({"Retry-After": "3, soon"}, None),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "3600"}, 3600.0),
        ({"Retry-After": "999999999"}, 999999999.0),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "1e3"}, None),
        ({"Retry-After": "1_0"}, None),
        ({"Retry-After": "٣"}, None),
        ({"Retry-After": "99999999999999"}, 99999999999999.0),
        ({"Retry-After": "9" * 400}, 1e20),
        ({"Retry-After": "1.0000000000"}, 1.0),
        ({"retry-after-ms": "9" * 400}, 1e17),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "3 s"}, None),
        ({}, None),
        ({"Retry-After": server_date(4), "Date": SERVER_DATE}, 4.0),
        ({"Retry-After": server_date(-4), "Date": SERVER_DATE}, 0.0),
        ({"Retry-After": formatdate(NOW + 4, usegmt=True)}, 4.0),
        ({"Retry-After": formatdate(NOW + 4, usegmt=True), "Date": "yesterday"}, 4.0),
        ({"Retry-After": "Fri Jan 15 08:00:09 2027"}, 9.0),
        ({"Retry-After": "Friday, 15-Jan-27 08:00:09 GMT"}, 9.0),
        ({"Retry-After": "Fri, 15 Jan 2027 09:00:09 +0100"}, 9.0),
        ({"Retry-After": "Fri, 99 Jan 2027 08:00:09 GMT"}, None),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
        ({"retry-after-ms": "-5", "Retry-After": "1"}, 1.0),
        ({"x-ratelimit-reset": "20"}, 20.0),
        ({"x-ratelimit-reset": str(int(NOW) + 30)}, 30.0),
        ({"x-ratelimit-reset": str(int(NOW * 1000) + 30_000)}, 30.0),
        ({"x-ratelimit-reset": str(int(NOW * 10**9) + 30 * 10**9)}, 30.0),
        ({"x-ratelimit-reset-requests": "1m3.5s"}, 63.5),
        ({"x-ratelimit-reset-requests": "9" * 400 + "h"}, 1e20),
        ({"x-ratelimit-reset-requests": "120ms"}, 0.12),
        ({"x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "100"}, None),
        ({"x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "0"}, 360.0),
        ({"x-ratelimit-reset": "garbage"}, None),
        ({"x-ratelimit-reset": "20", "Retry-After": "2"}, 2.0),
    ],
)
def test_forms(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(CIMultiDict(headers), NOW) == (None if expected is None else pytest.approx(expected))


def workers(server: FakeServer, count: int, **options: Any) -> tuple[float, list[dict[str, Any]]]:
    """`count` calls at one moment; the seconds they took, and the server's log."""

    async def everybody(model: Any) -> None:
        calls = (model.chat(question(), Sampling(seed=seed), schema=ANSWER) for seed in range(count))
        await asyncio.gather(*calls)

    began = time.monotonic()
    with_model(server, everybody, **options)
    return time.monotonic() - began, server.log()


@pytest.mark.parametrize(
    ("fault", "wait_s"), [("429=1", 1.0), ("429:retry-after-ms=700", 0.7), ("503=1", 1.0), ("429={date+2}", 1.0)]
)
def test_no_worker_asks_before_the_moment(fault: str, wait_s: float) -> None:
    """All 40 in flight are refused, then 24 more are waiting to begin: none of the 64 comes early."""
    with FakeServer(Settings(script=(fault,) * 40, latency_s=0.15)) as server:
        took, log = workers(server, 64, connections=40)
    refusals, later = log[:40], log[40:]
    closed_at = min(entry["done"] for entry in refusals)
    assert len(log) == 104
    assert min(entry["time"] for entry in later) >= closed_at + wait_s - 0.05
    assert took < 2.15 + 5.0, "waited much longer than asked"


def test_a_limit_met_by_one_model_holds_for_another_of_the_same_server() -> None:
    async def both() -> None:
        async with model_at(server) as one, model_at(server) as other:
            first = asyncio.create_task(one.chat(question(), SAMPLING, schema=ANSWER))
            await asyncio.sleep(0.3)
            await other.chat(question(), Sampling(seed=2), schema=ANSWER)
            await first

    with FakeServer(Settings(script=("429=1",))) as server:
        asyncio.run(both())
        refused, *later = server.log()
    assert min(entry["time"] for entry in later) >= refused["done"] + 0.95


def test_waiting_for_a_limit_does_not_count_against_the_deadline() -> None:
    with FakeServer(Settings(script=("429=2",))) as server:
        [reply] = ask(server, deadline_s=1.0)
    assert reply.usage.requests == 2


@pytest.mark.parametrize("value", ["0", "-1", "nan", ""])
def test_without_a_usable_moment_there_is_a_short_pause(value: str) -> None:
    with FakeServer(Settings(script=(f"429={value}",) * 3)) as server:
        began = time.monotonic()
        [reply] = ask(server)
    assert reply.usage.requests == 4
    assert time.monotonic() - began < 8


def test_repeated_limits_without_a_moment_close_the_endpoint_for_longer_and_longer() -> None:
    with FakeServer(Settings(faults={"429": 1.0}, latency_s=0.05)) as server:
        timer = threading.Timer(1.5, lambda: server.change(faults={}))
        timer.start()
        took, log = workers(server, 20)
        timer.join()
    assert 20 <= sum(entry["fault"] == "429" for entry in log) < 80, "20 workers hammer a server that is full"
    assert took < 1.5 + 8


def test_a_long_wait_parks_the_endpoint_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    async def first_minute(model: Any) -> None:
        calls = [asyncio.create_task(model.chat(question(), Sampling(seed=seed))) for seed in range(8)]
        done, waiting = await asyncio.wait(calls, timeout=1.0)
        assert not done, "a parked call ended"
        for call in waiting:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    with FakeServer(Settings(script=("429=3600",) * 8)) as server:
        with_model(server, first_minute, deadline_s=0.5)
        assert len(server.log()) == 8
    parks = [record.getMessage() for record in caplog.records if "left alone" in record.getMessage()]
    assert len(parks) == 1
    assert "3600 s" in parks[0]


@pytest.mark.parametrize(("seconds", "told"), [("90000", r"25\.0 hours"), ("9" * 14, "hours"), ("9" * 400, "hours")])
def test_more_than_a_day_stops_the_run(seconds: str, told: str) -> None:
    async def twice(model: Any) -> None:
        for _ in range(2):
            with pytest.raises(EndpointParked, match=told) as caught:
                await model.chat(question(), SAMPLING)
            costs.append(caught.value.usage.requests)

    costs: list[int] = []
    with FakeServer(Settings(script=(f"429={seconds}",))) as server:
        with_model(server, twice)
        assert len(server.log()) == 1
    assert costs == [1, 0]


def test_a_parked_servers_chains_move_to_another() -> None:
    async def work(model: Any) -> int:
        for seed in range(6):
            await model.chat(question(), Sampling(seed=seed), schema=ANSWER)
        return 6

    with FakeServer(Settings(script=("429=3600",))) as parked, FakeServer() as other:

        async def both() -> None:
            from insightv.backends.openai.factory import openai

            model = openai("fake", base_url=[parked.base_url, other.base_url])
            await work(model)
            await model.aclose()

        asyncio.run(both())
        assert len(parked.log()) == 1
        assert len(other.log()) == 6


def test_a_lone_limit_amid_replies_does_not_stop_the_others() -> None:
    with FakeServer(Settings(faults={"429": 0.05}, latency_s=0.02)) as server:
        took, log = workers(server, 400, connections=16)
    assert sum(entry["fault"] == "429" for entry in log) >= 10
    assert took < 15  # a pause of a second for all after each refusal would take over 20


def test_a_server_that_never_stops_refusing_ends_by_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_BUSIEST_S", 0.1)
    with FakeServer(Settings(faults={"429": 1.0})) as server:
        with pytest.raises(ModelError) as caught:
            ask(server, deadline_s=1.0)
        requests = len(server.log())
    assert caught.value.code in ("rate_limited", "timeout")
    assert "429" in str(caught.value)
    assert requests <= caught.value.usage.requests <= requests + 1  # the last may be cut off before it is read
