"""The files and batches endpoints, through the `openai` client: one method for each thing that is asked of them.

Each asks again on its own after what may pass, within `deadline_s`; the client itself retries nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx2
import openai
from pydantic import BaseModel, ValidationError

from insightv.backends.openai.classify import KEPT_BYTES, Halt, Refused, Setback, of_reply
from insightv.backends.openai.endpoint import LONGEST_PARK_S, NOTED_PARK_S
from insightv.backends.openai.http import Reply
from insightv.errors import ConfigError, EndpointParked, ModelError
from insightv.redact import Redactor

if TYPE_CHECKING:
    from openai import AsyncAPIResponse, AsyncOpenAI

log = logging.getLogger("insightv.openai")
Result = TypeVar("Result")
Form = TypeVar("Form", bound=BaseModel)
MOST_BYTES, MOST_FILE_BYTES = 8 * 2**20, 2**31
"""The most bytes of a reply about a job, and of a file: that of a job's output is some times its input's 200 MB."""
TAG = "insightv"
"""The key of a job's metadata under which it carries our tag."""
ENDPOINT: Final = "/v1/chat/completions"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_CLOCKS_APART_S = 3600.0


class NoSuchJob(Exception):
    """The service does not know the job or the file."""


class _Unreadable(Exception):
    def __init__(self, what: str, head: bytes) -> None:
        super().__init__(what)
        self.head = head


class JobFault(BaseModel):
    """What the validation of a job's file found; `line` counts from 1."""

    code: str | None = None
    message: str | None = None
    line: int | None = None


class JobFaults(BaseModel):
    """All that the validation found."""

    data: list[JobFault] | None = None


class JobState(BaseModel):
    """How a job stands, as far as it is looked at; `created_at` is in seconds since the epoch."""

    id: str
    status: str
    created_at: float
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: JobFaults | None = None
    request_counts: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class _Jobs(BaseModel):
    data: list[JobState]
    has_more: bool = False


class _File(BaseModel):
    id: str


