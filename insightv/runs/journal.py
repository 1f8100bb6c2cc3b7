"""A ChatModel around a ChatModel: records each call before its reply is used, and on resume answers from the record.

Whatever asks through it (a generator, a scorer, a plugin's agent) resumes at the very call without knowing of it. The
key of a call is its content; identical calls of one question are asked once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from insightv.backends.call_key import call_key
from insightv.backends.jobs import JobModel
from insightv.backends.retry_pause import NotTriedAgain, no_more_tries
from insightv.concurrency import end_all
from insightv.errors import ConfigError, InsightvError, MissingExtra, ModelError, RequestsRefused, StopRun
from insightv.interfaces import ChatModel
from insightv.plugin_guard import (
    awaited,
    boundary,
    checked,
    closed,
    code_of,
    cost_of,
    described,
    error_text,
    is_own,
    stored,
)
from insightv.records import Completion, Message, Sampling, Schema, Usage
from insightv.runs.budget import Budget
from insightv.runs.database import Database
from insightv.runs.limiter import CallLimiter, StopSwitch
from insightv.runs.question_calls import QuestionCalls, question_calls
from insightv.runs.store import Spent, call_statements, fault_statements

_NOTHING = Usage()


_MOST_REFUSED = 3
"""Calls at the start of a run that may be refused (400) before that is taken for no accident."""


class Journal:
    """What all journaled models of a run share. `answered` says whether any call of the run ever was.

    It is made with the models, since wrong settings must end before a run is opened; `open` puts a run behind it.
    """

    def __init__(self, gate: CallLimiter, switch: StopSwitch) -> None:
        self.gate = gate
        self.switch = switch
        self.tasks: set[asyncio.Task[list[Completion]]] = set()
        self.answered = False
        self._refused = 0
        self._opened: tuple[Database, Budget] | None = None

    def open(self, database: Database, budget: Budget) -> None:
        """Record calls in a run's database, and count them in its budget."""
        self._opened = database, budget

    @property
    def database(self) -> Database:
        """The run's; see `open`."""
        return self._run[0]

    @property
    def budget(self) -> Budget:
        """The run's; see `open`."""
        return self._run[1]

    @property
    def _run(self) -> tuple[Database, Budget]:
        if self._opened is None:
            raise InsightvError("a model was asked before its run was opened; ask from within generate() or score()")
        return self._opened

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
        await end_all(self.tasks)


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of the question whose calls it stands in."""

    calls: QuestionCalls
    key: bytes
    messages: Sequence[Message]
    sampling: Sampling
    n: int
    schema: Schema | None


class JournaledModel(ChatModel):
    """`model` with each call recorded. `deadline_s` bounds a call of a backend that does not bound its own."""

    def __init__(self, model: ChatModel, journal: Journal, deadline_s: float | None = None) -> None:
        self.model = model
        self._journal = journal
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

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        """The recorded replies if this call was made before, else the model's, recorded."""
        calls = question_calls.get()
        key = bytes.fromhex(call_key(self.name, messages, sampling, schema=schema, n=n))
        known = calls.recorded.get(key)
        if known is not None:
            return known
        task = calls.in_flight.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(_Call(calls, key, messages, sampling, n, schema)))
            calls.in_flight[key] = task
            calls.moved()
            self._journal.tasks.add(task)
            task.add_done_callback(lambda done: self._forget(calls, key, done))
        # A paid call is finished and recorded even when whoever asked has been cancelled.
        return await asyncio.shield(task)

    def _forget(self, calls: QuestionCalls, key: bytes, task: asyncio.Task[list[Completion]]) -> None:
        del calls.in_flight[key]
        calls.moved()
        self._journal.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen: whoever asked may be gone

    async def _ask(self, call: _Call) -> list[Completion]:
        calls, key = call.calls, call.key
        await self._take_slot(calls)
        no_more_tries.set(self._journal.switch.thrown)
        try:
            replies, spent = await self._paid(call)
            kind = calls.purpose + (call.schema.name if call.schema else "text")
            await self._journal.database.write(
                call_statements(calls.seq, key, self.name, kind, call.sampling.seed, replies, spent)
            )
        finally:
            # Held until the reply is recorded, so that a kill costs at most `concurrency` calls again.
            if not self.jobs:
                self._journal.gate.release()
        calls.recorded[key] = [reply.under(key.hex()) for reply in replies]
        return calls.recorded[key]

    async def _take_slot(self, calls: QuestionCalls) -> None:
        gate = self._journal.gate
        if calls.holds_slot:
            calls.holds_slot = False
            if self.jobs:
                gate.release()
        elif not self.jobs:
            await gate.acquire(calls.seq)

    def _spent(self, usage: Usage, began: float) -> Spent:
        usd = self.price_share * self._journal.budget.cost(self.name, usage)
        return Spent(usage, usd, 0.0 if self.jobs else time.monotonic() - began)

    async def _paid(self, call: _Call) -> tuple[list[Completion], Spent]:
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
            replies = await self._checked(call)
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
                await self._record_fault(call, fault, spent)
        return replies, spent

    async def _record_fault(self, call: _Call, fault: ModelError | StopRun, spent: Spent) -> None:
        if isinstance(fault, StopRun):
            self._journal.switch.stop(fault)
        code = code_of(fault) if isinstance(fault, ModelError) else type(fault).__name__
        kept = stored(fault.kept, lines=True) if isinstance(fault, ModelError) else ""
        text = error_text(fault, kind=False)
        await self._journal.database.write(
            fault_statements(call.calls.seq, call.key, self.name, code, text, kept, spent)
        )

    async def _checked(self, call: _Call) -> list[Completion]:
        cost, passes = Usage(requests=1), (ModelError, ConfigError, MissingExtra)

        def failed(said: str) -> ModelError:
            return ModelError("backend_error", f"{self.name}: {said}", usage=cost)

        try:
            async with asyncio.timeout(self._deadline_s):
                with boundary(failed, passes=passes):
                    asked = self.model.chat(call.messages, call.sampling, n=call.n, schema=call.schema)
                    replies = await awaited("chat()", asked)
        except TimeoutError as error:
            text = f"{self.name}: no reply within run.deadline_s = {self._deadline_s} s"
            raise ModelError("timeout", text, usage=cost) from error
        try:
            return replies if self._own else _recordable(replies, call.n)
        except (TypeError, ValueError) as error:
            text = f"{self.name}: chat(n={call.n}) {error_text(error, kind=False)}"
            raise ModelError("bad_backend", text, usage=cost) from error

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
