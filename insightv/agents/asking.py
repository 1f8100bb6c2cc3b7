"""Asking a model until a reply can be used, within a number of tries: one owner for all agents of this room.

A refusal ends it at once; a reply that is cut off or cannot be read is asked for again with the same messages and
another seed. Failed tries count in the usage and nowhere else.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, get_args

from pydantic import ValidationError

from insightv.errors import ConfigError, ModelError
from insightv.interfaces import ChatModel
from insightv.records import AskOptions, Completion, Message, Question, Sampling, Schema, Usage
from insightv.replies import Unreadable

T = TypeVar("T")

RejectedCode = Literal["refusal", "truncated", "unparsable", "too_short", "repetition", "max_steps"]
"""Why a path ends as rejected.

- refusal: the model refused, or its reply was filtered; not asked again.
- truncated: the last try was cut off by the token limit, as none before it could be used.
- unparsable: the last try could not be read; the path's `detail` has the reader's own code.
- too_short: on its last try the model would still end before the least number of steps.
- repetition: a step says again what an earlier step of the path said; not asked again.
- max_steps: the path did not come to its summary within the step limit.

A path ends as failed with the code of the ModelError that ended it.
"""

_CODES = frozenset(get_args(RejectedCode))


@dataclass(frozen=True, slots=True)
class Kept(Generic[T]):
    """A reply that could be read. `usage` covers the failed tries before it too."""

    value: T
    completion: Completion
    usage: Usage


class GaveUp(Exception):
    """No reply could be used.

    `code` is refusal, truncated or a reader's where `status` is "rejected", a ModelError's where it is "failed".
    `last` is the last reply, if there was one.
    """

    def __init__(
        self,
        status: Literal["rejected", "failed"],
        code: str,
        detail: str,
        usage: Usage,
        last: Completion | None = None,
    ) -> None:
        super().__init__(detail)
        self.status: Literal["rejected", "failed"] = status
        self.code = code
        self.detail = detail
        self.usage = usage
        self.last = last

    @property
    def path_code(self) -> str:
        """The code that a path ends with."""
        return self.code if self.status == "failed" or self.code in _CODES else "unparsable"


class Asker:
    """A model, how it is sampled, and how often it is asked for one reply."""

    def __init__(
        self,
        model: ChatModel,
        *,
        tries: int,
        temperature: float,
        top_p: float,
        max_tokens: int,
        extra: Mapping[str, Any] | None,
    ) -> None:
        if tries < 1:
            raise ConfigError(f"tries = {tries}: at least one call is needed for a reply")
        try:
            self._sampling = Sampling(
                temperature=temperature, top_p=top_p, max_tokens=max_tokens, extra=dict(extra or {})
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"{first['loc'][0]} = {first['input']!r}: {first['msg']}") from error
        self.model = model
        self.tries = tries

    def sampling(self, seed: int) -> Sampling:
        """The sampling of one call."""
        return self._sampling.model_copy(update={"seed": seed})

    def within(self, options: AskOptions) -> Asker:
        """The same, kept to `options`."""
        given = {"temperature": options.temperature, "top_p": options.top_p}
        update: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if options.max_tokens is not None:
            update["max_tokens"] = min(options.max_tokens, self._sampling.max_tokens)
        kept = copy.copy(self)
        kept._sampling = self._sampling.model_copy(update=update)
        return kept

    async def ask(
        self,
        messages: Sequence[Message],
        read: Callable[[str], T],
        seed: Callable[[int], int],
        *,
        schema: Schema | None = None,
        first: Completion | None = None,
    ) -> Kept[T]:
        """One usable reply; `seed` maps the number of a try (from 0) to its seed, `first` is try 0 where it is made.

        Raises:
            GaveUp: refused, not answered, or every try unusable.
        """
        usage = Usage()
        attempt, reply = 0, first
        while True:
            try:
                reply = reply or await self._one(messages, seed(attempt), schema)
            except ModelError as error:
                raise GaveUp("failed", error.code, str(error), usage + error.usage) from error
            usage += reply.usage
            attempt += 1
            try:
                return Kept(read_whole(reply, read), reply, usage)
            except Unreadable as error:
                if error.code == "refusal" or attempt == self.tries:
                    detail = f"try {attempt} of {self.tries}: {error.code}: {error}"
                    raise GaveUp("rejected", error.code, detail, usage, reply) from error
            reply = None

    async def stream(self, messages: Sequence[Message], seed: int) -> AsyncGenerator[str | Completion, None]:
        """One reply in pieces, then as a whole. Close it (aclosing) so that the call ends where it is left early.

        Raises:
            ModelError: not answered, or the backend gave no Completion at the end.
        """
        pieces = self.model.stream(tuple(messages), self.sampling(seed))
        try:
            async for piece in pieces:
                yield piece
                if isinstance(piece, Completion):
                    return
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
        raise ModelError("malformed", f"{self._who} ended a stream without its completion")

    @property
    def _who(self) -> str:
        return self.model.name or type(self.model).__name__

    async def _one(self, messages: Sequence[Message], seed: int, schema: Schema | None) -> Completion:
        replies = await self.model.chat(tuple(messages), self.sampling(seed), schema=schema)
        if not replies:
            raise ModelError("malformed", f"{self._who} returned no reply")
        return replies[0]


def read_whole(reply: Completion, read: Callable[[str], T]) -> T:
    """What `read` makes of a reply that is complete.

    Raises:
        Unreadable: refusal, truncated, or what `read` raises.
    """
    if reply.finish == "refusal":
        raise Unreadable("refusal", "the model refused, or its reply was filtered")
    if reply.finish == "length":
        raise Unreadable("truncated", "the reply was cut off by the token limit; a higher max_tokens may help")
    return read(reply.text)


def question_message(question: Question) -> Message:
    """The user's message: the pictures, then the question, and no other text."""
    return Message(role="user", content=(*question.pictures, question.text))


def calls_of(*replies: Completion) -> tuple[str, ...]:
    """The journal keys of replies; none outside a run."""
    return tuple(dict.fromkeys(reply.call for reply in replies if reply.call is not None))


async def all_of(jobs: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of jobs that run at once; the first error ends the others before it is raised as it is."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
