"""One question to a judge, asked until its reply can be read: the same messages, another seed each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from insightv.assess.quoting import copied
from insightv.errors import ConfigError, ModelError
from insightv.interfaces import ChatModel
from insightv.records import Message, Sampling, Schema
from insightv.replies import Unreadable, read_object

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asking:
    """How a judge is asked: the model, its sampling (without a seed) and how many calls one reply may take."""

    model: ChatModel
    temperature: float
    top_p: float
    max_tokens: int
    tries: int
    extra: dict[str, Any]

    def __post_init__(self) -> None:
        if isinstance(self.tries, bool) or self.tries < 1:
            raise ConfigError(f"tries = {self.tries!r}: it is the number of calls for one reply; use 1 or more")
        try:
            self.sampling(0)
        except ValidationError as error:
            wrong = error.errors()[0]
            raise ConfigError(f"{wrong['loc'][0]} = {wrong['input']!r}: {wrong['msg']}") from error

    def sampling(self, seed: int) -> Sampling:
        """The sampling of one call."""
        return Sampling(
            temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens, seed=seed, extra=self.extra
        )


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """What a judge said: read, or why not. `calls` are the journal's keys of all calls made, `tries` their number."""

    value: T | None
    code: str = ""
    reason: str = ""
    tries: int = 0
    calls: tuple[str, ...] = ()


async def ask(
    asking: Asking,
    messages: Sequence[Message],
    schema: Schema,
    read: Callable[[dict[str, Any]], T],
    seed: Callable[[int], int],
) -> Reply[T]:
    """Ask until `read` accepts a reply. A model that does not answer, or not readably, gives a Reply without a value.

    A reply is refused unless it is one whole JSON object as the model wrote it (a repaired one would be a guess), and
    if it is a copy of an object that stands in the messages: a judge that echoes has judged nothing.

    Raises:
        StopRun: nothing more may be asked.
    """
    sent = [part for message in messages for part in message.parts if isinstance(part, str)]
    calls: list[str] = []
    why = Unreadable("empty", "the model gave no reply")
    for attempt in range(asking.tries):
        try:
            completions = await asking.model.chat(messages, asking.sampling(seed(attempt)), n=1, schema=schema)
        except ModelError as error:
            return Reply(None, error.code, f"the model did not answer: {error}", attempt + 1, tuple(calls))
        if not completions:
            continue
        completion = completions[0]
        calls += [completion.call] if completion.call else []
        try:
            if completion.finish != "stop":
                raise Unreadable(completion.finish, f"the reply ended by {completion.finish}, not whole")
            reading = read_object(completion.text)
            if reading.rung == "repair":
                raise Unreadable("not_json", "the reply is not JSON as it stands; a mended judgement would be a guess")
            if copied(completion.text, reading.value, sent):
                raise Unreadable("echo", "the reply is a copy of something in the prompt")
            return Reply(read(reading.value), "", "", attempt + 1, tuple(calls))
        except Unreadable as error:
            why = error
    return Reply(None, why.code, f"unreadable: {why}", asking.tries, tuple(calls))
