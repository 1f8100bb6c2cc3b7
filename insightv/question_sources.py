"""From a source of questions to raw rows, one at a time: what all sources share, JSONL files, and lists.

Knows encodings, line ends and formats; whole files and over-long lines are never held. Does not know what a question
is: that is `insightv.question_rows`. Every source can be read again from the start.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import reprlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

from insightv.errors import InputError

MAX_LINE = 32 * 2**20
KEPT_TEXT = 2000
"""Characters of an original line that are kept with a bad row."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong in one field of a row; an empty `field` means the row as a whole."""

    field: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it came. `line` counts from 1 (rows, where there are no lines); `text` is the start of the original.

    `kind`: "object" has the types of JSON; in "table" columns have one type each, so that numbers are not slips;
    "cells" are all text. Without `values` there is a `fault`.
    """

    line: int
    text: str
    values: dict[str, object] | None
    fault: Fault | None = None
    kind: Literal["object", "table", "cells"] = "object"


class SourceFault(InputError):
    """The source as a whole cannot be read (on) from `line`."""

    def __init__(self, line: int, code: str, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.code = code


class RowSource(ABC):
    """Rows that can be read any number of times. `name` is for messages; image paths are relative to `root`.

    `columns` are the names that every row has, where that is known before reading.
    """

    def __init__(self, name: str, root: Path | None) -> None:
        self.name = name
        self.root = root
        self.warnings: list[str] = []

    @property
    def columns(self) -> frozenset[str] | None:
        """The names of the columns, None where rows may differ."""
        return None

    @abstractmethod
    def rows(self) -> Iterator[RawRow]:
        """All rows in order; raises SourceFault where the source as a whole is at fault."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file, with its number from 1 and its byte offset; `ended` by a line end or not."""

    number: int
    offset: int
    data: bytes | None
    """None: over-long."""
    ended: bool


def _start_of(item: object) -> str:
    try:
        return reprlib.repr(item)
    except ValueError:  # a number of more digits than Python turns into text
        return f"<{type(item).__name__}>"


class JsonLines(RowSource):
    """One JSON object a line; `.gz` is unpacked on the way."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.name, path.parent)
        self.path = path

    def rows(self) -> Iterator[RawRow]:
        """See `RowSource`."""
        first = True
        for line in read_lines(self, self.path):
            if line.data is not None and not line.data.strip():
                continue
            if first and line.data is not None and (line.data.strip() == b"{" or line.data.lstrip().startswith(b"[")):
                raise SourceFault(line.number, "json_document", "one JSON document; write one object a line (JSONL)")
            first = False
            yield _json_row(line)


class Rows(RowSource):
    """Objects in memory: mappings, or anything with a `values` of its own made by the caller."""

    def __init__(self, items: Sequence[dict[str, object]], root: Path | None) -> None:
        super().__init__("questions", root)
        self.items = items

    def rows(self) -> Iterator[RawRow]:
        """See `RowSource`."""
        for number, item in enumerate(self.items, 1):
            if not isinstance(item, dict):
                fault = Fault("", "not_an_object", f"a question is a Question or a mapping, not {type(item).__name__}")
                yield RawRow(number, "", None, fault)
            else:
                yield RawRow(number, _start_of(item), item)


def read_lines(source: RowSource, path: Path) -> Iterator[Line]:
    """The lines of a file with their offsets, those over `MAX_LINE` without their content."""
    number = offset = 0
    try:
        with _opened(path) as file:
            while data := file.readline(MAX_LINE + 1):
                number += 1
                start, length, ended, whole = offset, len(data), data.endswith(b"\n"), len(data) <= MAX_LINE
                while not ended and (rest := file.readline(2**20)):
                    length, ended, whole = length + len(rest), rest.endswith(b"\n"), False
                offset += length
                if number == 1:
                    start, data = _without_mark(data, source)
                yield Line(number, start, data if whole else None, ended)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise SourceFault(number + 1, "bad_gzip", "the gzip file is damaged or cut off; get it again") from None
    except OSError as error:
        raise SourceFault(number, "unreadable", f"cannot be read: {error.strerror}") from None
    if number == 0:
        raise SourceFault(1, "empty_file", "the file is empty")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield cast("IO[bytes]", unpacked)


def _without_mark(data: bytes, source: RowSource) -> tuple[int, bytes]:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SourceFault(1, "utf16", "the file is UTF-16 (byte offset 0); save it as UTF-8")
    if not data.startswith(b"\xef\xbb\xbf"):
        return 0, data
    warning = f"{source.name}:1: begins with a byte order mark (byte offset 0); it is left out"
    if warning not in source.warnings:
        source.warnings.append(warning)
    return 3, data[3:]


def decoded(line: Line) -> tuple[str, Fault | None]:
    """The text of a line, and what is wrong with its bytes; their offset is that in the file."""
    if line.data is None:
        return "", Fault("", "line_too_long", f"the line at byte offset {line.offset} is over {MAX_LINE} bytes long")
    if (at := line.data.find(b"\0")) >= 0:
        text = line.data.decode("utf-8", "replace")
        return text, Fault("", "nul_byte", f"a NUL byte at byte offset {line.offset + at}")
    try:
        return line.data.decode("utf-8"), None
    except UnicodeDecodeError as error:
        found = f"byte 0x{line.data[error.start]:02x} at byte offset {line.offset + error.start}"
        return line.data.decode("utf-8", "replace"), Fault("", "invalid_utf8", f"{found} is not UTF-8")


def _json_row(line: Line) -> RawRow:
    text, fault = decoded(line)
    values: object = None
    if fault is None:
        try:
            values = _DECODER.decode(text)
        except RecursionError:
            fault = Fault("", "too_deep", "brackets are nested too deeply")
        except json.JSONDecodeError as error:
            fault = Fault("", "bad_json", f"not JSON at character {error.pos + 1}: {error.msg.removesuffix(' at')}")
        except _Refused as error:
            fault = error.fault
        except ValueError:
            fault = Fault("", "bad_json", "a number of too many digits")
        if fault is None and not isinstance(values, dict):
            fault = Fault("", "not_an_object", f"a row is a JSON object, not {_json_name(values)}")
    if fault is not None and fault.code in ("bad_json", "invalid_utf8") and not line.ended:
        fault = Fault("", "cut_line", f"the last line is cut off: no newline at its end, and {fault.reason}")
    row = values if isinstance(values, dict) and fault is None else None
    return RawRow(line.number, cut_text(text.rstrip("\r\n")), row, fault)


class _Refused(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Refused(Fault(cut_text(twice, 100), "duplicate_key", f"the key {cut_text(twice, 100)!r} is there twice"))
    return found


def _constant(name: str) -> float:
    raise _Refused(Fault("", "not_finite", f"{name} is not a number of JSON"))


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(Fault("", "not_finite", f"{cut_text(text, 40)} is too large for a number"))
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_number)


def _json_name(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def cut_text(text: str, length: int = KEPT_TEXT) -> str:
    """The start of a text."""
    return text if len(text) <= length else text[:length]
