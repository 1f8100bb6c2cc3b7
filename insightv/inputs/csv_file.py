"""Questions in CSV with a header line; a row may take several lines.

Knows quoting. Reads lines, and names faults of bytes, by `insightv.inputs.sources`.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from insightv.inputs.sources import KEPT_TEXT, MAX_LINE, Fault, Line, RawRow, SourceFault, TextFile, cut_text

MAX_RECORD = 2**20
"""Characters of the further lines of one row: a quote that is never closed would make the rest of the file one row."""
_MAX_READ_AGAIN = 64 * 2**20
"""Characters read again in one file: with quotes wrong in every row, each line would be read with very many rows."""


class CsvFile(TextFile):
    """Separated by commas, or by tabs, with a header line, quoted as RFC 4180 says.

    A row of several lines that comes to nothing is bad by its first line; the lines after it are read as rows of their
    own, since a quote that was never closed may have taken them in.
    """

    def __init__(self, path: Path, delimiter: str = ",") -> None:
        super().__init__(path)
        self._delimiter = delimiter
        if csv.field_size_limit() < MAX_LINE:  # of the whole process: an image in base64 is one cell
            csv.field_size_limit(MAX_LINE)

    @property
    def columns(self) -> frozenset[str] | None:
        """The header."""
        return frozenset(_header(_Records(self.lines(), self._delimiter)))

    def rows(self) -> Iterator[RawRow]:
        """See `RowSource`."""
        records = _Records(self.lines(), self._delimiter)
        header = _header(records)
        while (record := records.take(len(header))) is not None:
            values: dict[str, object] | None = None if record.fault else dict(zip(header, record.cells, strict=True))
            yield RawRow(record.line, record.text, values, record.fault, "cells")


@dataclass(slots=True)
class _Record:
    line: int
    cells: list[str]
    text: str
    fault: Fault | None


def _header(records: _Records) -> list[str]:
    record = records.take(None) or _Record(1, [], "", Fault("", "empty_file", "the file has no header line"))
    if record.fault is not None:
        raise SourceFault(record.line, record.fault.code, record.fault.reason)
    if len(set(record.cells)) != len(record.cells) or not all(record.cells):
        names = cut_text(",".join(record.cells))
        raise SourceFault(record.line, "bad_header", f"column names are empty or twice there: {names}")
    return record.cells


class _Records:
    """Rows from lines, one after the other; an iterator of text lines for the csv reader in between."""

    def __init__(self, lines: Iterator[Line], delimiter: str) -> None:
        self._lines = lines
        self._delimiter = delimiter
        self._again: deque[Line] = deque()  # given back by a row that came to nothing
        self._read_again = 0
        self._reader = csv.reader(self, delimiter=self._delimiter, strict=True)
        self._begin()

    def _begin(self) -> None:
        self._first = 0
        self._text = ""
        self._further: list[Line] = []
        self._size = 0  # characters of the further lines
        self._ended = True
        self._fault: Fault | None = None  # of bytes, in any line
        self._first_fault: Fault | None = None

    def take(self, width: int | None) -> _Record | None:
        """The next row that is not blank, with a fault where it has not `width` cells; None at the end."""
        while True:
            self._begin()
            cells: list[str] = []
            fault = None
            try:
                cells = next(self._reader)
            except StopIteration:
                return None
            except csv.Error as error:
                fault = self._named(error)
            if not cells and not fault and not self._fault:
                continue
            if fault is None and self._fault is None and width is not None and len(cells) != width:
                fault = self._bad_width(len(cells), width)
            text = self._text
            if fault is not None and self._further:
                self._give_back()
                text, self._fault = text.split("\n", 1)[0], self._first_fault
            return _Record(self._first, cells, cut_text(text.rstrip("\r\n")), self._fault or fault)

    def __iter__(self) -> _Records:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        text, fault = line.decoded()
        self._ended = line.ended
        self._fault = self._fault or fault
        if len(self._text) < KEPT_TEXT:
            self._text += text[:KEPT_TEXT]
        if self._first:
            self._further.append(line)
            self._size += len(text)
            if self._size > MAX_RECORD:
                raise _Endless
        else:
            self._first, self._first_fault = line.number, fault
        return text

    def _give_back(self) -> None:
        self._again.extendleft(reversed(self._further))
        self._read_again += self._size
        self._reader = csv.reader(self, delimiter=self._delimiter, strict=True)
        if self._read_again > _MAX_READ_AGAIN:
            reason = "quotes are opened and not closed in too many rows up to here; write the file anew, or as JSONL"
            raise SourceFault(self._first, "bad_csv", reason)

    def _named(self, error: csv.Error) -> Fault:
        if not self._further and not self._ended and "end of data" in str(error):
            return Fault("", "cut_line", "the last row is cut off inside a quoted cell")
        if isinstance(error, _Endless):
            text = f"over {MAX_RECORD} characters in further lines, or a quote that is never closed; use JSONL"
        elif "field limit" in str(error):
            limit = csv.field_size_limit()
            text = f"a cell of more than {limit} characters, or a quote that is never closed; use JSONL"
        elif "end of data" in str(error):
            text = "not CSV: a quote that is opened in this row is never closed"
        else:
            text = f"not CSV: {error}"
        return Fault("", "bad_csv", text + self._joined())

    def _bad_width(self, found: int, width: int) -> Fault:
        text = f"{found} cells where the header has {width}"
        if found < width and not self._ended and not self._further:
            return Fault("", "cut_line", f"the last row is cut off: no newline at its end, and {text}")
        return Fault("", "bad_columns", text + self._joined())

    def _joined(self) -> str:
        lines = 1 + len(self._further)
        return f" (quotes join {lines} lines; those after the first are read as rows of their own)" if lines > 1 else ""


class _Endless(csv.Error):
    """A row takes more lines than any row can need."""
