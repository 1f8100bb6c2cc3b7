"""Time: deadlines, servers that are down, servers of which one is down."""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import pairwise
from typing import Any

import pytest

from insightv.backends.openai import endpoint, openai, retry
from insightv.backends.openai.endpoint import Endpoint, EndpointPool, Patience
from insightv.errors import ConfigError, ModelError
from insightv.records import Message, Sampling
from tests.backends.asking import ANSWER, SAMPLING, ask, open_sockets, question, sockets_back_to, with_model
from tests.servers.fake_openai import FakeServer, Settings


@pytest.mark.parametrize("fault", ["hang", "drip=0.05"])
def test_a_reply_that_does_not_end_is_given_up_at_the_deadline(fault: str) -> None:
    sockets = open_sockets()
    with FakeServer(Settings(faults={fault: 1.0})) as server:
        began = time.monotonic()
        with pytest.raises(ModelError, match=r"1 try within deadline_s = 0\.7 s") as caught:
            ask(server, deadline_s=0.7)
        assert 0.7 <= time.monotonic() - began < 10
    assert (caught.value.code, caught.value.usage.requests) == ("timeout", 1)
    assert sockets_back_to(sockets)


def test_failing_for_ever_ends_by_the_deadline_with_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "LONGEST_BACKOFF_S", 0.2)
    monkeypatch.setattr(endpoint, "PROBE_GAPS_S", (0.2,))
    with FakeServer(Settings(faults={"503": 1.0})) as server:
        began = time.monotonic()
        with pytest.raises(ModelError) as caught:
            ask(server, deadline_s=1.0)
        took = time.monotonic() - began
        assert caught.value.usage.requests == len(server.log())
    assert took < 10
    assert caught.value.code in ("server_error", "connection", "timeout"), "the deadline may fall into a try"
    assert "the server answered 503" in str(caught.value)


def test_nobody_listening_ends_after_the_patience_and_costs_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PROBE_GAPS_S", (0.2,))
    with FakeServer() as server:
        pass
    began = time.monotonic()
    with pytest.raises(ModelError, match=r"127\.0\.0\.1") as caught:
        ask(server, deadline_s=0.5)
    assert 0.5 < time.monotonic() - began < 10
    assert (caught.value.code, caught.value.usage.requests) == ("connection", 0)


