"""Which field a refusal is about, where the request can do without it. It knows words, and no time."""

from __future__ import annotations

import re
from collections.abc import Sequence

from insightv.backends.openai.error_body import ServerError
from insightv.backends.openai.fit import Fit, Lesson

_N = (
    r"""\bn\b\s*(?:must|should|>|=|is\b|to\b)|['"`]n['"`]|completion choice|parallel sampling"""
    r"|candidate_?count|best_of"
    r"|(?:multiple|several|more than one) (?:choice|completion|candidate|generation|sequence|output)"
)
_NAMES = {
    "response_format": r"response_?format|json_?schema|json_object|structured[ _]output|guided|grammar|json mode",
    "stream_options": r"stream_options|include_usage",
    "top_p": r"\btop_?p\b",
    "seed": r"\b(?:random_)?seed\b",
    "temperature": r"\btemperature\b",
    "max_tokens": r"\bmax_tokens\b",
    "n": _N,
}
"""How fields are named in texts, the one first that is missed least: one of two that exclude each other is left out."""
_WORDS = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in _NAMES.items()}
_UNWANTED = re.compile(
    r"un(?:supported|known|recogni[sz]ed|expected|available)"
    r"|not (?:supported|permitted|allowed|available|implemented|enabled)"
    r"|does(?: not|n't) support|extra_forbidden|extra (?:inputs|fields)|cannot (?:both )?be (?:specified|used|set)|both"
    r"|incompatible|deprecated|only (?:the )?(?:default|1\b|one\b|temperature ?= ?1)|must be (?:exactly )?1(?:\.0)?\b"
    r"|use ['\"`]?\w+['\"`]? instead|invalid (?:parameter|field|argument)|cannot find field"
    r"|not a valid (?:parameter|field)",
    re.IGNORECASE,
)
"""Words for a field as such, not for its value: one that is out of range is the user's to correct."""
_INSTEAD = re.compile(r"use ['\"`]?(\w*tokens\w*)['\"`]? instead", re.IGNORECASE)
_NO_SYSTEM = re.compile(
    r"(?:system|developer) (?:role|message|prompt|instruction)s?\b[^.]{0,40}(?:not |n't |in|un)"
    r"(?:support|allow|enabl|permit|compatib)|incompatible with (?:the )?system"
    r"|does(?: not|n't) support (?:the )?system"
    r"|only (?:supports? )?(?:the )?['\"]?user['\"]? and ['\"]?(?:assistant|model)['\"]? roles|roles must alternate"
    r"|(?:invalid|unexpected|unsupported|unknown) role:? ?['\"]?system",
    re.IGNORECASE,
)


def lesson_of(error: ServerError, fit: Fit, fields: Sequence[str], *, system: bool) -> Lesson | None:
    """What to send otherwise after a refusal; None where it names nothing that can be done without.

    `fields` are those that were sent, by our names; `system` says whether instructions stood in a message of their own.
    """
    words = error.words
    if system and fit.system != "user" and _NO_SYSTEM.search(words):
        return Lesson("system")
    for name in _named(error, fit):
        if name not in fields:
            continue
        if name == "response_format":
            return Lesson(name, sent=fit.structured)
        if name == "n":
            return Lesson(name)
        if not _UNWANTED.search(words):
            continue
        if name == "max_tokens":
            found = _INSTEAD.search(words)
            lesson = Lesson(name, found[1] if found else "max_completion_tokens")
            return lesson if fit.after(lesson) != fit else None
        return Lesson(name)
    return None


def _named(error: ServerError, fit: Fit) -> list[str]:
    """The fields that an error names, by our names: by place where it gives one, else by its text."""
    ours = {theirs: name for name, theirs in fit.rename}
    placed = [ours.get(name, name) for name in error.fields]
    if known := [name for name in _WORDS if name in placed]:
        return known
    return [name for name, words in _WORDS.items() if words.search(error.message)]
