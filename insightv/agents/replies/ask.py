"""Asking a model until a reply can be used, within a number of tries: one owner for agents and judges.

A refusal ends it at once; a reply that is cut off, refuses in words or cannot be read is asked for again with the same
messages and another seed. Failed tries count in the usage and nowhere else.
"""

from __future__ import annotations

import copy
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

from pydantic import ValidationError

from insightv.agents.replies.reading import Unreadable
from insightv.agents.replies.thoughts import THOUGHTS_BEGIN, THOUGHTS_END
from insightv.errors import ConfigError, ModelError
from insightv.interfaces import ChatModel
from insightv.records import AskOptions, Completion, Message, Sampling, Schema, Usage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kept(Generic[T]):
    """A reply that could be read. `usage` covers the failed tries before it too; `replies` are those and itself."""

    value: T
    completion: Completion
    usage: Usage
    replies: tuple[Completion, ...]


class GaveUp(Exception):
    """No reply could be used.

    `code` is refusal, truncated or a reader's where `status` is "rejected", a ModelError's where it is "failed".
    `replies` are all that came; `tries` counts the calls.
    """

    def __init__(
        self,
        status: Literal["rejected", "failed"],
        code: str,
        detail: str,
        usage: Usage,
        replies: tuple[Completion, ...] = (),
        tries: int = 0,
    ) -> None:
        super().__init__(detail)
        self.status: Literal["rejected", "failed"] = status
        self.code = code
        self.detail = detail
        self.usage = usage
        self.replies = replies
        self.tries = tries

    @property
    def last(self) -> Completion | None:
        """The last reply, if there was one."""
        return self.replies[-1] if self.replies else None