class BatchService:
    """Uploads, creates, finds, polls and downloads. Errors that last are ModelError, hopeless ones StopRun.

    Bodies are read up to a limit and by forms of our own: what the client would make of HTML, or of `null`, are objects
    without the fields that their types promise.
    """

    def __init__(self, client: AsyncOpenAI, redactor: Redactor, deadline_s: float) -> None:
        self._client = client.with_options(max_retries=0, timeout=deadline_s)
        self._redactor = redactor
        self._deadline_s = deadline_s

    async def upload(self, lines: bytes) -> str:
        """Upload an input file; returns its id. Raises ConfigError where the server has no Batch API."""
        file = ("insightv.jsonl", lines, "application/jsonl")
        files = self._client.files.with_streaming_response
        try:
            return (await self._tried(lambda: self._read(files.create(file=file, purpose="batch"), _File))).id
        except NoSuchJob:
            url = self._redactor.clean(str(self._client.base_url))
            raise ConfigError(f'{url} has no Batch API (404 for its files); leave mode = "batch" out') from None

    async def create(self, file: str, tag: str) -> JobState:
        """Create a job; where a try may have gone through without an answer, it is looked for before another."""
        since, tried = time.time(), False
        batches = self._client.batches.with_streaming_response

        async def once() -> JobState:
            nonlocal tried
            if tried and (found := await self._found(tag, since)) is not None:
                return found
            tried = True
            asked = batches.create(input_file_id=file, endpoint=ENDPOINT, completion_window="24h", metadata={TAG: tag})
            return await self._read(asked, JobState)

        return await self._tried(once)

    async def find(self, tag: str, since: float) -> JobState | None:
        """The job with our tag among those created after `since` (Unix time)."""
        return await self._tried(lambda: self._found(tag, since))

    async def poll(self, job: str) -> JobState:
        """How a job stands. Raises NoSuchJob."""
        batches = self._client.batches.with_streaming_response
        return await self._tried(lambda: self._read(batches.retrieve(job), JobState))

    async def download(self, file: str) -> bytes:
        """A file whole. Raises NoSuchJob."""
        files = self._client.files.with_streaming_response
        return await self._tried(lambda: self._body(files.content(file), MOST_FILE_BYTES))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _found(self, tag: str, since: float) -> JobState | None:
        batches, after = self._client.batches.with_streaming_response, ""
        while True:
            asked = batches.list(limit=100, after=after) if after else batches.list(limit=100)
            page = await self._read(asked, _Jobs)
            for job in page.data:
                if (job.metadata or {}).get(TAG) == tag:
                    return job
                if job.created_at < since - _CLOCKS_APART_S:
                    return None
            if not page.has_more or not page.data:
                return None
            after = page.data[-1].id

    async def _read(self, asked: AbstractAsyncContextManager[AsyncAPIResponse[Any]], form: type[Form]) -> Form:
        """The body of a reply in its form; raises _Unreadable."""
        body = await self._body(asked, MOST_BYTES)
        try:
            return form.model_validate_json(body)
        except ValidationError:
            raise _Unreadable(f"a reply that is no {form.__name__.strip('_')}", body[:KEPT_BYTES]) from None

    async def _body(self, asked: AbstractAsyncContextManager[AsyncAPIResponse[Any]], most: int) -> bytes:
        body = bytearray()
        async with asked as response:
            async for piece in response.iter_bytes():
                body += piece
                if len(body) > most:
                    raise _Unreadable(f"a reply of more than {most} bytes", bytes(body[:KEPT_BYTES]))
        return bytes(body)

    async def _tried(self, ask: Callable[[], Awaitable[Result]]) -> Result:
        ends, tries = time.monotonic() + self._deadline_s, 0
        while True:
            try:
                async with asyncio.timeout(max(0.0, ends - time.monotonic())):
                    return await ask()
            except TimeoutError:
                setback = Setback("timeout", "timeout", "the batch service has not answered", "down")
            except openai.NotFoundError as error:
                raise NoSuchJob(self._redactor.clean(str(error), 300)) from None
            except openai.APIStatusError as error:
                setback = self._verdict(error)
            except _Unreadable as error:
                kept = self._redactor.clean_bytes(error.head, KEPT_BYTES)
                setback = Setback("unreadable reply", "malformed", f"the batch service sent {error}", "up", kept=kept)
            # httpx's errors are those of reading a body, for which the client has no kind of its own.
            except (openai.APIError, httpx2.HTTPError) as error:
                text = f"the batch service cannot be reached ({type(error.__cause__ or error).__name__})"
                setback = Setback("connection", "connection", text, "down")
            tries += 1
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(tries - 1, 10)) * random.uniform(0.5, 1)
            if setback.retry_after_s is not None:
                pause_s = self._parked(setback.retry_after_s)
                ends += pause_s  # a wait that the server asks for does not count
            if time.monotonic() + pause_s > ends:
                text = f"{setback.text}; {tries} tries within {self._deadline_s:g} s"
                raise ModelError(setback.code, text, kept=setback.kept)
            await asyncio.sleep(pause_s)

    def _parked(self, wait_s: float) -> float:
        """A wait that the server asks for, told where it is long; more than a day stops the run."""
        if wait_s > LONGEST_PARK_S:
            raise EndpointParked(
                f"the batch service asks to be left alone for {wait_s / 3600:.1f} hours; resume the run after that time"
            )
        if wait_s >= NOTED_PARK_S:
            log.warning("the batch service asks to be left alone for %.0f s: waiting", wait_s)
        return wait_s

    def _verdict(self, error: openai.APIStatusError) -> Setback:
        answer = error.response
        verdict = of_reply(Reply(answer.status_code, answer.headers, answer.content), 1, self._redactor)
        if isinstance(verdict, Halt):
            raise verdict.stop(f"{verdict.text}; correct it, then resume") from None
        if isinstance(verdict, Refused):
            raise ModelError(verdict.code, f"the batch service: {verdict.text}", kept=verdict.kept) from None
        if isinstance(verdict, Setback):
            return verdict
        raise ModelError("bad_request", f"the batch service answered {answer.status_code}") from None
