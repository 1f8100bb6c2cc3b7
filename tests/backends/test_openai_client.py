"""A client of the user's own: its way of signing in, our judgement of replies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from openai import AsyncOpenAI

from insightv.backends.openai import endpoint, openai, retry
from insightv.backends.openai.model import OpenAIModel
from insightv.errors import ConfigError, InsightvError, KeyRefused, ModelError, ModelUnknown, QuotaExhausted
from insightv.records import Completion, Sampling
from tests.backends.asking import ANSWER, SAMPLING, STEP, ask, question
from tests.servers.fake_openai import FakeServer, Settings

RIGHT = '{"answer": "7"}'
KEY = "canary-key-of-the-client"
Result = TypeVar("Result")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "LONGEST_BACKOFF_S", 0.02)
    monkeypatch.setattr(endpoint, "PROBE_GAPS_S", (0.1,))


def through(server: FakeServer, work: Callable[[OpenAIModel], Awaitable[Result]], **options: Any) -> Result:
    async def whole() -> Result:
        async with AsyncOpenAI(api_key=KEY, base_url=server.base_url) as client:
            return await work(openai("fake", client=client, **options))

    return asyncio.run(whole())


def once(server: FakeServer, **options: Any) -> list[Completion]:
    return through(server, lambda model: model.chat(question(), SAMPLING, schema=ANSWER), **options)


def test_the_same_request_and_the_same_reply_as_over_the_lean_seam() -> None:
    extra = {"repetition_penalty": 1.1, "max_tokens": None}

    async def work(model: Any) -> Any:
        return await model.chat(question(), Sampling(extra=extra), n=2, schema=STEP)

    with FakeServer(Settings(key=KEY)) as server:
        theirs = through(server, work)
        [entry] = server.log()
    assert entry["fields"]["repetition_penalty"] == 1.1
    assert entry["schema"] == "reasoning_step"
    with FakeServer() as server:
        ours = ask(server, n=2, schema=STEP)
        assert server.log()[0]["size"] == entry["size"], "the SDK sent other messages"
    assert len(theirs) == len(ours) == 2


@pytest.mark.parametrize(
    "fault",
    [
        *("429", "500", "503", "reset", "cut", "cut_json", "html", "bad_utf8", "blank"),
        *("empty_choices", "null_choices", "error200", "null_content", "gzip_bomb=20"),
    ],
)
def test_transient_faults_are_tried_again_by_us_alone(fault: str) -> None:
    with FakeServer(Settings(script=(fault, fault))) as server:
        [reply] = once(server)
        assert len(server.log()) == 3
    assert (reply.text, reply.usage.requests) == (RIGHT, 3)


def test_a_reply_that_is_cut_for_ever_ends_with_its_start_kept() -> None:
    with FakeServer(Settings(faults={"cut": 1.0})) as server:
        with pytest.raises(ModelError) as caught:
            once(server)
        assert len(server.log()) == retry.MALFORMED_TRIES
    assert caught.value.code == "malformed"
    assert caught.value.kept.startswith('{"')


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("401", KeyRefused),
        ("404", ModelUnknown),
        ("quota", QuotaExhausted),
        ("400", ModelError),
        ("too_long", ModelError),
    ],
)
def test_final_answers_are_final(fault: str, kind: type[InsightvError]) -> None:
    with FakeServer(Settings(faults={fault: 1.0})) as server:
        with pytest.raises(kind) as caught:
            once(server)
        assert len(server.log()) == 1
    assert "canary" not in str(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)


def test_retry_after_and_refusals_are_read() -> None:
    with FakeServer(Settings(script=("429=1", "filter400"))) as server:
        [reply] = once(server, deadline_s=0.5)
        first, second = server.log()
    assert second["time"] - first["done"] >= 0.95
    assert (reply.finish, reply.usage.requests) == ("refusal", 2)


def test_nobody_listening() -> None:
    with FakeServer() as server:
        pass
    with pytest.raises(ModelError) as caught:
        once(server, deadline_s=1.5)
    assert (caught.value.code, caught.value.usage.requests) == ("connection", 0)


def test_a_hang_ends_by_the_deadline() -> None:
    with FakeServer(Settings(faults={"hang": 1.0})) as server, pytest.raises(ModelError) as caught:
        once(server, deadline_s=0.5)
    assert caught.value.code == "timeout"


def test_streams() -> None:
    async def work(model: OpenAIModel) -> list[str | Completion]:
        return [piece async for piece in model.stream(question(), SAMPLING, schema=ANSWER)]

    with FakeServer() as server:
        *pieces, end = through(server, work)
    assert pieces == ['{"ans', 'wer":', ' "7"}']
    assert isinstance(end, Completion)
    assert end.text == RIGHT


def test_a_client_and_a_base_url_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="leave one out"):
        openai("fake", client=AsyncOpenAI(api_key="x"), base_url="http://localhost/v1")


def test_the_client_stays_open_for_its_owner() -> None:
    async def work() -> None:
        async with AsyncOpenAI(api_key=KEY, base_url=server.base_url) as client:
            model = openai("fake", client=client)
            await model.chat(question(), SAMPLING)
            await model.aclose()
            assert (await client.models.list()).data[0].id == "fake"

    with FakeServer() as server:
        asyncio.run(work())


def test_a_client_is_kept_to_one_loop() -> None:
    with FakeServer() as server:
        client = AsyncOpenAI(api_key=KEY, base_url=server.base_url)
        model = openai("fake", client=client)

        async def twice() -> None:
            for _ in range(2):
                await model.chat(question(), SAMPLING)

        async def again() -> None:
            with pytest.raises(ConfigError, match=r"was used in another event loop.*make a client, and a model of it"):
                await model.chat(question(), SAMPLING)

        with asyncio.Runner() as first:
            first.run(twice())
            asyncio.run(again())
            first.run(client.close())
        assert len(server.log()) == 2
