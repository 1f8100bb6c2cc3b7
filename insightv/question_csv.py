"""Questions in CSV with a header line; a row may take several lines.

Knows quoting. Reads lines, and names faults of bytes, by `insightv.question_sources`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from insightv.question_sources import (
    KEPT_TEXT,
    Fault,
    Line,
    RawRow,
    RowSource,
    SourceFault,
    cut_text,
    decoded,
    read_lines,
)


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
            values: dict[str, object] | None = None if problem else dict(zip(header, cells, strict=True))
            yield RawRow(line, text, values, problem, "cells")

    def _header(self, records: Iterator[tuple[int, list[str], str, Fault | None]]) -> list[str]:
        line, header, _, fault = next(records, (1, [], "", Fault("", "empty_file", "the file has no header line")))
        if fault is not None:
            raise SourceFault(line, fault.code, fault.reason)
        if len(set(header)) != len(header) or not all(header):
            names = cut_text(",".join(header))
            raise SourceFault(line, "bad_header", f"column names are empty or twice there: {names}")
        return header

    def _records(self) -> Iterator[tuple[int, list[str], str, Fault | None]]:
        feed = _CsvFeed(read_lines(self, self.path))
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
                yield feed.first, cells, cut_text(feed.text.rstrip("\r\n")), feed.fault or fault


class _CsvFeed:
    """Decoded lines for the csv reader, and what is to be known of those that the last record took."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self.begin()

    def begin(self) -> None:
        self.first, self.text, self.ended = 0, "", True
        self.fault: Fault | None = None

    def __iter__(self) -> _CsvFeed:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        text, fault = decoded(line)
        self.first = self.first or line.number
        self.fault = self.fault or fault
        self.ended = line.ended
        if len(self.text) < KEPT_TEXT:
            self.text += text[:KEPT_TEXT]
        return text


def _csv_reason(error: csv.Error) -> str:
    text = str(error)
    if "field limit" in text:
        return f"a cell of more than {csv.field_size_limit()} characters, or a quote that is never closed; use JSONL"
    return f"not CSV: {text}"
