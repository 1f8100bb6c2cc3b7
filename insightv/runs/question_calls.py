"""The calls of one open question: those recorded, those in flight, and how long none has been."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from insightv.errors import ModelError
from insightv.records import Completion


@dataclass(eq=False)
class QuestionCalls:
    """The calls of one open question: those recorded, those in flight, and whether it holds an unused slot.

    `purpose` stands before the kind of each call that is recorded.
    """

    seq: int
    recorded: dict[bytes, list[Completion]] = field(default_factory=dict)
    in_flight: dict[bytes, asyncio.Task[list[Completion]]] = field(default_factory=dict)
    holds_slot: bool = False
    purpose: str = ""
    _idle: tuple[asyncio.Timeout, float] | None = None

    @asynccontextmanager
    async def never_idle(self, most_s: float | None) -> AsyncIterator[None]:
        """Bound the time within the block in which no call is in flight, at a stretch; calls bound themselves.

        Raises:
            ModelError: code "timeout": `most_s` seconds have passed without a call.
        """
        try:
            async with asyncio.timeout(most_s) as limit:
                self._idle = None if most_s is None else (limit, most_s)
                try:
                    yield
                finally:
                    self._idle = None
        except TimeoutError:
            if not limit.expired():
                raise
            raise ModelError("timeout", f"no paths, and no call for run.deadline_s = {most_s:g} s") from None

    def moved(self) -> None:
        """A call has begun or ended."""
        if self._idle is not None and not self._idle[0].expired():
            limit, most_s = self._idle
            limit.reschedule(None if self.in_flight else asyncio.get_running_loop().time() + most_s)


question_calls: ContextVar[QuestionCalls] = ContextVar("insightv_question_calls")
"""The calls of the question at hand; set by the pipeline in each question's task, and inherited by its subtasks."""
