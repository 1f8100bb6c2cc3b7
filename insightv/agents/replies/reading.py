"""What a reply was read as, or why it could not be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from insightv.strict_json import Json

Rung = Literal["strict", "fence", "prose", "newlines", "repair"]


class Unreadable(ValueError):
    """A text that is not what it should be.

    Codes of this module: empty, too_long, too_deep, not_json, not_object, cut, two_objects, duplicate_keys, bad_number,
    bad_characters. Readers built on it add their own.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Reading:
    """The object of a reply. `rung` says how it was found, `mended` that LaTeX's backslashes were doubled."""

    value: dict[str, Json]
    rung: Rung
    mended: bool = False
