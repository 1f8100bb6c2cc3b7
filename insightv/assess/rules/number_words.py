"""Whole numbers and simple fractions in English words."""

from __future__ import annotations

import re
from fractions import Fraction

_ONES = {
    word: value
    for value, word in enumerate(
        (
            *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
            *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
        )
    )
}
_TENS = dict(twenty=20, thirty=30, forty=40, fifty=50, sixty=60, seventy=70, eighty=80, ninety=90)
_LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {
    "half": Fraction(1, 2),
    "a half": Fraction(1, 2),
    "one half": Fraction(1, 2),
    "one third": Fraction(1, 3),
    "a third": Fraction(1, 3),
    "two thirds": Fraction(2, 3),
    "a quarter": Fraction(1, 4),
    "one quarter": Fraction(1, 4),
    "one fourth": Fraction(1, 4),
    "three quarters": Fraction(3, 4),
    "three fourths": Fraction(3, 4),
    "one fifth": Fraction(1, 5),
}


def read_number_words(text: str) -> tuple[Fraction, str] | None:
    """The number that the text begins with and the rest (with a space before it), or None.

    "twenty-five bars" gives 25 and " bars"; a number word inside a sentence is not looked for.
    """
    words = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text.lower()).split()
    whole = " ".join(words)
    if whole in _PARTS:
        return _PARTS[whole], ""
    sign = 1
    if words and words[0] in ("minus", "negative"):
        sign, words = -1, words[1:]
    if len(words) > 1 and words[0] == "a" and words[1] in ("hundred", "thousand", "million", "billion"):
        words = ["one", *words[1:]]
    total, group, used = 0, 0, 0
    last = ""
    for at, word in enumerate(words):
        kind = _kind(word)
        following = _kind(words[at + 1]) if at + 1 < len(words) else ""
        if word == "and" and last in ("hundred", "large") and following in ("one", "ten"):
            continue
        if not _may_follow(kind, last):
            break
        if kind == "one":
            group += _ONES[word]
        elif kind == "ten":
            group += _TENS[word]
        elif kind == "hundred":
            group *= 100
        else:
            total, group = total + group * _LARGE[word], 0
        used, last = at + 1, ("teen" if kind == "one" and _ONES[word] in (0, *range(10, 20)) else kind)
    if used == 0 or (used < len(words) and _kind(words[used])):
        return None
    rest = " ".join(words[used:])
    return Fraction(sign * (total + group)), f" {rest}" if rest else ""


def _kind(word: str) -> str:
    if word in _ONES:
        return "one"
    if word in _TENS:
        return "ten"
    return "hundred" if word == "hundred" else "large" if word in _LARGE else ""


def _may_follow(kind: str, last: str) -> bool:
    """Whether a word of this kind continues a number that ended in the kind `last` so far."""
    if kind == "one":
        return last in ("", "ten", "hundred", "large")
    if kind == "ten":
        return last in ("", "hundred", "large")
    if kind == "hundred":
        return last in ("one", "teen")
    return kind == "large" and last in ("one", "ten", "teen", "hundred")


def mentions_number(text: str) -> bool:
    """Whether a digit or a number word stands anywhere in the text."""
    return bool(re.search(r"\d", text)) or any(_kind(word) for word in re.findall(r"[a-z]+", text.lower()))
