"""Asking a judge: one whole JSON object as the model wrote it, and no copy of something that it was shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from insightv.agents.replies.ask import Asker, GaveUp, calls_of
from insightv.agents.replies.json_reply import read_object
from insightv.agents.replies.reading import Unreadable
from insightv.assess.quoting import copied
from insightv.records import Message, Schema

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """What a judge said: read, or why not. `calls` are the journal's keys of all calls made, `tries` their number."""

    value: T | None
    code: str = ""
    reason: str = ""
    tries: int = 0
    calls: tuple[str, ...] = ()


async def ask_judge(
    asker: Asker,
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

    def read_judgement(text: str) -> T:
        reading = read_object(text)
        if reading.rung == "repair":
            raise Unreadable("not_json", "the reply is not JSON as it stands; a mended judgement would be a guess")
        if copied(text, reading.value, sent):
            raise Unreadable("echo", "the reply is a copy of something in the prompt")
        return read(reading.value)

    try:
        kept = await asker.ask(messages, read_judgement, seed, schema=schema)
    except GaveUp as gave_up:
        why = "unreadable" if gave_up.status == "rejected" else "the model did not answer"
        calls = calls_of(*gave_up.replies)
        return Reply(None, gave_up.code, f"{why}: {gave_up.detail}", gave_up.tries, calls)
    return Reply(kept.value, "", "", len(kept.replies), calls_of(*kept.replies))
