"""Calendar dates as people write them, where they can be read in one way only: 5 March 2010, Mar 5th 2010, 2010-03-05.

A date of figures alone is read in the order of ISO 8601, or where a number above 12 shows which one is the day.
"""

from __future__ import annotations

import re
from datetime import date

Date = tuple[int, int, int | None]
"""Year, month and day; no day where only the month is named."""

_NAMES = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_MONTHS = {name: at for at, full in enumerate(_NAMES, 1) for name in (full, full[:3])} | {"sept": 9}
_LEFT_OUT = re.compile(
    r"^(?:on|in)\s+|\b(?:mon|tues|wednes|thurs|fri|satur|sun)day\b|\b(?:the|of)\s|(?<=\d)(?:st|nd|rd|th)\b|[.,-]"
)
_ISO = re.compile(r"([12]\d{3})[-/.](\d{1,2})[-/.](\d{1,2})")
_FIGURES = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.]([12]\d{3})")


def read_date(text: str) -> Date | None:
    """The date that the whole text is; None where it is none, or could be two."""
    text = text.strip()
    if match := _ISO.fullmatch(text):
        year, month, day = map(int, match.groups())
        return _checked(year, month, day)
    if match := _FIGURES.fullmatch(text):
        first, second, year = map(int, match.groups())
        if first > 12 or first == second:
            return _checked(year, second, first)
        return _checked(year, first, second) if second > 12 else None
    return _named(_LEFT_OUT.sub(" ", text.lower()).split())


def _named(words: list[str]) -> Date | None:
    """The date of a month's name, a year at the end, and at most one other number."""
    months = [_MONTHS[word] for word in words if word in _MONTHS]
    days = [int(word) for word in words[:-1] if re.fullmatch(r"\d{1,2}", word, re.ASCII)]
    dated = words and re.fullmatch(r"[12]\d{3}", words[-1], re.ASCII)
    if not dated or len(months) != 1 or len(days) > 1 or len(words) != 2 + len(days):
        return None
    return _checked(int(words[-1]), months[0], days[0] if days else None)


def same_date(truth: Date, answer: Date) -> bool | None:
    """Whether both are one date; None where one names the day and the other only its month."""
    if truth[:2] != answer[:2]:
        return False
    return None if (truth[2] is None) != (answer[2] is None) else truth[2] == answer[2]


def _checked(year: int, month: int, day: int | None) -> Date | None:
    try:
        date(year, month, 1 if day is None else day)
    except ValueError:
        return None
    return year, month, day
