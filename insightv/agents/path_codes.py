"""What the agents of this room share when they ask: the question's message, and how a path ends."""

from __future__ import annotations

from typing import Literal, get_args

from insightv.agents.fencing import asked_text
from insightv.agents.replies.ask import GaveUp
from insightv.agents.replies.transcript import TAGS, Tags
from insightv.records import Message, Question

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


def question_message(question: Question, tags: Tags = TAGS) -> Message:
    """The user's message: the pictures, then the question, fenced, and no other text. `tags` are those of a path."""
    return Message(role="user", content=(*question.pictures, asked_text(question, tags=tags)))
