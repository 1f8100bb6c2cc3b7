"""What of a reply's message is meant as the reply, what are the thoughts before it, and how it ended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from insightv.records import Completion, Finish

THOUGHT_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
"""Fields of a message in which servers put thoughts; where several say the same, the first counts."""
_THOUGHT_PARTS = ("thinking", "reasoning", "thought", "redacted_thinking", "reasoning.text", "reasoning.summary")
_NO_LETTERS = re.compile(r"[^a-z]+")
_CUT = frozenset(
    {"length", "maxtokens", "maxlength", "maxnewtokens", "maxoutputtokens", "modellength", "tokenlimit", "timelimit"}
    | {"modelcontextwindowexceeded", "contextlengthexceeded", "contextlength", "errorlimit"}
)
_WITHHELD = re.compile(
    r"contentfilter|policyviolation|safety|recitation|blocklist|prohibited|spii|guardrail|refusal|toxic|moderation"
    r"|modelarmor|sensitive|^language$|^blocked$"
)
_ABORTED = frozenset(
    {"abort", "aborted", "error", "cancelled", "canceled", "usercancel", "insufficientsystemresource"}
    | {"malformedmodeloutput", "malformedfunctioncall", "unexpectedtoolcall", "networkerror"}
)
_ENDED = frozenset(
    {"", "stop", "stopsequence", "eos", "eostoken", "endturn", "complete", "completed", "toolcalls", "tooluse"}
    | {"functioncall", "null", "none", "unspecified"}
)
"""Finish reasons as their letters alone, in the words of the chat completions format and of other servers."""


@dataclass(frozen=True, slots=True)
class Said:
    """The text of a message, None where it holds none, and its thoughts with the field in which they stood."""

    text: str | None
    thoughts: str = ""
    place: str = ""


def said_in(message: Mapping[str, object]) -> Said:
    """What a message, or a piece of one in a stream, says and thinks."""
    content = message.get("content")
    text, thoughts = _of_parts(content) if isinstance(content, list) else (content, "")
    place = "content" if thoughts else ""
    for field in THOUGHT_FIELDS:
        if not thoughts and (found := _thoughts(message.get(field))):
            thoughts, place = found, field
    return Said(text if isinstance(text, str) else None, thoughts, place)


def _of_parts(parts: list[object]) -> tuple[str | None, str]:
    """The texts of a list of parts, joined, and its thoughts; no text where a part is of no known shape."""
    texts, thoughts = list[str](), list[str]()
    for part in parts:
        if not isinstance(part, dict):
            return None, ""
        if part.get("type") in _THOUGHT_PARTS:
            thoughts.append(_thoughts([part]))
        elif isinstance(text := part.get("text", part.get("refusal")), str):
            texts.append(text)
    return "".join(texts) if texts else None, "".join(thoughts)


def _thoughts(value: object) -> str:
    """The text of thoughts: a text, a part, or a list of such, however deep the parts are in one another."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        inner = (value.get(name) for name in ("text", "thinking", "summary", "content", "reasoning"))
        return next((found for each in inner if (found := _thoughts(each))), "")
    return "".join(map(_thoughts, value)) if isinstance(value, list) else ""


def settle(content: object, refusal: object, reason: object, thoughts: str = "") -> Completion | None:
    """A reply from its text, its refusal and its finish reason; None where these make no reply.

    A reason that is missing or unknown counts as "stop": servers have many words for a natural end. Beside no text at
    all an unknown one says why there is none.
    """
    if content is not None and not isinstance(content, str):
        return None
    word = _NO_LETTERS.sub("", reason[:64].lower()).removeprefix("finishreason") if isinstance(reason, str) else ""
    if word in _ABORTED:
        return None
    finish: Finish = "stop"
    if isinstance(refusal, str) and refusal:
        finish, content = "refusal", content or refusal
    elif _WITHHELD.search(word):
        finish = "refusal"
    elif word in _CUT:
        finish = "length"
    elif content is None:
        if word in _ENDED or thoughts:
            return None
        finish = "refusal"
    return Completion(text=content or "", finish=finish, thoughts=thoughts)