def test_an_outage_is_waited_out_with_few_probes_and_nothing_fails(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 calls; the server goes away in the middle for 4.5 s, longer than the deadline of a call."""
    monkeypatch.setattr(endpoint, "PROBE_GAPS_S", (0.2, 0.4, 0.8))

    async def everybody(model: Any) -> list[Any]:
        calls = (model.chat(question(), Sampling(seed=seed), schema=ANSWER) for seed in range(60))
        return await asyncio.gather(*calls)

    with FakeServer(Settings(latency_s=0.4)) as server:

        def outage() -> None:
            time.sleep(0.6)
            server.down()
            time.sleep(4.5)
            server.up()
            times.append(time.monotonic())

        times: list[float] = []
        thread = threading.Thread(target=outage)
        thread.start()
        replies = with_model(server, everybody, connections=20, deadline_s=4.0)
        ended = time.monotonic()
        thread.join()
    assert len(replies) == 60
    assert ended - times[0] < 5
    messages = [record.getMessage() for record in caplog.records]
    assert sum("is down" in message for message in messages) == 1
    assert sum("answers again" in message for message in messages) == 1


def test_a_server_that_is_up_but_broken_is_probed_not_hammered() -> None:
    async def everybody(model: Any) -> None:
        calls = (model.chat(question(), Sampling(seed=seed), schema=ANSWER) for seed in range(40))
        await asyncio.gather(*calls)

    with FakeServer(Settings(faults={"503": 1.0})) as server:
        timer = threading.Timer(4.0, lambda: server.change(faults={}))
        timer.start()
        began = time.monotonic()
        with_model(server, everybody, connections=40)
        took = time.monotonic() - began
        failures = sum(entry["fault"] == "503" for entry in server.log())
        timer.join()
    assert failures <= 40 + 5, "the breaker let more than probes through"
    assert took < 4 + 8


async def checked(model: Any) -> str:
    """What `check` finds wrong; "" for nothing."""
    try:
        await model.check()
    except ConfigError as error:
        return str(error)
    finally:
        await asyncio.sleep(0.02)  # until the server has taken the connection, and seen it closed
    return ""


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "LONGEST_BACKOFF_S", 0.02)
    monkeypatch.setattr(endpoint, "PROBE_GAPS_S", (0.3,))


@pytest.mark.usefixtures("_patient")
def test_a_server_that_only_fails_cannot_be_asked_until_it_answers_again() -> None:
    async def outage(model: Any) -> None:
        assert await checked(model) == "", "nothing is known of it, and it listens"
        with pytest.raises(ModelError):
            await model.chat(question(), SAMPLING)
        assert "answered 500" in await checked(model)
        for status in (200, 401, 404, 501):
            server.change(models_status=status)
            assert await checked(model) == "", "a server that is up again is refused"
        server.change(faults={})
        await model.chat(question(), SAMPLING, schema=ANSWER)
        server.change(models_status=500)
        assert await checked(model) == "", "a server that answers was asked for more than to listen"

    with FakeServer(Settings(faults={"503": 1.0}, models_status=500)) as server:
        with_model(server, outage, deadline_s=0.5)


@pytest.mark.usefixtures("_patient")
def test_calls_that_wait_for_a_server_know_better_than_its_list_of_models() -> None:
    async def outage(model: Any) -> None:
        calls = [asyncio.create_task(model.chat(question(), Sampling(seed=seed), schema=ANSWER)) for seed in range(4)]
        while not (fault := await checked(model)):
            await asyncio.sleep(0.02)
        assert "is down (the server answered 503" in fault
        server.change(faults={})
        await asyncio.gather(*calls)
        assert await checked(model) == ""
        assert [endpoint.waiting for endpoint in model._pool._endpoints] == [0]

    with FakeServer(Settings(faults={"503": 1.0})) as server:
        with_model(server, outage)


@pytest.mark.usefixtures("_patient")
def test_one_server_that_can_be_asked_is_enough() -> None:
    async def outage() -> None:
        model = openai("fake", base_url=[one.base_url, two.base_url], deadline_s=0.5)
        endpoint = model._pool._endpoints[0]
        endpoint.is_failing("refused", connected=False)
        assert await checked(model) == ""
        await asyncio.to_thread(two.down)
        fault = await checked(model)
        assert one.base_url in fault
        assert two.base_url in fault
        await model.aclose()

    with FakeServer(Settings(models_status=503)) as one, FakeServer() as two:
        asyncio.run(outage())


def test_probes_in_a_minute_of_outage() -> None:
    """Case by the clock alone: a minute without the server costs at most 10 probes, the gaps are under 10 s."""
    endpoint, now, probes = Endpoint("http://x/v1"), 1000.0, []
    endpoint.is_failing("refused", connected=False)
    endpoint._probe_at = now
    while now < 1060:
        if endpoint.opens_in(now) <= 0:
            probes.append(now)
            endpoint.enter(now)
            endpoint.leave()
        now += 0.1
    assert 5 <= len(probes) <= 10
    assert max(after - before for before, after in pairwise(probes)) < 10


def test_a_chain_stays_where_it_began_and_new_ones_go_where_there_is_room() -> None:
    async def chains(model: Any) -> None:
        async def chain(number: int) -> None:
            messages = [Message(role="system", content="Look."), Message(role="user", content=f"Q{number} [truth=1]")]
            for step in range(4):
                [reply] = await model.chat(messages, Sampling(seed=step), schema=ANSWER)
                messages += [Message(role="assistant", content=reply.text), Message(role="user", content="Go on.")]

        await asyncio.gather(*(chain(number) for number in range(30)))

    with FakeServer(Settings(latency_s=0.02)) as one, FakeServer(Settings(latency_s=0.02)) as two:

        async def both() -> None:
            model = openai("fake", base_url=[one.base_url, two.base_url])
            await chains(model)
            await model.aclose()

        asyncio.run(both())
        for server in (one, two):
            log = server.log()
            assert 48 <= len(log) <= 72, "the load is not balanced"
            assert sum(entry["extends"] is None for entry in log) == len(log) / 4, "a chain was split"


def test_chains_of_a_broken_server_go_on_at_another() -> None:
    async def work(model: Any) -> None:
        for step in range(4):
            calls = (model.chat([Message(role="user", content=f"Q{i}")], Sampling(seed=step)) for i in range(10))
            await asyncio.gather(*calls)
            if step == 1:
                await asyncio.to_thread(one.down)

    with FakeServer() as one, FakeServer() as two:

        async def both() -> None:
            model = openai("fake", base_url=[one.base_url, two.base_url], deadline_s=5)
            await work(model)
            await model.aclose()

        began = time.monotonic()
        asyncio.run(both())
        assert time.monotonic() - began < 5
        assert len(one.log()) == 10
        assert len(two.log()) == 30


def test_memory_of_homes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "HOMES", 100)
    one, two = Endpoint("http://one/v1"), Endpoint("http://two/v1")
    pool = EndpointPool([one, two])

    async def many() -> None:
        for number in range(1000):
            endpoint = await pool.admit(str(number).encode(), Patience(1))
            endpoint.leave()

    asyncio.run(many())
    assert len(pool._homes) == 100
    assert sum(pool._chains.values()) == 100
    assert abs(pool._chains[one] - pool._chains[two]) <= 2


def test_cancelled_calls_leave_nothing_behind() -> None:
    async def cancel(model: Any) -> int:
        calls = [asyncio.create_task(model.chat(question(), Sampling(seed=seed))) for seed in range(10)]
        await asyncio.sleep(0.3)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        server.change(faults={})
        await model.chat(question(), SAMPLING)
        return sum(endpoint.in_flight for endpoint in model._pool._endpoints)

    with FakeServer(Settings(faults={"hang": 1.0})) as server:
        assert with_model(server, cancel, connections=10) == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"base_url": "localhost:8000/v1"}, "localhost:8000"),
        ({"base_url": "ftp://x/v1"}, "ftp"),
        ({"base_url": "http://"}, "http"),
        ({"base_url": "http://x:99999/v1"}, "99999"),
        ({"base_url": "http://x/v1?key=1"}, "query"),
        ({"base_url": []}, "empty"),
        ({"base_url": [7]}, "7"),
        ({"structured": "yaml"}, "yaml"),
        ({"deadline_s": 0}, "deadline_s"),
        ({"deadline_s": float("nan")}, "deadline_s"),
        ({"connections": -1}, "connections"),
        ({"max_reply_bytes": "8"}, "max_reply_bytes"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        openai("fake", **{"base_url": "http://localhost/v1", **options})


def test_base_urls_are_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", " HTTP://LocalHost:8000/v1/ ")
    assert openai("fake")._pool._endpoints[0].url == "http://localhost:8000/v1/chat/completions"
    urls = ["http://[::1]:1/v1/chat/completions", "http://[::1]:1/v1"]
    assert [endpoint.label for endpoint in openai("fake", base_url=urls)._pool._endpoints] == ["http://[::1]:1/v1"]


def test_the_public_api_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="MY_KEY"):
        openai("gpt", api_key_env="MY_KEY")
    monkeypatch.setenv("MY_KEY", "sk-something")
    assert openai("gpt", api_key_env="MY_KEY").name == "openai/gpt"


def test_a_variable_that_is_named_must_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("MY_KEY", raising=False)
    assert openai("own", base_url="http://localhost:1/v1").name == "openai/own"
    with pytest.raises(ConfigError, match="MY_KEY, which api_key_env names, is not set"):
        openai("own", base_url="http://localhost:1/v1", api_key_env="MY_KEY")