def check_count(name: str, value: object, what: str, least: int = 1) -> None:
    """Check that an option is a whole number from `least` on.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} = {value!r}: it is {what}; use a whole number from {least} on")


@dataclass(eq=False, repr=False)
class Asker:
    """A model, how it is sampled, and how often it is asked for one reply.

    Args:
        model: asked for each reply.
        temperature: of every call; so are `top_p`, `max_tokens` and `extra`, which goes to the server as it is.
        top_p: see `temperature`.
        max_tokens: of one reply.
        tries: calls with the same messages for one reply.
        extra: see `temperature`.

    Raises:
        ConfigError: a value is out of range.
    """

    # No slots: a pipeline looks into the `__dict__` of objects that it is given for the models that it records.
    model: ChatModel
    _: KW_ONLY
    temperature: float = 0.2
    top_p: float = 0.95
    max_tokens: int = 1024
    tries: int = 3
    extra: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_count("tries", self.tries, "the number of calls for one reply")
        try:
            self.sampling(0)
        except ValidationError as error:
            first = error.errors()[0]
            why = first["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{first['loc'][0]} = {first['input']!r}: {why}") from error

    def sampling(self, seed: int) -> Sampling:
        """The sampling of one call."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            seed=seed,
            extra=dict(self.extra or {}),
        )

    def within(self, options: AskOptions) -> Self:
        """The same for one question, kept to `options`."""
        return kept_within(self, options)

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
            StopRun: nothing more may be asked.
        """
        usage, replies = Usage(), list[Completion]()
        for attempt in range(self.tries):
            try:
                reply = first if first and not attempt else await self._one(messages, seed(attempt), schema)
            except ModelError as error:
                spent = usage + error.usage
                raise GaveUp("failed", error.code, str(error), spent, tuple(replies), attempt + 1) from error
            usage += reply.usage
            replies.append(reply)
            try:
                return Kept(read_whole(reply, read), reply, usage, tuple(replies))
            except Unreadable as error:
                if reply.finish == "refusal" or attempt + 1 == self.tries:
                    detail = f"try {attempt + 1} of {self.tries}: {error.code}: {error}"
                    raise GaveUp("rejected", error.code, detail, usage, tuple(replies), attempt + 1) from error
        raise AssertionError("the last try returns or raises")

    async def stream(
        self, messages: Sequence[Message], seed: int, *, thoughts: bool = False
    ) -> AsyncGenerator[str | Completion, None]:
        """One reply in pieces, then as a whole. Close it (aclosing) so that the call ends where it is left early.

        What it says within `<think>...</think>` first is passed on only if `thoughts` are wanted.

        Raises:
            ModelError: not answered, or the backend gave no Completion at the end.
        """
        pieces, aloud = self.model.stream(tuple(messages), self.sampling(seed)), _Streamed(thoughts)
        async with closing(pieces):
            async for piece in pieces:
                if text := aloud.rest() if isinstance(piece, Completion) else aloud.more(piece):
                    yield text
                if isinstance(piece, Completion):
                    yield piece
                    return
        raise ModelError("malformed", f"{self._who} ended a stream without its completion")

    @property
    def _who(self) -> str:
        return self.model.name or type(self.model).__name__

    async def _one(self, messages: Sequence[Message], seed: int, schema: Schema | None) -> Completion:
        replies = await self.model.chat(tuple(messages), self.sampling(seed), schema=schema)
        if not replies:
            raise ModelError("malformed", f"{self._who} returned no reply")
        return replies[0]


class Asks(Protocol):
    """What has the options of an `Asker` as its own: an asker, and a role that asks by one."""

    model: ChatModel
    temperature: float
    top_p: float
    max_tokens: int
    tries: int
    extra: Mapping[str, Any] | None


A = TypeVar("A", bound=Asks)


def asker_of(role: Asks) -> Asker:
    """The asker of a role, with the options that it has now.

    Raises:
        ConfigError: a value is out of range.
    """
    return Asker(
        role.model,
        temperature=role.temperature,
        top_p=role.top_p,
        max_tokens=role.max_tokens,
        tries=role.tries,
        extra=role.extra,
    )


def kept_within(role: A, options: AskOptions) -> A:
    """A copy of a role, or of an asker, for one question, kept to `options`."""
    kept = copy.copy(role)
    kept.temperature = role.temperature if options.temperature is None else options.temperature
    kept.top_p = role.top_p if options.top_p is None else options.top_p
    kept.max_tokens = min(role.max_tokens, options.max_tokens or role.max_tokens)
    return kept


@asynccontextmanager
async def closing(pieces: object) -> AsyncIterator[None]:
    """Close a stream at the end, so that its call ends; one that is a plain iterator has nothing to close."""
    try:
        yield
    finally:
        if aclose := getattr(pieces, "aclose", None):
            await aclose()


class _Streamed:
    """Of a reply in pieces what does not stand in the thoughts that it may begin with."""

    def __init__(self, everything: bool) -> None:
        self._place = "after" if everything else "before"
        self._held = ""

    def more(self, piece: str) -> str:
        """What a further piece adds."""
        text = self._held + piece
        begin = text.lstrip()[: len(THOUGHTS_BEGIN)]
        if self._place == "before" and (begin == THOUGHTS_BEGIN or not THOUGHTS_BEGIN.startswith(begin)):
            self._place = "within" if begin == THOUGHTS_BEGIN else "after"
        if self._place == "within":
            _, closed, rest = text.partition(THOUGHTS_END)
            self._place, text = ("after", rest.lstrip()) if closed else ("within", text[-len(THOUGHTS_END) :])
        self._held = "" if self._place == "after" else text
        return text if self._place == "after" else ""

    def rest(self) -> str:
        """What was held back as the beginning of thoughts, and was none."""
        return self._held if self._place == "before" else ""


def read_whole(reply: Completion, read: Callable[[str], T]) -> T:
    """What `read` makes of a reply that is complete.

    Raises:
        Unreadable: refusal, truncated, or what `read` raises.
    """
    if reply.finish == "refusal":
        raise Unreadable("refusal", "the model refused, or its reply was filtered")
    if reply.finish == "length":
        raise Unreadable("truncated", "the reply was cut off by the token limit; a higher max_tokens may help")
    try:
        return read(reply.text)
    except Unreadable as error:
        said = reply.text.rpartition(THOUGHTS_END)[2].strip()
        if error.code in _NO_FORM and len(said) <= _LONGEST_REFUSAL and _REFUSES.match(said.replace("\u2019", "'")):
            raise Unreadable("refusal", f"the model refused in words: {said[:80]!r}") from error
        raise


_NO_FORM = ("not_json", "no_block")
"""Codes of readers for a reply that has nothing of the form asked for."""
_LONGEST_REFUSAL = 600
_REFUSES = re.compile(
    r"""\W*(?:(?:i'm|i[ ]am)[ ](?:so[ ]|very[ ]|truly[ ])?sorry|sorry|i[ ]apologi[sz]e|unfortunately)?
    [\s,.;:]*(?:but[ ])?(?:as[ ]an[ ]ai[^,.]{0,40},[ ]*)?
    i(?:[ ]cannot|[ ]can't|[ ]won't|(?:'m|[ ]am)[ ](?:unable|not[ ]able))[ ](?:to[ ])?
    (?:help|assist|answer|comply|provide|discuss|identify|process|fulfil+|continue|do[ ]that|support|engage)\b""",
    re.IGNORECASE | re.VERBOSE,
)


def calls_of(*replies: Completion) -> tuple[str, ...]:
    """The journal keys of replies; none outside a run."""
    return tuple(dict.fromkeys(reply.call for reply in replies if reply.call is not None))
