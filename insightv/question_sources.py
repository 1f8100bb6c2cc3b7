"""From a file of questions (JSONL, CSV, Parquet, a Hugging Face dataset, a list) to raw rows, one at a time.

Knows encodings, line ends and formats; whole files and over-long lines are never held. Does not know what a question
is: that is `insightv.question_rows`. Every source can be read again from the start.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import reprlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

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
class _Line:
    number: int
    offset: int
    data: bytes | None
    """None: over-long."""
    ended: bool


class JsonLines(RowSource):
    """One JSON object a line; `.gz` is unpacked on the way."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.name, path.parent)
        self.path = path

    def rows(self) -> Iterator[RawRow]:
        """See `RowSource`."""
        first = True
        for line in _lines(self):
            if line.data is not None and not line.data.strip():
                continue
            if first and line.data is not None and (line.data.strip() == b"{" or line.data.lstrip().startswith(b"[")):
                raise SourceFault(line.number, "json_document", "one JSON document; write one object a line (JSONL)")
            first = False
            yield _json_row(line)


class CsvFile(RowSource):
    """Comma-separated with a header line, quoted as RFC 4180 says."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.name, path.parent)
        self.path = path

    @property
    def columns(self) -> frozenset[str] | None:
        """The header."""
        return frozenset(self._header(self._records()))

    def rows(self) -> Iterator[RawRow]:
        """See `RowSource`."""
        records = self._records()
        header = self._header(records)
        for line, cells, text, problem in records:
            if problem is None and len(cells) != len(header):
                problem = Fault("", "bad_columns", f"{len(cells)} cells where the header has {len(header)}")
            values = None if problem else dict(zip(header, cells, strict=True))
            yield RawRow(line, text, values, problem, "cells")

    def _header(self, records: Iterator[tuple[int, list[str], str, Fault | None]]) -> list[str]:
        line, header, _, fault = next(records, (1, [], "", Fault("", "empty_file", "the file has no header line")))
        if fault is not None:
            raise SourceFault(line, fault.code, fault.reason)
        if len(set(header)) != len(header) or not all(header):
            raise SourceFault(line, "bad_header", f"column names are empty or twice there: {_cut(','.join(header))}")
        return header

    def _records(self) -> Iterator[tuple[int, list[str], str, Fault | None]]:
        feed = _CsvFeed(_lines(self))
        reader = csv.reader(feed, strict=True)
        while True:
            feed.begin()
            fault = None
            cells: list[str] = []
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                cut = not feed.ended and "end of data" in str(error)
                reason = "the last row is cut off inside a quoted cell" if cut else _csv_reason(error)
                fault = Fault("", "cut_line" if cut else "bad_csv", reason)
            if cells or fault or feed.fault:
                yield feed.first, cells, _cut(feed.text.rstrip("\r\n")), feed.fault or fault


class _CsvFeed:
    """Decoded lines for the csv reader, and what is to be known of those that the last record took."""

    def __init__(self, lines: Iterator[_Line]) -> None:
        self._lines = lines
        self.begin()

    def begin(self) -> None:
        self.first, self.text, self.ended = 0, "", True
        self.fault: Fault | None = None

    def __iter__(self) -> _CsvFeed:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        text, fault = _decoded(line)
        self.first = self.first or line.number
        self.fault = self.fault or fault
        self.ended = line.ended
        if len(self.text) < KEPT_TEXT:
            self.text += text[:KEPT_TEXT]
        return text


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
                yield RawRow(number, reprlib.repr(item), item)


def _lines(source: JsonLines | CsvFile) -> Iterator[_Line]:
    """The lines of a file with their offsets, those over `MAX_LINE` without their content."""
    number = offset = 0
    try:
        with _opened(source.path) as file:
            while data := file.readline(MAX_LINE + 1):
                number += 1
                start, length, ended, whole = offset, len(data), data.endswith(b"\n"), len(data) <= MAX_LINE
                while not ended and (rest := file.readline(2**20)):
                    length, ended, whole = length + len(rest), rest.endswith(b"\n"), False
                offset += length
                if number == 1:
                    start, data = _without_mark(data, source)
                yield _Line(number, start, data if whole else None, ended)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise SourceFault(number + 1, "bad_gzip", "the gzip file is damaged or cut off; get it again") from None
    except OSError as error:
        raise SourceFault(number, "unreadable", f"cannot be read: {error.strerror}") from None
    if number == 0:
        raise SourceFault(1, "empty_file", "the file is empty")


def _opened(path: Path) -> IO[bytes]:
    file = open(path, "rb")  # noqa: SIM115 - the caller closes it
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return gzip.open(file) if packed else file  # type: ignore[return-value]  # GzipFile is a binary file in all but name


def _without_mark(data: bytes, source: RowSource) -> tuple[int, bytes]:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SourceFault(1, "utf16", "the file is UTF-16 (byte offset 0); save it as UTF-8")
    if not data.startswith(b"\xef\xbb\xbf"):
        return 0, data
    warning = f"{source.name}:1: begins with a byte order mark (byte offset 0); it is left out"
    if warning not in source.warnings:
        source.warnings.append(warning)
    return 3, data[3:]


def _decoded(line: _Line) -> tuple[str, Fault | None]:
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


def _json_row(line: _Line) -> RawRow:
    text, fault = _decoded(line)
    values: object = None
    if fault is None:
        try:
            values = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_number)
        except RecursionError:
            fault = Fault("", "too_deep", "brackets are nested too deeply")
        except json.JSONDecodeError as error:
            fault = Fault("", "bad_json", f"not JSON at character {error.pos + 1}: {error.msg}")
        except _Refused as error:
            fault = error.fault
        except ValueError:
            fault = Fault("", "bad_json", "a number of too many digits")
        if fault is None and not isinstance(values, dict):
            fault = Fault("", "not_an_object", f"a row is a JSON object, not {_json_name(values)}")
    if fault is not None and fault.code in ("bad_json", "invalid_utf8") and not line.ended:
        fault = Fault("", "cut_line", f"the last line is cut off: no newline at its end, and {fault.reason}")
    row = values if isinstance(values, dict) and fault is None else None
    return RawRow(line.number, _cut(text.rstrip("\r\n")), row, fault)


class _Refused(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Refused(Fault(_cut(twice, 100), "duplicate_key", f"the key {_cut(twice, 100)!r} is there twice"))
    return found


def _constant(name: str) -> float:
    raise _Refused(Fault("", "not_finite", f"{name} is not a number of JSON"))


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(Fault("", "not_finite", f"{_cut(text, 40)} is too large for a number"))
    return value


def _json_name(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _csv_reason(error: csv.Error) -> str:
    text = str(error)
    if "field limit" in text:
        return f"a cell of more than {csv.field_size_limit()} characters, or a quote that is never closed; use JSONL"
    return f"not CSV: {text}"


def _cut(text: str, length: int = KEPT_TEXT) -> str:
    return text if len(text) <= length else text[:length]
