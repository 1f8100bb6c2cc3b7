"""Questions in columns: Parquet files, saved datasets, and datasets of the Hugging Face hub (extra `data`).

Images stay encoded, as bytes or paths; they are opened by `insightv.inputs.images` under its limits.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

from insightv.errors import InputError, require
from insightv.inputs.labels import label_names, named
from insightv.inputs.sources import Fault, RawRow, RowSource, SourceFault

if TYPE_CHECKING:
    import datasets

_BATCH = 16
_BATCH_BYTES = 16 * 2**20
"""Of a larger batch the rows become Python's one by one."""


class ParquetFile(RowSource):
    """A Parquet file; images are paths, or structs of bytes and path as the datasets library writes them."""

    def __init__(self, path: Path) -> None:
        require("pyarrow", "data")
        super().__init__(path.name, path.parent)
        self.path = path

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns of the schema."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return frozenset(pq.read_schema(self.path).names)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(error) from None

    def rows(self) -> Iterator[RawRow]:
        """See `RowSource`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = 0
        try:
            with pq.ParquetFile(self.path) as file:
                names = label_names(file.schema_arrow.metadata)
                for batch in file.iter_batches(batch_size=_BATCH):
                    for row in _rows(batch, number + 1):
                        number += 1
                        yield named(row, names)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(error, number + 1) from None


class HubDataset(RowSource):
    """One split: of `hf:NAME`, `hf:NAME?split=test&name=CONFIG&revision=COMMIT`, a saved folder, or an object."""

    def __init__(self, name: str, loaded: datasets.Dataset, root: Path | None) -> None:
        super().__init__(name, root)
        self._data = loaded.with_format("arrow")
        self._features = _undecoded(loaded.features)
        self._names = {name: feature.names for name, feature in loaded.features.items() if _is_label(feature)}

    @property
    def columns(self) -> frozenset[str] | None:
        """The dataset's columns."""
        return frozenset(self._data.column_names)

    def rows(self) -> Iterator[RawRow]:
        """See `RowSource`."""
        import pyarrow as pa

        number = 0
        try:
            for batch in self._data.iter(_BATCH):
                for row in _rows(batch, number + 1):
                    number += 1
                    yield self._as_declared(row)
        except (pa.ArrowException, OSError) as error:
            reason = f"the dataset cannot be read any further: {_first_line(error)}; get or save it anew"
            raise SourceFault(number + 1, "unreadable", reason) from None

    def _as_declared(self, row: RawRow) -> RawRow:
        """The row with what its columns say beyond Arrow's types, such as JSON in text."""
        if row.values is None:
            return row
        try:
            return named(_row(row.line, self._features.decode_example(row.values)), self._names)
        except (ValueError, TypeError, KeyError) as error:
            text = f"what it holds is not what the dataset's features say: {_first_line(error)}; leave the row out"
            return RawRow(row.line, row.text, None, Fault("", "bad_value", text), "table")


def _is_label(feature: object) -> bool:
    import datasets

    return isinstance(feature, datasets.ClassLabel)


def hub_dataset(name: str) -> HubDataset:
    """The dataset that `hf:...` names; downloads it where it is not in the cache of the datasets library.

    Raises:
        InputError: there is no such dataset or split, or an option is unknown.
    """
    require("datasets", "data")
    import datasets

    path, _, query = name.removeprefix("hf:").partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(set(options) - {"split", "name", "revision"}):
        raise InputError(f"{name}: the option {unknown[0]!r} is unknown; there are split, name and revision")
    try:
        loaded = datasets.load_dataset(path, options.get("name"), revision=options.get("revision"))
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} cannot be loaded: {_first_line(error)}") from error
    return HubDataset(name, _split(name, loaded, options.get("split")), Path(datasets.config.HF_CACHE_HOME))


def saved_dataset(folder: Path) -> HubDataset:
    """What `Dataset.save_to_disk` wrote; of several splits `train`, or the only one.

    Raises:
        InputError: the folder holds nothing of the kind.
    """
    require("datasets", "data")
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except MemoryError:
        raise
    except Exception as error:  # the library trusts its own files, and others can make it raise almost anything
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise InputError(f"{folder} is not a saved dataset, or a damaged one ({reason}); save it anew") from None
    return HubDataset(folder.name, _split(str(folder), loaded, None), folder)


def _split(name: str, loaded: object, wanted: str | None) -> datasets.Dataset:
    import datasets

    if isinstance(loaded, datasets.Dataset):
        return loaded
    if not isinstance(loaded, Mapping):
        raise InputError(f"{name} holds {type(loaded).__name__}, not a dataset")
    splits = [str(split) for split in loaded]
    choice = wanted or (splits[0] if len(splits) == 1 else "")
    if choice not in splits:
        raise InputError(f"{name} has the splits {', '.join(splits)}; name one: hf:NAME?split={splits[0]}")
    return cast("datasets.Dataset", loaded[choice])


def _undecoded(features: Any) -> Any:
    """A copy of features in which no image, sound or video is decoded; the datasets library types them loosely."""
    import datasets

    if isinstance(features, dict):
        return type(features)({name: _undecoded(feature) for name, feature in features.items()})
    if isinstance(features, datasets.List | datasets.LargeList):
        return replace(features, feature=_undecoded(features.feature))
    if hasattr(features, "decode") and not isinstance(features, datasets.Json):
        return replace(features, decode=False)
    return features


def _rows(batch: Any, first: int) -> Iterator[RawRow]:
    """The rows of a batch of Arrow's, numbered from `first`; one that Python cannot hold has a fault."""
    step = _BATCH if batch.nbytes <= _BATCH_BYTES else 1
    for start in range(0, batch.num_rows, step):
        part = batch.slice(start, step)
        try:
            converted = part.to_pylist()
        except (ValueError, OverflowError):  # text that is not UTF-8, a time before the year 1: one row spoils them all
            yield from (_row_alone(part.slice(at, 1), first + start + at) for at in range(part.num_rows))
        else:
            yield from (_row(first + start + at, values) for at, values in enumerate(converted))


def _row_alone(row: Any, number: int) -> RawRow:
    values: dict[str, object] = {}
    for name in row.schema.names:
        try:
            values[name] = row.column(name)[0].as_py()
        except (ValueError, OverflowError) as error:
            code = "invalid_utf8" if isinstance(error, UnicodeDecodeError) else "bad_value"
            text = f"the column {name!r} holds what cannot be read: {_first_line(error)}; mend it, or leave the row out"
            return RawRow(number, reprlib.repr(values), None, Fault(name, code, text), "table")
    return _row(number, values)


def _row(number: int, values: dict[str, object]) -> RawRow:
    return RawRow(number, reprlib.repr(values), values, None, "table")


def _unreadable(error: Exception, line: int = 1) -> SourceFault:
    return SourceFault(line, "bad_parquet", f"not a sound Parquet file: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200] or type(error).__name__
