"""Calendar dates as people write them, where they can be read in one way only: 5 March 2010, Mar 5th 2010, 2010-03-05.

A date of figures alone is read in the order of ISO 8601, or where a number above 12 shows which one is the day.
"""

from __future__ import annotations

import re
from datetime import date

Date = tuple[int, int, int | None]
"""Year, month and day; no day where only the month is named."""

_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_MONTH = r"(?P<month>[A-Za-z]{3,9})\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>[12]\d{3})"
_WEEKDAY = r"(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day\s*,?\s+)?"
_FORMS = tuple(
    re.compile(rf"(?:on\s+|in\s+)?{_WEEKDAY}(?:the\s+)?{form}", re.IGNORECASE)
    for form in (
        rf"{_MONTH}\s+{_DAY}\s*,?\s+{_YEAR}",
        rf"{_DAY}(?:-|\s+(?:of\s+)?){_MONTH}(?:-|\s*,?\s+){_YEAR}",
        rf"{_MONTH}(?:\s*,?\s+|-)(?:of\s+)?{_YEAR}",
    )
)
_ISO = re.compile(r"([12]\d{3})[-/.](\d{1,2})[-/.](\d{1,2})")
_FIGURES = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.]([12]\d{3})")


def read_date(text: str) -> Date | None:
    """The date that the whole text is; None where it is none, or could be two."""
    text = text.strip()
    for form in _FORMS:
        if match := form.fullmatch(text):
            found = match.groupdict()
            month = _month(found["month"])
            day = int(found["day"]) if found.get("day") else None
            return _checked(int(found["year"]), month, day) if month else None
    if match := _ISO.fullmatch(text):
        year, month, day = map(int, match.groups())
        return _checked(year, month, day)
    if match := _FIGURES.fullmatch(text):
        first, second, year = map(int, match.groups())
        if first > 12 or first == second:
            return _checked(year, second, first)
        if second > 12:
            return _checked(year, first, second)
    return None


def same_date(truth: Date, answer: Date) -> bool | None:
    """Whether both are one date; None where one names the day and the other only its month."""
    if truth[:2] != answer[:2]:
        return False
    return None if (truth[2] is None) != (answer[2] is None) else truth[2] == answer[2]


def _month(name: str) -> int | None:
    low = name.lower()
    found = [at for at, month in enumerate(_MONTHS, 1) if low == month or low == month[:3]]
    return 9 if low == "sept" else found[0] if found else None


def _checked(year: int, month: int, day: int | None) -> Date | None:
    try:
        date(year, month, day or 1)
    except ValueError:
        return None
    return year, month, day
