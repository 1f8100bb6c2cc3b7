"""`mode = "batch"` of the `openai` backend: calls under way go out together as jobs of the Batch API, at half price.

A call joins those that wait; when none has come for `gather_s`, all of them become one job (several, where the limits
of the service ask for it). So step k of all living chains is one job. The job's plan and then its id are kept in the
ledger before anything is waited for; a call that is asked again after a restart waits for the job that it is in.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from insightv.backends.call_key import call_key
from insightv.backends.jobs import JobEntry, JobLedger, JobModel, MemoryLedger
from insightv.backends.openai.address import Address, Proxy, proxy_of, reach_any, unreached
from insightv.backends.openai.batch_results import Outcome, failures, rows_of, verdict_of
from insightv.backends.openai.batch_service import ENDPOINT, BatchService, NoSuchJob
from insightv.backends.openai.classify import Answered, Halt, Refused, of_reply
from insightv.backends.openai.fit import Fit
from insightv.backends.openai.request import request_body
from insightv.concurrency import end_all
from insightv.errors import ConfigError, ModelError
from insightv.records import Completion, Message, Sampling, Schema, Usage
from insightv.redact import Redactor

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = logging.getLogger("insightv.openai")

MOST_ROWS, MOST_BYTES = 50_000, 190_000_000
"""The service's limits for one job are 50,000 requests and 200 MB."""
MOST_TRIES = 4
"""Jobs that one call may be part of."""
LONGEST_S = 30 * 3600.0
"""A job that is not over by then, six hours after its window of 24, is given up."""
_LONGEST_GATHER = 15
_OVER = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass(eq=False)
class _Call:
    """A call that waits to be sent; `job` becomes the job that it goes out with."""

    key: bytes
    body: Sequence[bytes]
    tries: int
    job: asyncio.Future[_Job] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def size(self) -> int:
        return 200 + sum(map(len, self.body))


@dataclass(eq=False)
class _Job:
    """A job that is out: its outcome to come, and how many calls wait for it."""

    outcome: asyncio.Task[Outcome]
    asking: int = 0


