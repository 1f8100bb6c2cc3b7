"""The answer that a path comes to by itself: its last step says it."""

from __future__ import annotations

import re

from insightv.records import ReasoningPath

FROM_LAST_STEP = "from_last_step"
"""The flag of a path whose answer is the text of its last step."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_SAYS_ANSWER = re.compile(r"(?i)\banswer\b")


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text; at least one."""
    return _SENTENCE_END.split(text.strip())


def concluded(path: ReasoningPath) -> ReasoningPath:
    """The path with the answer that it comes to by itself.

    That is its own `answer`; else, of a path that is ok, the last sentence of its last step that speaks of the answer,
    else the last step's whole text. Whether such a text can be held against the truth is for the grader to say. A path
    that was cut or rejected has come to nothing.
    """
    if path.answer is not None or path.status != "ok" or not path.steps:
        return path
    text = path.steps[-1].content
    said = [sentence for sentence in sentences(text) if _SAYS_ANSWER.search(sentence)]
    return path.model_copy(update={"answer": said[-1] if said else text, "flags": (*path.flags, FROM_LAST_STEP)})
