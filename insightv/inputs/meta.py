"""What else a row holds: values that are kept with a question as they are."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from insightv.inputs.fields import MAX_DEPTH, Report, encodable, kind_name
from insightv.inputs.image_error import shorten


def read_cell(value: object, field: str, report: Report) -> object:
    """The value in a cell of CSV: nothing, JSON where it begins like it, or the text itself."""
    if not isinstance(value, str) or not value.strip():
        return None
    if not value.startswith(("[", "{")):
        return value
    try:
        found: object = json.loads(value)
    except (ValueError, RecursionError):
        report(field, "bad_json", f"{shorten(value)} begins like JSON, and is not")
        return None
    return found


def read_meta(given: object, extra: Mapping[str, object], report: Report) -> dict[str, object]:
    """What the row says beside the fields, as JSON can hold it."""
    if given is not None and not isinstance(given, dict):
        report("meta", "wrong_type", f"meta is an object, not {kind_name(given)}")
        given = None
    if both := sorted(str(key) for key in set(extra) & set(given or {})):
        report("meta", "duplicate_key", f"{shorten(both[0])} is there twice: in meta, and beside it")
    try:
        return {key: _plain(value, 1) for key, value in {**(given or {}), **extra}.items() if _key(key)}
    except _Unplain as error:
        report("meta", error.code, str(error))
        return {}


class _Unplain(ValueError):
    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def _key(key: object) -> bool:
    if not isinstance(key, str):
        raise _Unplain("wrong_type", f"keys are strings, not {kind_name(key)}")
    if not encodable(key):
        raise _Unplain("lone_surrogate", "half of a surrogate pair in a key")
    return True


def _plain(value: object, depth: int) -> object:
    """`value` as JSON can hold it; dates and the like as text, binary data by its length only."""
    if depth > MAX_DEPTH:
        raise _Unplain("too_deep", f"more than {MAX_DEPTH} levels of nesting")
    if isinstance(value, str):
        if not encodable(value):
            raise _Unplain("lone_surrogate", "half of a surrogate pair; the text cannot be written as UTF-8")
        return value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise _Unplain("number_too_large", f"a number of {value.bit_length()} bits; 63 and a sign can be kept")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _Unplain("not_finite", f"{value} is not a number of JSON")
        return value
    if isinstance(value, dict):
        return {key: _plain(entry, depth + 1) for key, entry in value.items() if _key(key)}
    if isinstance(value, list | tuple):
        return [_plain(entry, depth + 1) for entry in value]
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)
