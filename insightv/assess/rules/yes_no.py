"""Answers that say yes or no, in the words of some languages; what follows the word must not take it back."""

from __future__ import annotations

import re

from insightv.assess.rules.letters import asks_symbol
from insightv.assess.rules.normalise import key

_WORDS = {
    True: "yes true ja oui si sim да 是 是的 对 對 はい 예 네",
    False: "no false nein non nao nej nee нет 否 不 不是 不对 不對 いいえ 아니요 아니오",
}
_SAYS = {word: meaning for meaning, words in _WORDS.items() for word in words.split()}
_OPENING = re.compile(
    r"(?i)^(yes|no|true|false)\b"
    r"(?:\s*$|\s*[,.;:!-](?!\s*\d)|\s+(?:it|they|he|she|there|this|that|these|those|because|the|you)\b)"
)
_TURNS = re.compile(
    r"(?i)\b(?:yes|no|true|false|but|however|although|though|actually|wait|or|unless|unclear|unsure|maybe|perhaps|sorry|"
    r"correction|doubt)\b"
    r"|\b(?:cannot|can't|unable|impossible|hard|difficult|not possible|don't|do not|not sure)\b.{0,20}"
    r"\b(?:determin|tell|say|see|know|confirm|answer|judge|read|sure|verif)"
)
_ASKS_NAME = re.compile(r"(?i)^\W*(?:what|which|who|whose|where|name|how)\b")
_ENGLISH = frozenset(("yes", "true", "no", "false"))
_DENIES = re.compile(r"(?i)\b(?:not|never|none|nothing|neither|nor|cannot|without)\b|n't\b")


def yes_or_no(question: str, truth: str, answer: str) -> bool | None:
    """Whether the answer says what the truth says; None where either is no plain yes or no.

    A reason that follows must go with the word: "Yes, it is not red" and, to "Is it red?", "No, it is red" stay open.
    """
    wanted = _SAYS.get(key(truth))
    if wanted is None:
        return None
    if (said := _SAYS.get(key(answer))) is not None:
        return None if said is wanted and _is_name(question, {key(truth), key(answer)}) else said is wanted
    opening = _OPENING.match(answer)
    if opening is None:
        return None
    said, rest = _SAYS[opening.group(1).lower()], answer[opening.end(1) :]
    return None if _TURNS.search(rest) or _belies(question, said, rest) else said is wanted


def _is_name(question: str, words: set[str]) -> bool:
    """Whether the words may be no yes and no at all: "Si" is an element, and "NO" is not "No"."""
    return asks_symbol(question) or bool(_ASKS_NAME.match(question) and not words <= _ENGLISH)


def _belies(question: str, said: bool, rest: str) -> bool:
    """Whether what follows a yes denies something, or what follows a no affirms what was asked last."""
    denied = bool(_DENIES.search(rest))
    if said:
        return denied and not _DENIES.search(question)
    asked = key(question).split()
    return not denied and bool(asked) and asked[-1] in key(rest).split()
