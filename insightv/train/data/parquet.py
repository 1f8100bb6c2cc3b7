"""Rows -> Parquet files, as they come: never more than one group of rows in memory.

Pictures are inside the files, as Hugging Face `Image` features. Rows of one question stand together, and within a
group of rows Parquet's dictionary holds each picture once, however many paths it has. The same rows give the same
bytes. Needs pyarrow and datasets; loaded only to write, and to train.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from insightv.errors import InputError

if TYPE_CHECKING:
    from datasets import Features

GROUP_BYTES = 32 * 2**20
"""A group of rows is closed at this size of its pictures and texts (readers hold a group in memory)."""
GROUP_ROWS = 1000
FILE_BYTES = 500 * 10**6
"""A file is closed at this size, and the next one begun."""

TAUGHT = ("prompt", "completion", "chosen", "rejected", "images")
"""The columns that a training reads."""
_AT_ONCE = 32

Row: TypeAlias = Mapping[str, object]


class GroupWriter:
    """Writes rows into one open file, a group at a time."""

    def __init__(self, file: BinaryIO, features: Features) -> None:
        self._file = file
        self._schema: pa.Schema = features.arrow_schema
        self._writer = pq.ParquetWriter(
            file,
            self._schema,
            compression="zstd",
            use_dictionary=True,
            # Pictures are larger than the default of 1 MiB, beyond which a column stops looking for repetitions.
            dictionary_pagesize_limit=2 * GROUP_BYTES,
            write_statistics=False,
        )
        self._rows: list[Row] = []
        self._bytes = 0

    @property
    def written(self) -> int:
        """Bytes in the file so far."""
        return self._file.tell()

    def add(self, row: Row) -> None:
        """Take a row, and write the group that it completes."""
        self._rows.append(row)
        self._bytes += _size(row)
        if self._bytes >= GROUP_BYTES or len(self._rows) >= GROUP_ROWS:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the last group and the end of the file; after an error only let go of it."""
        try:
            if kind is None:
                self._flush()
        finally:
            self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            table = pa.Table.from_pylist(self._rows, self._schema)
            self._writer.write_table(table, row_group_size=len(self._rows))
        self._rows, self._bytes = [], 0


def write_file(rows: Iterable[Row], features: Features, file: BinaryIO) -> None:
    """Write all rows into one open file."""
    with GroupWriter(file, features) as writer:
        for row in rows:
            writer.add(row)


def write_files(rows: Iterable[Row], features: Features, folder: Path) -> None:
    """Write rows into `train-00000.parquet` and on, each of about 500 MB; without rows one file with the columns."""
    left = iter(rows)
    row, part = next(left, None), 0
    while row is not None or part == 0:
        with (folder / f"train-{part:05d}.parquet").open("wb") as file, GroupWriter(file, features) as writer:
            while row is not None and writer.written < FILE_BYTES:
                writer.add(row)
                row = next(left, None)
        part += 1


def row_count(folder: Path) -> int:
    """The rows of all Parquet files in a folder, by their ends alone."""
    return sum(pq.read_metadata(file).num_rows for file in folder.rglob("*.parquet"))


def taught_digest(files: Iterable[Path]) -> str:
    """A hash of what the rows of files teach, in order: not of where it comes from, nor of how files are laid out.

    Raises:
        InputError: a file is no Parquet file.
    """
    digest = hashlib.sha256()
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                names = [name for name in TAUGHT if name in file.schema_arrow.names]
                for batch in file.iter_batches(_AT_ONCE, columns=names):
                    for row in batch.to_pylist():
                        _feed(digest, {name: row[name] for name in names})
        except pa.ArrowInvalid as error:
            raise InputError(f"{str(path)!r} is no Parquet file that can be read: {error}") from error
    return digest.hexdigest()


def _feed(digest: hashlib._Hash, value: object) -> None:
    if isinstance(value, bytes):
        digest.update(b"bytes %d " % len(value))
        digest.update(value)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            digest.update(f"{name}=".encode())
            _feed(digest, inner)
    elif isinstance(value, list):
        digest.update(b"list %d " % len(value))
        for inner in value:
            _feed(digest, inner)
    else:
        digest.update(f"{value!r} ".encode("utf-8", "surrogatepass"))


def _size(value: object) -> int:
    """About the bytes that a row takes in a table."""
    if isinstance(value, (bytes, str)):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_size(inner) for inner in value.values())
    if isinstance(value, (list, tuple)):
        return sum(_size(inner) for inner in value)
    return 8
