"""Whole numbers and simple fractions in English words."""

from __future__ import annotations

import re
from fractions import Fraction

_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ADDED = {word: at for at, word in enumerate(_SMALL)} | {word: 10 * at for at, word in enumerate(_TENS, 2)}
_COUNTS = "|".join((*_ADDED, *_LARGE, "hundred"))
_PARTS = {
    tuple(words.split(", ")): Fraction(part)
    for words, part in (
        ("half, a half, one half", "1/2"),
        ("a third, one third", "1/3"),
        ("two thirds", "2/3"),
        ("a quarter, one quarter, one fourth", "1/4"),
        ("three quarters, three fourths", "3/4"),
        ("one fifth", "1/5"),
    )
}
_TO_99 = rf"(?:(?:{'|'.join(_TENS)})(?: (?:{'|'.join(_SMALL[1:10])}))?|{'|'.join(_SMALL)})"
_TO_999 = rf"(?:(?:{'|'.join(_SMALL)}) hundred\b(?: (?:and )?{_TO_99}\b)?|{_TO_99}\b)"
_SCALE = rf"(?:{'|'.join(_LARGE)})\b"
_NUMBER = re.compile(
    rf"(?P<sign>(?:minus|negative) )?(?P<number>{_TO_999}(?: {_SCALE} (?:and )?{_TO_999})*(?: {_SCALE})?)"
    rf"(?P<rest> (?!(?:{_COUNTS})\b).*)?"
)


def read_number_words(text: str) -> tuple[Fraction, str] | None:
    """The number that the text begins with and the rest (with a space before it), or None.

    "twenty-five bars" gives 25 and " bars"; a number word inside a sentence is not looked for.
    """
    words = " ".join(re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text.lower()).split())
    for names, part in _PARTS.items():
        if words in names:
            return part, ""
    match = _NUMBER.fullmatch(re.sub(rf"^a (?=hundred\b|{_SCALE})", "one ", words))
    if match is None:
        return None
    total, group = 0, 0
    for word in match["number"].split():
        if word in _LARGE:
            total, group = total + group * _LARGE[word], 0
        else:
            group = group * 100 if word == "hundred" else group + _ADDED.get(word, 0)
    return Fraction((total + group) * (-1 if match["sign"] else 1)), match["rest"] or ""


def mentions_number(text: str) -> bool:
    """Whether a digit or a number word stands anywhere in the text."""
    return bool(re.search(rf"\d|(?<![a-z])(?:{_COUNTS})(?![a-z])", text.lower()))
