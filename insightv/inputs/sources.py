"""From a source of questions to raw rows, one at a time: what all sources share, the lines of files, and lists.

Knows encodings and line ends; whole files and over-long lines are never held. Does not know what a question
is: that is `insightv.inputs.rows`. Every source can be read again from the start.
"""

from __future__ import annotations

import contextlib
import gzip
import reprlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

from insightv.errors import InputError, TooManyOpenFiles

MAX_LINE, MAX_TEXT_LINE = 32 * 2**20, 8 * 2**20
"""Bytes of a line that holds images as data URLs, and of one of text alone: text takes up to eight times as much while
it is read (each character four bytes, as a line and as a value)."""
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

    def decoded(self) -> tuple[str, Fault | None]:
        """Its text, and what is wrong with its bytes; their offset is that in the file."""
        if self.data is None:
            most = f"{MAX_TEXT_LINE} bytes, {MAX_LINE} with images as data URLs"
            reason = f"the line at byte offset {self.offset} is too long; the limit is {most}; keep images as files"
            return "", Fault("", "line_too_long", reason)
        if (at := self.data.find(b"\0")) >= 0:
            text = self.data.decode("utf-8", "replace")
            return text, Fault("", "nul_byte", f"a NUL byte at byte offset {self.offset + at}")
        try:
            return self.data.decode("utf-8"), None
        except UnicodeDecodeError as error:
            found = f"byte 0x{self.data[error.start]:02x} at byte offset {self.offset + error.start}"
            return self.data.decode("utf-8", "replace"), Fault("", "invalid_utf8", f"{found} is not UTF-8")


def _start_of(item: object) -> str:
    try:
        return reprlib.repr(item)
    except ValueError:  # a number of more digits than Python turns into text
        return f"<{type(item).__name__}>"


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


class TextFile(RowSource):
    """Rows of a text file; `.gz` is unpacked on the way."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.name, path.parent)
        self.path = path

    def lines(self) -> Iterator[Line]:
        """The lines with their offsets, those over `MAX_LINE` (of text `MAX_TEXT_LINE`) without their content."""
        reader = _LineReader(self)
        try:
            with _opened(self.path) as file:
                # Not by a loop: its variable would hold a long line until after the next one is read.
                yield from iter(lambda: reader.line(file), None)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            reason = "the gzip file is damaged or cut off; get it again"
            raise SourceFault(reader.number + 1, "bad_gzip", reason) from None
        except OSError as error:
            TooManyOpenFiles.raise_if_behind(error, str(self.path))
            raise SourceFault(reader.number, "unreadable", f"cannot be read: {error.strerror}") from None
        if reader.number == 0:
            raise SourceFault(1, "empty_file", "the file is empty")


class _LineReader:
    def __init__(self, source: RowSource) -> None:
        self.number = self._offset = 0
        self._source = source

    def line(self, file: IO[bytes]) -> Line | None:
        """The next line; None at the end."""
        data = file.readline(MAX_LINE + 1)
        if not data:
            return None
        self.number += 1
        start, ended = self._offset, data.endswith(b"\n")
        whole = len(data) <= MAX_TEXT_LINE or (len(data) <= MAX_LINE and _DATA_URL in data)
        self._offset += len(data)
        while not ended and (rest := file.readline(2**20)):
            self._offset, ended, whole = self._offset + len(rest), rest.endswith(b"\n"), False
        if self.number == 1:
            start, data = _without_mark(data, self._source)
        return Line(self.number, start, data if whole else None, ended)


_DATA_URL = b";base64,"


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


def cut_text(text: str, length: int = KEPT_TEXT) -> str:
    """The start of a text."""
    return text if len(text) <= length else text[:length]
