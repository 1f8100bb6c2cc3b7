"""A model that every worker of a pool holds, as the roles of the run see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from insightv.config.factories import ModelSpec
from insightv.interfaces import ChatModel
from insightv.records import Completion, Message, Sampling, Schema
from insightv.runs.question_calls import question_calls

if TYPE_CHECKING:
    from insightv.runs.workers.pool import WorkerPool


class PooledModel(ChatModel):
    """A model that is held by every worker of a pool; its name is the one that it has there."""

    def __init__(self, pool: WorkerPool, place: int, spec: ModelSpec) -> None:
        self.name = spec.name
        self.spec = spec
        self._pool = pool
        self.place = place

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        """See `ChatModel.chat` and `WorkerPool.ask`."""
        await self._pool.begin()
        calls = question_calls.get(None)
        return await self._pool.ask(self, calls.seq if calls else None, list(messages), sampling, n, schema)

    async def check(self) -> None:
        """See `ChatModel.check`: whether the workers could make their models and can ask them."""
        await self._pool.begin()
