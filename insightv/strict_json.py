"""JSON as its standard means it: no key twice in an object, no number that is not finite, no half of a character.

What is written here Parquet, YAML and any JSON reader accept, whatever a model wrote.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NoReturn, TypeAlias

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


class NotStrict(Exception):
    """What Python's reader takes and JSON does not mean; `found` is the key or the number as it is written."""

    def __init__(self, code: Literal["duplicate_key", "bad_number"], found: str) -> None:
        super().__init__(f"{code}: {found[:40]}")
        self.code = code
        self.found = found


def strict_decoder(*, control_characters: bool = False, most_digits: int | None = None) -> json.JSONDecoder:
    """A decoder that raises NotStrict; `control_characters` may stand in strings, an integer has `most_digits`."""

    def integer(literal: str) -> int:
        return int(literal) if most_digits is None or len(literal) <= most_digits else _bad_number(literal)

    return json.JSONDecoder(
        strict=not control_characters,
        parse_constant=_bad_number,
        parse_float=_finite,
        parse_int=integer,
        object_pairs_hook=_unique,
    )


def _bad_number(literal: str) -> NoReturn:
    raise NotStrict("bad_number", literal)


def _finite(literal: str) -> float:
    number = float(literal)
    return number if math.isfinite(number) else _bad_number(literal)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise NotStrict("duplicate_key", next(name for name in names if names.count(name) > 1))
    return value


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
