"""What the agents of this room share when they ask: the question's message, and how a path ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Literal, TypeVar, get_args

from insightv.asking import GaveUp
from insightv.records import Message, Question

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


def path_code(gave_up: GaveUp) -> str:
    """The code that a path ends with."""
    return gave_up.code if gave_up.status == "failed" or gave_up.code in _CODES else "unparsable"


def question_message(question: Question) -> Message:
    """The user's message: the pictures, then the question, and no other text."""
    return Message(role="user", content=(*question.pictures, question.text))


async def all_of(jobs: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of jobs that run at once; the first error ends the others before it is raised as it is."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
