"""The Batch API mode: calls become jobs, jobs outlive the process, and what a job does not answer is sent again."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from insightv.backends.jobs import MemoryLedger
from insightv.backends.openai.batch import BatchModel
from insightv.backends.openai.factory import openai
from insightv.errors import ConfigError, EndpointParked, KeyRefused, ModelError, QuotaExhausted
from insightv.records import Completion, Sampling
from tests.backends.asking import ANSWER, question
from tests.servers.fake_batches import FakeBatchServer, Jobs
from tests.servers.fake_openai import FakeServer, Settings

Result = TypeVar("Result")


def batch_at(server: FakeServer, **options: Any) -> BatchModel:
    quick: dict[str, Any] = {"gather_s": 0.05, "poll_s": 0.01} | options
    return openai("fake", base_url=server.base_url, mode="batch", **quick)


def with_batch(server: FakeServer, work: Callable[[BatchModel], Awaitable[Result]], **options: Any) -> Result:
    async def whole() -> Result:
        model = batch_at(server, **options)
        try:
            return await work(model)
        finally:
            await model.aclose()

    return asyncio.run(whole())


async def many(model: BatchModel, count: int, first: int = 0) -> list[list[Completion] | BaseException]:
    calls = (model.chat(question(), Sampling(seed=seed), schema=ANSWER) for seed in range(first, first + count))
    return await asyncio.gather(*calls, return_exceptions=True)


def usages(found: list[list[Completion] | BaseException]) -> list[int]:
    return [replies[0].usage.requests for replies in found if isinstance(replies, list)]


def test_calls_under_way_become_one_job_and_each_gets_its_own_row() -> None:
    with FakeBatchServer(Settings(wrong=0.5)) as server:
        found = with_batch(server, lambda model: many(model, 20))
        (job,) = server.jobs.made
        said = {entry["seed"]: entry["said"][0]["answer"] for entry in server.log()}
    assert len(job["lines"]) == 20
    assert {line["url"] for line in job["lines"]} == {"/v1/chat/completions"}
    assert job["completion_window"] == "24h"
    for seed, replies in enumerate(found):
        assert isinstance(replies, list)
        assert said[seed] in replies[0].text
        assert replies[0].usage.prompt_tokens > 0
    assert usages(found) == [1] * 20


def test_rows_that_fail_are_sent_again_and_only_they() -> None:
    jobs = Jobs(row_errors=[500, 429, 500, 400])
    with FakeBatchServer(jobs=jobs) as server:
        found = with_batch(server, lambda model: many(model, 10))
    assert [len(job["lines"]) for job in jobs.made] == [10, 3]
    assert sorted(usages(found)) == [1] * 6 + [2] * 3
    (refused,) = (error for error in found if isinstance(error, ModelError))
    assert (refused.code, refused.usage.requests) == ("bad_request", 1)


@pytest.mark.parametrize("end", ["expired", "failed"])
def test_an_expired_or_congested_job_costs_another_job_for_what_it_left(end: str) -> None:
    jobs = Jobs(ends=[end], failures=[{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}])
    with FakeBatchServer(jobs=jobs) as server:
        found = with_batch(server, lambda model: many(model, 8))
        log = server.log()
    left = 4 if end == "expired" else 8
    assert [len(job["lines"]) for job in jobs.made] == [8, left]
    assert sorted(usages(found)) == [1] * (8 - left) + [2] * left
    assert len({entry["seed"] for entry in log}) == len(log) == 8  # no row is answered twice


def test_a_cancelled_job_is_not_sent_again_on_its_own() -> None:
    jobs = Jobs(ends=["cancelled"])
    with FakeBatchServer(jobs=jobs) as server:
        found = with_batch(server, lambda model: many(model, 6))
    assert len(jobs.made) == 1
    assert len(usages(found)) == 3
    assert {error.code for error in found if isinstance(error, ModelError)} == {"batch_cancelled"}


def test_a_refused_row_costs_itself_and_a_refused_account_the_run() -> None:
    jobs = Jobs(ends=["failed"], failures=[{"code": "invalid_json", "message": "no", "line": 2}])
    with FakeBatchServer(jobs=jobs) as server:
        found = with_batch(server, lambda model: many(model, 3))
    assert [len(job["lines"]) for job in jobs.made] == [3, 2]
    assert [getattr(each, "code", "") for each in found] == ["", "bad_request", ""]
    broke = Jobs(ends=["failed"], failures=[{"code": "billing_hard_limit_reached", "message": "pay first"}])
    with FakeBatchServer(jobs=broke) as server:
        found = with_batch(server, lambda model: many(model, 3))
    assert [type(each) for each in found] == [QuotaExhausted] * 3
    with FakeBatchServer(Settings(key="another")) as server:
        found = with_batch(server, lambda model: many(model, 2))
    assert [type(each) for each in found] == [KeyRefused] * 2


def test_a_call_that_is_never_answered_ends_after_four_jobs() -> None:
    jobs = Jobs(ends=["expired"] * 9)
    with FakeBatchServer(jobs=jobs) as server:
        (found,) = with_batch(server, lambda model: many(model, 1))
    assert isinstance(found, ModelError)
    assert (found.code, found.usage.requests, len(jobs.made)) == ("batch_expired", 4, 4)


def test_a_job_whose_creation_was_not_answered_is_found_and_not_made_twice() -> None:
    jobs = Jobs(lost_replies=1, busy=2)
    with FakeBatchServer(jobs=jobs) as server:
        found = with_batch(server, lambda model: many(model, 5))
    assert len(jobs.made) == 1
    assert usages(found) == [1] * 5
    assert jobs.asked["list"] >= 1


ODD = {
    "html": b"<html>Bad gateway</html>",
    "cut": b'{"id": "batch-0", "sta',
    "null": b"null",
    "empty": b"{}",
    "list": b"[]",
    "nothing": b"",
    "large": b" " * (9 * 2**20),
    "bomb": zlib.compress(b" " * (64 * 2**20), 9, wbits=31),
}


@pytest.mark.parametrize("body", ODD)
@pytest.mark.parametrize("kind", ["upload", "create", "poll"])
def test_a_reply_that_cannot_be_read_costs_another_request_and_no_call(kind: str, body: str) -> None:
    jobs = Jobs(odd={kind: [ODD[body]]})
    with FakeBatchServer(jobs=jobs) as server:
        found = with_batch(server, lambda model: many(model, 3))
    assert usages(found) == [1] * 3
    assert len(jobs.made) == 1


def test_a_reply_that_never_ends_ends_with_the_deadline() -> None:
    jobs = Jobs(odd={"poll": [b"drip"] * 9})
    with FakeBatchServer(jobs=jobs) as server:
        began = time.monotonic()
        (found,) = with_batch(server, lambda model: many(model, 1), deadline_s=1.0)
    assert isinstance(found, ModelError)
    assert (found.code, time.monotonic() - began < 20) == ("timeout", True)


def test_a_service_that_wants_days_of_rest_stops_the_run() -> None:
    with FakeBatchServer(jobs=Jobs(park_s=10 * 24 * 3600)) as server:
        (found,) = with_batch(server, lambda model: many(model, 1))
    assert isinstance(found, EndpointParked)
    assert "240.0 hours" in str(found)


@pytest.mark.parametrize("forgets", ["nothing", "the id", "the job"])
def test_a_model_that_starts_anew_polls_the_job_that_is_out(forgets: str) -> None:
    ledger, jobs = MemoryLedger(), Jobs(hold=True)

    async def begin(model: BatchModel) -> None:
        model.keep_jobs(ledger)
        asking = asyncio.create_task(many(model, 6))
        while not jobs.asked["poll"]:
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    async def raise_if_stopped(model: BatchModel) -> list[list[Completion] | BaseException]:
        model.keep_jobs(ledger)
        return await many(model, 8)  # two of them are new

    with FakeBatchServer(jobs=jobs) as server:
        with_batch(server, begin)
        if forgets != "nothing":  # the process ended between planning the job and keeping its id
            (tag,) = ledger._jobs
            ledger._jobs[tag] = (ledger._jobs[tag][0], None)
        if forgets == "the job":  # ... and before it was sent
            jobs.made[0]["metadata"] = None
        jobs.hold = False
        found = with_batch(server, raise_if_stopped)
        log = server.log()
    assert usages(found) == [1] * 8
    assert [len(job["lines"]) for job in jobs.made] == ([6, 8] if forgets == "the job" else [6, 2])
    assert len({entry["seed"] for entry in log}) == len(log) == 8


def test_what_batches_cannot_do_is_refused() -> None:
    with pytest.raises(ConfigError, match="works with one base_url, and 2 are given"):
        openai("fake", base_url=["http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"], mode="batch")
    with FakeServer() as server, pytest.raises(ConfigError, match="has no Batch API"):
        with_batch(server, lambda model: model.chat(question(), Sampling()))
    with pytest.raises(ConfigError, match="poll_s is 0"):
        openai("fake", base_url="http://127.0.0.1:1/v1", mode="batch", poll_s=0)
    with pytest.raises(ConfigError, match="mode is 'bulk'"):
        openai("fake", base_url="http://127.0.0.1:1/v1", mode="bulk")  # type: ignore[call-overload]
