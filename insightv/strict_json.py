"""Reading JSON as its standard means it: no key twice in an object, no number that is not finite."""

from __future__ import annotations

import json
import math
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
