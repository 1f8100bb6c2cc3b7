"""What the pages of a Parquet file unpack to, by their headers alone: a file of some kB can come to gigabytes.

Knows the headers of pages (Thrift's compact protocol) and what a reader holds of them. Decodes no value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from insightv.errors import InputError

MOST_BYTES = 64 * 2**20
"""That the pages being read, of all columns together, may unpack to beyond eight times what they take in the file."""
MOST_ROWS = 16
"""Of one batch."""
_PACKED = 8
_HEADER_BYTES, _MOST_HEADER_BYTES = 4096, 2**24
_DICTIONARY_PAGE = 2
_DELTA_BYTE_ARRAY = 7
_LEVEL_BYTES = 4
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12, "BYTE_ARRAY": 4}


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How the row groups of a file are read: rows of one batch, and leaves whose values stay told by number."""

    rows: int
    dictionaries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Page:
    kind: int
    unpacked: int
    packed: int
    levels: int
    encoding: int


@dataclass(slots=True)
class _Chunk:
    """A column within a row group: its largest page of each kind, then all its pages of data and their values."""

    unpacked: int = 0
    packed: int = 0
    all_unpacked: int = 0
    all_packed: int = 0
    levels: int = 0
    delta: bool = False


def read_plan(path: Path, metadata: Any) -> ReadPlan:
    """How to read a file whose `metadata` (pyarrow's) is known, in bounded memory.

    Raises:
        InputError: it cannot be done.
        ValueError: the headers make no sense.
        OSError: the file cannot be read.
    """
    rows, dictionaries = MOST_ROWS, set()
    with path.open("rb") as file:
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            unpacked = packed = lists = lists_packed = 0
            for index in range(group.num_columns):
                column, leaf = group.column(index), metadata.schema.column(index)
                chunk = _chunk(file, column)
                unpacked, packed = unpacked + chunk.unpacked, packed + chunk.packed
                if leaf.max_repetition_level:  # a single row may have all of it
                    lists += chunk.levels * (_LEVEL_BYTES + (_WIDTHS.get(leaf.physical_type) or leaf.length or 1))
                    lists, lists_packed = lists + chunk.all_unpacked, lists_packed + chunk.all_packed
                    if chunk.delta:
                        raise InputError(f"the lists of {leaf.path} are of the encoding DELTA_BYTE_ARRAY; use another")
                    if leaf.physical_type == "BYTE_ARRAY" and column.has_dictionary_page:
                        dictionaries.add(leaf.path)
            _check(number, unpacked, packed, lists - _PACKED * lists_packed)
            rows = min(rows, max(1, MOST_BYTES // max(1, unpacked)))
    return ReadPlan(rows, tuple(sorted(dictionaries)))


def _check(group: int, unpacked: int, packed: int, lists: int) -> None:
    if unpacked > MOST_BYTES + _PACKED * packed:
        raise InputError(
            f"row group {group}: {packed} bytes of pages unpack to {unpacked}, and the limit is {MOST_BYTES} beyond "
            f"{_PACKED} times what is packed; write it with smaller pages (data_page_size), and pictures as files"
        )
    if lists > MOST_BYTES:
        raise InputError(
            f"row group {group}: its lists come to {lists} bytes beyond {_PACKED} times what is packed, and the limit "
            f"is {MOST_BYTES}; write it with smaller row groups (row_group_size)"
        )


def _chunk(file: BinaryIO, column: Any) -> _Chunk:
    found, largest, dictionary = _Chunk(), (0, 0), (0, 0)
    for page in _pages(file, column):
        size = (page.unpacked, page.packed)
        if page.kind == _DICTIONARY_PAGE:
            dictionary = max(dictionary, size)
        else:
            largest = max(largest, size)
            found.levels += page.levels
            found.all_unpacked += page.unpacked
            found.all_packed += page.packed
            found.delta = found.delta or page.encoding == _DELTA_BYTE_ARRAY
    found.unpacked, found.packed = (sum(sizes) for sizes in zip(largest, dictionary, strict=True))
    return found


def _pages(file: BinaryIO, column: Any) -> Iterator[_Page]:
    """The headers of a column chunk's pages, from where the reader will begin to where it will end."""
    at = int(column.data_page_offset)
    if column.has_dictionary_page and 0 < (column.dictionary_page_offset or 0) < at:
        at = int(column.dictionary_page_offset)
    end = at + int(column.total_compressed_size)
    while at < end:
        page, length = _header(file, at)
        yield page
        at += length + page.packed


def _header(file: BinaryIO, at: int) -> tuple[_Page, int]:
    size = _HEADER_BYTES
    while True:
        file.seek(at)
        data = file.read(size)
        reader = _Compact(data)
        try:
            page = _page(reader.fields())
        except IndexError:  # it goes on behind what was read, as with the statistics of long values
            if len(data) < size or size >= _MOST_HEADER_BYTES:
                raise ValueError(f"the page at byte {at} has no whole header") from None
            size *= 16
        else:
            return page, reader.at


def _page(fields: dict[int, object]) -> _Page:
    """A `PageHeader` of the Parquet format: 1 type, 2 and 3 its sizes, 5, 7 and 8 the header of its type."""
    inner = next((fields[number] for number in (5, 7, 8) if number in fields), {})
    values = cast("dict[int, object]", inner) if isinstance(inner, dict) else {}
    encoding = values.get(4 if 8 in fields else 2, 0)
    sizes = (fields.get(1), fields.get(2), fields.get(3), values.get(1, 0), encoding)
    if not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise ValueError("the header of a page lacks its sizes")
    kind, unpacked, packed, levels, coded = cast("tuple[int, int, int, int, int]", sizes)
    return _Page(kind, unpacked, packed, levels, coded)


class _Compact:
    """A struct in Thrift's compact protocol. Texts and lists are passed over; IndexError where the data ends."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def fields(self, depth: int = 0) -> dict[int, object]:
        """The fields of the struct that begins here, by number."""
        found: dict[int, object] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            found[number] = self._value(head & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> object:
        if kind in (1, 2):  # true, false
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind in (7, 8):  # a double, bytes
            length = 8 if kind == 7 else self._unsigned()
            self.at += length
            return None
        if kind in (9, 10) and depth < 8:
            head = self._byte()
            for _ in range(self._unsigned() if head >> 4 == 15 else head >> 4):
                self._byte() if head & 15 in (1, 2) else self._value(head & 15, depth + 1)
            return None
        if kind == 12 and depth < 8:
            return self.fields(depth + 1)
        raise ValueError(f"the header of a page holds a field of kind {kind}, which no such header has")

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _unsigned(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("the header of a page holds a number of more than 64 bits")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
