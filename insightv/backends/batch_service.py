"""The files and batches endpoints, through the `openai` client: one method for each thing that is asked of them.

Each asks again on its own after what may pass, within `deadline_s`; the client itself retries nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

import httpx2
import openai

from insightv.backends.http import Reply
from insightv.backends.verdicts import Halt, Refused, Setback, of_reply
from insightv.errors import ConfigError, ModelError
from insightv.redact import Redactor

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import Batch

Result = TypeVar("Result")
TAG = "insightv"
"""The key of a job's metadata under which it carries our tag."""
ENDPOINT: Final = "/v1/chat/completions"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_CLOCKS_APART_S = 3600.0


class NoSuchJob(Exception):
    """The service does not know the job or the file."""


class BatchService:
    """Uploads, creates, finds, polls and downloads. Errors that last are ModelError, hopeless ones StopRun."""

    def __init__(self, client: AsyncOpenAI, redactor: Redactor, deadline_s: float) -> None:
        self._client = client.with_options(max_retries=0, timeout=deadline_s)
        self._redactor = redactor
        self._deadline_s = deadline_s

    async def upload(self, lines: bytes) -> str:
        """Upload an input file; returns its id. Raises ConfigError where the server has no Batch API."""
        file = ("insightv.jsonl", lines, "application/jsonl")
        try:
            return (await self._tried(lambda: self._client.files.create(file=file, purpose="batch"))).id
        except NoSuchJob:
            url = self._redactor.clean(str(self._client.base_url))
            raise ConfigError(f'{url} has no Batch API (404 for its files); leave mode = "batch" out') from None

    async def create(self, file: str, tag: str) -> Batch:
        """Create a job; where a try may have gone through without an answer, it is looked for before another."""
        since, tried = time.time(), False

        async def once() -> Batch:
            nonlocal tried
            if tried and (found := await self._found(tag, since)) is not None:
                return found
            tried = True
            return await self._client.batches.create(
                input_file_id=file, endpoint=ENDPOINT, completion_window="24h", metadata={TAG: tag}
            )

        return await self._tried(once)

    async def find(self, tag: str, since: float) -> Batch | None:
        """The job with our tag among those created after `since` (Unix time)."""
        return await self._tried(lambda: self._found(tag, since))

    async def poll(self, job: str) -> Batch:
        """How a job stands. Raises NoSuchJob."""
        return await self._tried(lambda: self._client.batches.retrieve(job))

    async def download(self, file: str) -> bytes:
        """A file whole. Raises NoSuchJob."""
        return (await self._tried(lambda: self._client.files.content(file))).content

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _found(self, tag: str, since: float) -> Batch | None:
        async for batch in self._client.batches.list(limit=100):
            if (batch.metadata or {}).get(TAG) == tag:
                return batch
            if batch.created_at < since - _CLOCKS_APART_S:
                break
        return None

    async def _tried(self, ask: Callable[[], Awaitable[Result]]) -> Result:
        ends, tries = time.monotonic() + self._deadline_s, 0
        while True:
            try:
                return await ask()
            except openai.NotFoundError as error:
                raise NoSuchJob(self._redactor.clean(str(error), 300)) from None
            except openai.APIStatusError as error:
                setback = self._verdict(error)
            except (openai.APIConnectionError, httpx2.HTTPError) as error:
                text = f"the batch service cannot be reached ({type(error.__cause__ or error).__name__})"
                setback = Setback("connection", "connection", text, "down")
            tries += 1
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(tries - 1, 10)) * random.uniform(0.5, 1)
            if setback.retry_after_s is not None:
                pause_s = setback.retry_after_s
                ends += pause_s  # a wait that the server asks for does not count
            if time.monotonic() + pause_s > ends:
                raise ModelError(setback.code, f"{setback.text}; {tries} tries within {self._deadline_s:g} s")
            await asyncio.sleep(pause_s)

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