class BatchModel(JobModel):
    """A model of one Batch API. `gather_s` is the pause in arrivals that closes a job, `poll_s` that between polls.

    Raises:
        ConfigError: there is more than one address.
    """

    def __init__(
        self,
        model: str,
        *,
        addresses: Sequence[Address],
        client: AsyncOpenAI | None,
        proxy: Proxy,
        fit: Fit,
        deadline_s: float,
        gather_s: float,
        poll_s: float,
    ) -> None:
        if len(addresses) > 1:
            raise ConfigError(f'mode = "batch" works with one base_url, and {len(addresses)} are given; leave one')
        self.name: str = f"openai/{model}"
        self._ledger: JobLedger = MemoryLedger()
        self._model = model
        self._address = addresses[0]
        self._client, self._proxy = client, proxy
        self._fit = fit
        self._deadline_s, self._gather_s, self._poll_s = deadline_s, gather_s, poll_s
        self._redactor = Redactor(self._address.secrets)
        self._made: BatchService | None = None
        self._waiting: list[_Call] = []
        self._gathering: asyncio.Task[None] | None = None
        self._jobs: dict[str, _Job] = {}

    def keep_jobs(self, ledger: JobLedger) -> None:
        """See `JobModel.keep_jobs`."""
        self._ledger = ledger

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        """See `ChatModel.chat`. The usage counts every job that the call was part of as one request."""
        key = bytes.fromhex(call_key(self.name, messages, sampling, schema=schema, n=n))
        body = request_body(
            self._model, messages, sampling, n=1 if self._fit.draws_one else n, schema=schema, fit=self._fit
        )
        entry = await self._ledger.entry(key)
        usage = Usage()
        if entry is not None:
            usage = Usage(requests=entry.tries)
            outcome = await self._over(self._known(entry))
            found = outcome.rows.get(key)
            verdict = of_reply(found, n, self._redactor) if found is not None else None
            if outcome.status == "unsent":
                usage = Usage(requests=entry.tries - 1)
            elif isinstance(verdict, Answered):
                return _counted(verdict, usage)
        last = ""
        for _ in range(MOST_TRIES):
            usage += Usage(requests=1)
            outcome = await self._sent(_Call(key, body, usage.requests))
            verdict = verdict_of(outcome, key, n, self._redactor)
            if isinstance(verdict, Answered):
                return _counted(verdict, usage)
            if isinstance(verdict, Halt):
                stop = verdict.stop(f"{self._address.url}: {verdict.text}; correct it, then resume")
                stop.usage = usage
                raise stop
            if isinstance(verdict, Refused):
                raise ModelError(verdict.code, verdict.text, usage=usage + verdict.usage, kept=verdict.kept)
            usage += verdict.usage
            last, code = verdict.text, verdict.code
        raise ModelError(code, f"not answered in {MOST_TRIES} jobs; the last: {last}", usage=usage)

    async def check(self) -> None:
        """See `ChatModel.check`: whether the server listens."""
        if self._client is None:
            await reach_any([self._address], lambda address: unreached(address, self._proxy))

    async def aclose(self) -> None:
        """Stop waiting; the jobs that are out stay out, and the ledger knows them."""
        gathering = [self._gathering] if self._gathering else []
        await end_all([*(job.outcome for job in self._jobs.values()), *gathering])
        self._jobs.clear()
        if self._made is not None and self._client is None:
            await self._made.aclose()
        self._made = None

    async def _sent(self, call: _Call) -> Outcome:
        """Join the calls that wait, and wait for the job that they become."""
        self._waiting.append(call)
        if self._gathering is None or self._gathering.done():
            self._gathering = asyncio.create_task(self._gather())
        try:
            job = await call.job
        finally:
            if call in self._waiting:  # cancelled before anything was sent
                self._waiting.remove(call)
        return await self._over(job)

    async def _gather(self) -> None:
        """Send what waits once nothing more has come for `gather_s`; a trickle is not waited for endlessly."""
        while self._waiting:
            for _ in range(_LONGEST_GATHER):
                before = len(self._waiting)
                await asyncio.sleep(self._gather_s)
                if len(self._waiting) == before:
                    break
            while self._waiting:
                self._begin(self._slice())

    def _slice(self) -> list[_Call]:
        """As many of the waiting calls as one job takes, at least one."""
        size = count = 0
        for call in self._waiting[:MOST_ROWS]:
            size += call.size
            if count and size > MOST_BYTES:
                break
            count += 1
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    def _begin(self, calls: list[_Call]) -> None:
        tag = uuid.uuid4().hex
        job = self._out(tag, self._run(tag, calls))
        for call in calls:
            if not call.job.done():
                call.job.set_result(job)

    def _out(self, tag: str, work: Coroutine[Any, Any, Outcome]) -> _Job:
        self._jobs[tag] = job = _Job(asyncio.create_task(work))
        # Whoever asked may be gone by then; the error is seen anyway, for the job is asked for again on resume.
        job.outcome.add_done_callback(lambda task: task.cancelled() or task.exception())
        return job

    async def _run(self, tag: str, calls: Sequence[_Call]) -> Outcome:
        await self._ledger.plan(tag, {call.key: call.tries for call in calls})
        lines = b"".join(piece for call in calls for piece in _line(call))
        job = (await self._service.create(await self._service.upload(lines), tag)).id
        await self._ledger.sent(tag, job)
        log.info("batch job %s is out with %d calls", job, len(calls))
        outcome = await self._finished(job)
        outcome.order = tuple(call.key for call in calls)
        return outcome

    def _known(self, entry: JobEntry) -> _Job:
        """A job that an earlier process has planned."""
        return self._jobs.get(entry.tag) or self._out(entry.tag, self._resumed(entry))

    async def _resumed(self, entry: JobEntry) -> Outcome:
        job = entry.job
        if job is None:
            found = await self._service.find(entry.tag, entry.planned_at)
            if found is None:
                return Outcome("unsent")
            job = found.id
            await self._ledger.sent(entry.tag, job)
        log.info("batch job %s is polled again", job)
        try:
            return await self._finished(job)
        except NoSuchJob:
            log.warning("the service does not know batch job %s any more: its calls are sent anew", job)
            return Outcome("gone")

    async def _over(self, job: _Job) -> Outcome:
        """The outcome of a job; it is let go of when nobody asks any more."""
        job.asking += 1
        try:
            return await asyncio.shield(job.outcome)
        except NoSuchJob as error:
            raise ModelError("connection", f"the batch service lost a job or its file: {error}") from None
        finally:
            job.asking -= 1
            if not job.asking and job.outcome.done():
                self._jobs = {tag: other for tag, other in self._jobs.items() if other is not job}

    async def _finished(self, job: str) -> Outcome:
        while True:
            batch = await self._service.poll(job)
            if batch.status in _OVER:
                break
            if time.time() - batch.created_at > LONGEST_S:
                raise ModelError("timeout", f"batch job {job} is still {batch.status} after {LONGEST_S / 3600:g} hours")
            await asyncio.sleep(self._poll_s)
        log.info("batch job %s is %s: %s", job, batch.status, batch.request_counts)
        outcome = failures(batch)
        for file in (batch.output_file_id, batch.error_file_id):
            if file:
                outcome.rows |= rows_of(await self._service.download(file))
        return outcome

    @property
    def _service(self) -> BatchService:
        if self._made is None:
            self._made = BatchService(
                self._client or _client_for(self._address, self._proxy), self._redactor, self._deadline_s
            )
        return self._made


def _line(call: _Call) -> tuple[bytes, ...]:
    head = b'{"custom_id":"%s","method":"POST","url":"%s","body":' % (call.key.hex().encode(), ENDPOINT.encode())
    return (head, *call.body, b"}\n")


def _counted(verdict: Answered, usage: Usage) -> list[Completion]:
    first, *others = verdict.completions
    return [first.model_copy(update={"usage": usage + verdict.usage}), *others]


def _client_for(address: Address, proxy: Proxy) -> AsyncOpenAI:
    """A client of the server's; redirects are not followed, and of the environment its proxies alone may be used."""
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    through = proxy_of(address.url) if proxy == "environment" else None
    http = DefaultAsyncHttpxClient(follow_redirects=False, trust_env=False, proxy=through)
    key = "none"
    return AsyncOpenAI(base_url=address.url, api_key=key, default_headers=address.headers, http_client=http)
