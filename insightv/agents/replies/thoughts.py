"""The thoughts that a model writes before its reply, which are no part of it."""

from __future__ import annotations

from insightv.agents.replies.reading import Unreadable

THOUGHTS_BEGIN, THOUGHTS_END = "<think>", "</think>"
"""What models that think aloud first put around their thoughts."""


def after_thoughts(text: str, begins: tuple[str, ...] = ()) -> str:
    """What follows the thoughts of a model that thinks aloud first, as a draft in them is not the reply; else the text.

    Servers without a parser for them leave them in the text, some chat templates without the tag that begins them;
    those are taken for thoughts where what follows, and not the text, `begins` like a reply, if that is known.

    Raises:
        Unreadable: cut, the thoughts do not end.
    """
    _, closed, rest = text.partition(THOUGHTS_END)
    rest = rest.lstrip()
    if text.startswith(THOUGHTS_BEGIN):
        if not closed:
            raise Unreadable("cut", f"the reply ends within its thoughts: no {THOUGHTS_END}")
        return rest
    unopened = closed and (not begins or (rest.startswith(begins) and not text.startswith(begins)))
    return rest if unopened else text
