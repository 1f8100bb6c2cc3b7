"""A ChatModel around a ChatModel: records each call before its reply is used, and on resume answers from the record.

Whatever asks through it (a generator, a scorer, a plugin's agent) resumes at the very call without knowing of it. The
key of a call is its content; identical calls of one question are asked once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import nullcontext

from insightv.backends.call_key import call_key
from insightv.backends.jobs import JobModel
from insightv.backends.retry_pause import NotTriedAgain, no_more_tries
from insightv.errors import ConfigError, InsightvError, MissingExtra, ModelError, RequestsRefused, StopRun
from insightv.interfaces import ChatModel
from insightv.plugin_guard import (
    awaited,
    checked,
    closed,
    code_of,
    cost_of,
    described,
    error_text,
    is_ours,
    is_own,
    stored,
)
from insightv.records import Completion, Message, Sampling, Schema, Usage
from insightv.runs.budget import Budget
from insightv.runs.database import Database
from insightv.runs.limiter import CallLimiter, StopSwitch
from insightv.runs.question_calls import QuestionCalls, open_book
from insightv.runs.store import Spent, call_statements, fault_statements

_NOTHING = Usage()


_MOST_REFUSED = 3
"""Calls at the start of a run that may be refused (400) before that is taken for no accident."""


class Journal:
    """What all journaled models of a run share. `answered` says whether any call of the run ever was."""

    def __init__(self, database: Database, gate: CallLimiter, budget: Budget, switch: StopSwitch) -> None:
        self.database = database
        self.gate = gate
        self.budget = budget
        self.switch = switch
        self.tasks: set[asyncio.Task[list[Completion]]] = set()
        self.answered = False
        self._refused = 0

    def of_refusal(self, error: ModelError) -> ModelError | StopRun:
        """What a refused request means: amid answered ones it is its own affair, otherwise the whole run's."""
        self._refused += error.code == "bad_request"
        if self.answered or error.code != "bad_request" or self._refused < _MOST_REFUSED:
            return error
        stop = RequestsRefused(
            f"the first {self._refused} requests were all refused, and none was answered: {error}; where the server "
            'has no json_schema, set structured = "json" or "prompt", else mend what it names; then resume with '
            "--retry-failed"
        )
        stop.usage = error.usage
        return stop

    async def drain(self, grace_s: float) -> None:
        """Wait for the calls in flight, at most `grace_s` seconds; cancel the rest."""
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=grace_s)
        left = list(self.tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


class JournaledModel(ChatModel):
    """`model` with each call recorded. `deadline_s` bounds a call of a backend that does not bound its own.

    It is made before the run is opened, since wrong settings must end before that; `journal` is set when it is.
    """

    def __init__(self, model: ChatModel, deadline_s: float | None = None) -> None:
        self.model = model
        self.journal: Journal | None = None
        # The calls of a job wait together, for hours if need be: they take no slots, and cost a share of the price.
        self.jobs = model if isinstance(model, JobModel) else None
        self._deadline_s = None if self.jobs else deadline_s
        self._own = is_own(model)

    @property
    def name(self) -> str:  # type: ignore[override]  # a model that is held elsewhere has its name once it is made there
        """The model's own."""
        return self.model.name or type(self.model).__name__

    @property
    def price_share(self) -> float:
        """The part of the listed price that a call costs."""
        return self.jobs.price_share if self.jobs else 1.0

    @property
    def _journal(self) -> Journal:
        if self.journal is None:
            raise InsightvError(
                f"{self.name} was asked before its run was opened; ask from within generate() or score()"
            )
        return self.journal

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        """The recorded replies if this call was made before, else the model's, recorded."""
        book = open_book.get()
        key = bytes.fromhex(call_key(self.name, messages, sampling, schema=schema, n=n))
        known = book.calls.get(key)
        if known is not None:
            return known
        task = book.in_flight.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(book, key, messages, sampling, n, schema))
            book.in_flight[key] = task
            book.moved()
            self._journal.tasks.add(task)
            task.add_done_callback(lambda done: self._forget(book, key, done))
        # A paid call is finished and recorded even when whoever asked has been cancelled.
        return await asyncio.shield(task)

    def _forget(self, book: QuestionCalls, key: bytes, task: asyncio.Task[list[Completion]]) -> None:
        del book.in_flight[key]
        book.moved()
        self._journal.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen: whoever asked may be gone

    async def _ask(
        self,
        book: QuestionCalls,
        key: bytes,
        messages: Sequence[Message],
        sampling: Sampling,
        n: int,
        schema: Schema | None,
    ) -> list[Completion]:
        await self._take_slot(book)
        no_more_tries.set(self._journal.switch.thrown)
        try:
            replies, spent = await self._paid(book, key, messages, sampling, n, schema)
            kind = book.purpose + (schema.name if schema else "text")
            await self._journal.database.write(
                call_statements(book.seq, key, self.name, kind, sampling.seed, replies, spent)
            )
        finally:
            # Held until the reply is recorded, so that a kill costs at most `concurrency` calls again.
            if not self.jobs:
                self._journal.gate.release()
        call = key.hex()
        book.calls[key] = [reply.under(call) for reply in replies]
        return book.calls[key]

    async def _take_slot(self, book: QuestionCalls) -> None:
        gate = self._journal.gate
        if book.ticket:
            book.ticket = False
            if self.jobs:
                gate.release()
        elif not self.jobs:
            await gate.acquire(book.seq)

    def _spent(self, usage: Usage, began: float) -> Spent:
        usd = self.price_share * self._journal.budget.cost(self.name, usage)
        return Spent(usage, usd, 0.0 if self.jobs else time.monotonic() - began)

    async def _paid(
        self,
        book: QuestionCalls,
        key: bytes,
        messages: Sequence[Message],
        sampling: Sampling,
        n: int,
        schema: Schema | None,
    ) -> tuple[list[Completion], Spent]:
        budget, switch = self._journal.budget, self._journal.switch
        if switch.error is not None:
            raise switch.error
        try:
            budget.begin()
        except StopRun as error:
            switch.stop(error)
            raise
        usage, fault, began = _NOTHING, None, time.monotonic()
        try:
            replies = await self._checked(messages, sampling, n, schema)
            usage = replies[0].usage if len(replies) == 1 else sum((reply.usage for reply in replies), _NOTHING)
            self._journal.answered = True
        except ModelError as error:
            usage, fault = cost_of(error), self._journal.of_refusal(error)
            if fault is error:
                raise
            raise fault from error
        except asyncio.CancelledError:
            # Sent, and cut off at the end of the grace time: the server may have answered, and counted it.
            if self.jobs is None:  # a job stays out, and is asked about again
                usage = Usage(requests=1)
                text = f"{self.name}: cut off before a reply came; what it cost beyond the request is not known"
                fault = ModelError("cancelled", text, usage=usage)
            raise
        except StopRun as error:
            usage = cost_of(error)
            if usage.requests or not isinstance(error, NotTriedAgain):
                fault = error
            raise
        except (ConfigError, MissingExtra) as error:
            # The model could not be made ready: no call will ever be answered, and no path failed by it.
            switch.stop(error)
            raise StopRun(str(error)) from error
        finally:
            spent = self._spent(usage, began)
            budget.end(usage, spent.usd)
            if fault is not None:
                await self._record_fault(book, key, fault, spent)
        return replies, spent

    async def _record_fault(self, book: QuestionCalls, key: bytes, fault: ModelError | StopRun, spent: Spent) -> None:
        if isinstance(fault, StopRun):
            self._journal.switch.stop(fault)
        code = code_of(fault) if isinstance(fault, ModelError) else type(fault).__name__
        kept = stored(fault.kept, lines=True) if isinstance(fault, ModelError) else ""
        text = error_text(fault, kind=False)
        await self._journal.database.write(fault_statements(book.seq, key, self.name, code, text, kept, spent))

    async def _checked(
        self, messages: Sequence[Message], sampling: Sampling, n: int, schema: Schema | None
    ) -> list[Completion]:
        limit = None if self._deadline_s is None else asyncio.timeout(self._deadline_s)
        try:
            async with limit or nullcontext():
                asked = self.model.chat(messages, sampling, n=n, schema=schema)
                replies = await awaited("chat()", asked)
        except (ModelError, StopRun, ConfigError, MissingExtra):
            raise
        # A backend may be a plugin's: whatever it raises is a call that was not answered.
        except BaseException as error:
            if is_ours(error):
                raise
            code, text = "backend_error", f"{self.name}: {error_text(error)}"
            if isinstance(error, TimeoutError) and limit is not None and limit.expired():
                code, text = "timeout", f"{self.name}: no reply within run.deadline_s = {self._deadline_s} s"
            raise ModelError(code, text, usage=Usage(requests=1)) from error
        try:
            return replies if self._own else _recordable(replies, n)
        except (TypeError, ValueError) as error:
            text = f"{self.name}: chat(n={n}) {error_text(error, kind=False)}"
            raise ModelError("bad_backend", text, usage=Usage(requests=1)) from error

    async def check(self) -> None:
        """See `ChatModel.check`."""
        await checked(self.model, self._deadline_s)

    async def aclose(self) -> None:
        """Close the model."""
        await closed([self.model])


def _recordable(replies: object, n: int) -> list[Completion]:
    """The replies of a backend, checked anew: one that cannot be written, or read again on resume, is no reply."""
    if not isinstance(replies, list) or not all(isinstance(reply, Completion) for reply in replies):
        raise TypeError(f"must return a list of Completion, got {described(replies)}")
    if not 1 <= len(replies) <= n:
        raise ValueError(f"returned {len(replies)} replies, not 1..{n}")
    for reply in replies:
        Completion.model_validate({**dict(reply), "usage": dict(reply.usage)})
        reply.text.encode()
    return replies
