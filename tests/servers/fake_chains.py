"""Reads requests of the fake server as bytes, and sees which ones begin with the bytes of an earlier one."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

_DECODER = json.JSONDecoder()
_MESSAGES = re.compile(r'"messages"\s*:\s*\[')
_BLANK = re.compile(r"\s*")


@dataclass(frozen=True)
class Reading:
    """One request. `extends` and `repeats` are numbers of earlier requests, None where there is none."""

    messages: list[dict[str, Any]]
    fields: dict[str, Any]
    sha: str
    extends: int | None
    repeats: int | None
    size: int
    cached: int

    @property
    def schema(self) -> str | None:
        form = self.fields.get("response_format") or {}
        name = (form.get("json_schema") or {}).get("name")
        return str(name) if name else None

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Role and text of each message, pictures left out."""
        return [(message["role"], text_of(message["content"])) for message in self.messages]


class ChainBook:
    """Remembers the bytes of every request's messages, by digest."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}

    def read(self, body: bytes, number: int) -> Reading:
        """Parse request `number`, from the bytes as they came."""
        text = body.decode("utf-8")
        found = _MESSAGES.search(text)
        if found is None:
            raise ValueError("the request has no messages")
        hasher, messages, marks = hashlib.sha256(b"["), [], []
        place, size = found.end(), 0
        while True:
            start = place
            message, place = _DECODER.raw_decode(text, _skip(text, place))
            segment = text[start:place].encode()
            hasher.update(segment)
            size += len(segment)
            messages.append(message)
            marks.append((hasher.copy().digest(), size))
            place = _skip(text, place)
            if text[place] == "]":
                break
            if text[place] != ",":
                raise ValueError("the messages are not a JSON array")
            hasher.update(b",")
            place += 1
        fields = json.loads(text[: found.start()] + '"messages":[]' + text[place + 1 :])
        whole = marks[-1][0]
        repeats = self._numbers.get(whole)
        known = [size for mark, size in marks if mark in self._numbers]
        before = [self._numbers[mark] for mark, _ in marks[:-1] if mark in self._numbers]
        self._numbers.setdefault(whole, number)
        hasher.update(b"]")
        return Reading(
            messages=messages,
            fields=fields,
            sha=hasher.hexdigest(),
            extends=before[-1] if before else None,
            repeats=repeats,
            size=size,
            cached=known[-1] if known else 0,
        )


def text_of(content: str | list[dict[str, Any]] | None) -> str:
    """The text of a message's content."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content or [] if part["type"] == "text")


def _skip(text: str, place: int) -> int:
    blank = _BLANK.match(text, place)
    return blank.end() if blank else place
