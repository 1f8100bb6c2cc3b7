"""Rows out of Arrow's columns, one by one where they are large. What a row comes to is known before Python holds it.

A column may tell a value by its number, or a list by two of them, so that a few bytes come to gigabytes of objects.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from typing import Any

from insightv.inputs.sources import MAX_LINE, MAX_TEXT_LINE, Fault, RawRow, SourceFault

MAX_ROW = 96 * 2**20
"""Bytes that a row may take as Python's objects: a picture as large as one may be (64 MiB), and what goes with it."""
_AT_ONCE = 16 * 2**20
"""Of a batch that comes to more, the rows become Python's one by one."""
_OBJECT_BYTES = 64
_DATA_URL = ";base64,"


def rows_of(batch: Any, first: int) -> Iterator[RawRow]:
    """The rows of a batch or table of Arrow's, numbered from `first`; one that Python cannot hold has a fault.

    Raises:
        SourceFault: a column is of a type that is not read.
    """
    if _size(batch, first).whole <= _AT_ONCE:
        try:
            converted = batch.to_pylist()
        except (ValueError, OverflowError):  # text that is not UTF-8, a time before the year 1: one row spoils them all
            pass
        else:
            yield from (row_of(first + at, values) for at, values in enumerate(converted))
            return
    for at in range(batch.num_rows):
        yield _row_alone(batch.slice(at, 1), first + at)


def row_of(number: int, values: dict[str, object]) -> RawRow:
    """The row of these values."""
    return RawRow(number, reprlib.repr(values), values, None, "table")


def first_line(error: Exception) -> str:
    """What an error of Arrow's says first."""
    return str(error).split("\n", 1)[0][:200] or type(error).__name__


def _row_alone(row: Any, number: int) -> RawRow:
    size = _size(row, number)
    most = MAX_TEXT_LINE if size.text <= MAX_TEXT_LINE or not size.has_data_url else MAX_LINE
    if size.text > most or size.whole > MAX_ROW:
        limits = f"{MAX_TEXT_LINE} bytes of text, {MAX_LINE} with images as data URLs, {MAX_ROW} in all"
        reason = f"the row comes to {size.whole} bytes, {size.text} of them text; the limit is {limits}"
        return RawRow(number, "", None, Fault("", "row_too_large", f"{reason}; keep images as files"), "table")
    values: dict[str, object] = {}
    for name in row.schema.names:
        try:
            values[name] = row.column(name)[0].as_py()
        except (ValueError, OverflowError) as error:
            code = "invalid_utf8" if isinstance(error, UnicodeDecodeError) else "bad_value"
            text = f"the column {name!r} holds what cannot be read: {first_line(error)}; mend it, or leave the row out"
            return RawRow(number, reprlib.repr(values), None, Fault(name, code, text), "table")
    return row_of(number, values)


class _Size:
    """Bytes of some rows as Python's objects: in `whole`, and those of `text`."""

    def __init__(self) -> None:
        self.whole = self.text = 0
        self._texts: list[Any] = []

    @property
    def has_data_url(self) -> bool:
        """Whether some text is a data URL."""
        import pyarrow.compute as pc

        return any(pc.any(pc.match_substring(text, _DATA_URL)).as_py() for text in self._texts)

    def add(self, array: Any) -> None:
        """Count an array; ValueError where its type is none that is read."""
        import pyarrow as pa

        kind = array.type
        self.whole += len(array) * _OBJECT_BYTES
        if isinstance(array, pa.DictionaryArray):
            self._add_numbered(array)
        elif isinstance(array, pa.ExtensionArray):
            self.add(array.storage)
        elif isinstance(array, pa.MapArray):
            self.add(_within(array, array.keys))
            self.add(_within(array, array.items))
        elif isinstance(array, pa.ListArray | pa.LargeListArray):
            self.add(_within(array, array.values))
        elif isinstance(array, pa.FixedSizeListArray):
            self.add(array.values.slice(array.offset * kind.list_size, len(array) * kind.list_size))
        elif isinstance(array, pa.StructArray):
            for index in range(kind.num_fields):
                self.add(array.field(index))
        elif _is_bytes(kind):
            self._add_bytes(array, kind)
        elif not (pa.types.is_null(kind) or pa.types.is_primitive(kind) or pa.types.is_decimal(kind)):
            raise ValueError(kind)

    def _add_bytes(self, array: Any, kind: Any) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        count = pc.sum(pc.binary_length(array)).as_py() or 0
        self.whole += count
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            self.text += count
            self._texts.append(array)

    def _add_numbered(self, array: Any) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        kind = array.type.value_type
        if _is_bytes(kind):
            count = pc.sum(pc.binary_length(array.dictionary).take(array.indices)).as_py() or 0
            self.whole += count
            if pa.types.is_string(kind) or pa.types.is_large_string(kind):
                self.text += count
                self._texts.append(array.dictionary)
        elif not (pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)):
            raise ValueError(array.type)


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return pa.types.is_fixed_size_binary(kind) or any(test(kind) for test in tests)


def _within(array: Any, values: Any) -> Any:
    """The part of a list array's values that its rows have."""
    offsets = array.offsets
    start, end = offsets[0].as_py(), offsets[-1].as_py()
    return values.slice(start, max(0, end - start))


def _size(batch: Any, first: int) -> _Size:
    size = _Size()
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for array in getattr(column, "chunks", [column]):
            try:
                size.add(array)
            except ValueError as error:
                text = f"the column {name!r} is of Arrow's type {error}, which is not read; save it as a plain one"
                raise SourceFault(first, "bad_type", text) from None
    return size
