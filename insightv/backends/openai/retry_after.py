"""How long a server asks to be left alone: Retry-After in its forms, and the x-ratelimit headers.

It knows no clock but the one handed in.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)
_GO_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|h|m|s)", re.ASCII)
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_AGAIN_IN = re.compile(r"(?:try again|retry) (?:in|after) (?=[0-9])", re.IGNORECASE)
_SPOKEN = re.compile(r"[ ,]*([0-9]+(?:\.[0-9]+)?) ?(ms|h|m|s)(?:ours?|in(?:ute)?s?|ec(?:ond)?s?)?(?![a-z])", re.ASCII)
_EPOCH_FROM, _EPOCH_MOST = 1e9, 1e12
"""Larger values of x-ratelimit-reset are moments, not durations; still larger ones are not in seconds."""
_LARGEST = 1e20
"""A number above it counts as this one: as a moment in nanoseconds it is thousands of years away."""


def wait_in_text(text: str) -> float | None:
    """The seconds after which a text asks to be asked again ("Please try again in 6m0s"); None where it names none."""
    found = _AGAIN_IN.search(text)
    wait_s, part = 0.0, _SPOKEN.match(text, found.end()) if found else None
    if part is None:
        return None
    while part is not None:
        wait_s += float(part[1]) * _UNIT_S[part[2]]
        part = _SPOKEN.match(text, part.end())
    return min(_LARGEST, wait_s)


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait from now, at least 0; None where the headers do not say, or say nonsense.

    `now` is the wall clock (Unix time); the response's own Date header is preferred where a header names a moment.
    """
    now = time.time() if now is None else now
    server_now = _moment(headers.get("Date", ""))
    now = now if server_now is None else server_now
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("Retry-After", "")
    waits = [_number(part) for part in text.split(",")]  # a header that came twice, joined as HTTP has it
    seconds = [wait for wait in waits if wait is not None]
    if len(seconds) == len(waits):
        return max(seconds)
    moment = _moment(text)
    if moment is not None:
        return max(0.0, moment - now)
    return _ratelimit_reset_s(headers, now)


def _ratelimit_reset_s(headers: Mapping[str, str], now: float) -> float | None:
    waits = []
    for kind in ("", "-requests", "-tokens"):
        remaining = _number(headers.get(f"x-ratelimit-remaining{kind}", ""))
        if remaining:  # this limit was not the one that was hit
            continue
        text = headers.get(f"x-ratelimit-reset{kind}", "").strip()
        value = _number(text)
        if value is not None:
            while value > _EPOCH_MOST:  # in milli-, micro- or nanoseconds
                value /= 1000
            waits.append(max(0.0, value - now) if value > _EPOCH_FROM else value)
        elif text and not _GO_DURATION.sub("", text):
            parts = _GO_DURATION.findall(text)
            waits.append(min(_LARGEST, sum(float(amount) * _UNIT_S[unit] for amount, unit in parts)))
    return max(waits, default=None)


def _number(text: str) -> float | None:
    text = text.strip()
    return min(_LARGEST, float(text)) if _NUMBER.fullmatch(text) else None


def _moment(text: str) -> float | None:
    """Unix time of an HTTP date."""
    if not any(letter.isalpha() for letter in text):
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError, IndexError):
        return None
    # RFC 9110: an HTTP date is UTC, also in the old form that does not say so.
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        return (aware - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    except OverflowError:
        return None
