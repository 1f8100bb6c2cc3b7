"""Values as strict JSON and strict UTF-8: what Parquet, YAML and any JSON reader accept, whatever a model wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

from insightv.strict_json import Json

# Line ends for Python's splitlines and for JavaScript, which JSON leaves as they are; one row stays one line anywhere.
_LINE_ENDS = str.maketrans({"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"})


def clean(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot hold, as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def plain(value: object) -> Json:
    """The value in JSON's terms: a number that is not finite becomes None, an object of another kind its text."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case str():
            return clean(value)
        case Mapping():
            return {clean(str(key)): plain(inner) for key, inner in value.items()}
        case set() | frozenset():
            return [plain(inner) for inner in sorted(value, key=repr)]
        case bytes():
            return value.hex()
        case Iterable():
            return [plain(inner) for inner in value]
        case _:
            return clean(str(value))


def json_text(value: object) -> str:
    """One line of strict JSON."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False).translate(_LINE_ENDS)


def int64(number: int) -> int | None:
    """The number, or None where a column of 64 bits cannot hold it."""
    return number if -(2**63) <= number < 2**63 else None
