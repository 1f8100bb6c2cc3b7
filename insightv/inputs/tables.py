"""Questions in columns: Parquet files, saved datasets, and datasets of the Hugging Face hub (extra `data`).

Images stay encoded, as bytes or paths; they are opened by `insightv.inputs.images` under its limits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

from insightv.errors import InputError, TooManyOpenFiles, require
from insightv.inputs.arrow_rows import first_line, row_of, rows_of
from insightv.inputs.labels import label_names, named
from insightv.inputs.parquet_pages import MOST_ROWS, read_plan
from insightv.inputs.saved_arrow import check_saved
from insightv.inputs.sources import Fault, RawRow, RowSource, SourceFault

if TYPE_CHECKING:
    import datasets

_BUFFER_BYTES = 2**20
"""That are read of a column at once; without, all that it has in a row group is."""


class ParquetFile(RowSource):
    """A Parquet file; images are paths, or structs of bytes and path as the datasets library writes them."""

    def __init__(self, path: Path) -> None:
        require("pyarrow", "data")
        super().__init__(path.name, path.parent)
        self.path = path
        self._read = 0

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns of the schema."""
        import pyarrow.parquet as pq

        with self._faults_named():
            return frozenset(pq.read_schema(self.path).names)

    def rows(self) -> Iterator[RawRow]:
        """See `RowSource`."""
        import pyarrow.parquet as pq

        self._read = 0
        with self._faults_named():
            metadata = pq.read_metadata(self.path)
            plan = read_plan(self.path, metadata)
            options = {"metadata": metadata, "read_dictionary": plan.dictionaries, "buffer_size": _BUFFER_BYTES}
            with pq.ParquetFile(self.path, **options) as file:
                names = label_names(file.schema_arrow.metadata)
                for group in range(metadata.num_row_groups):  # each has dictionaries of its own
                    for batch in file.iter_batches(plan.rows, row_groups=[group]):
                        for row in rows_of(batch, self._read + 1):
                            self._read += 1
                            yield named(row, names)

    @contextmanager
    def _faults_named(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except SourceFault:
            raise
        except InputError as error:
            raise SourceFault(1, "too_large", str(error)) from None
        except (pa.ArrowException, OSError, ValueError) as error:
            TooManyOpenFiles.raise_if_behind(error, str(self.path))
            reason = f"not a sound Parquet file: {first_line(error)}"
            raise SourceFault(self._read + 1, "bad_parquet", reason) from None


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
            for batch in self._data.iter(MOST_ROWS):
                for row in rows_of(batch, number + 1):
                    number += 1
                    yield self._as_declared(row)
        except (pa.ArrowException, OSError) as error:
            TooManyOpenFiles.raise_if_behind(error, self.name)
            reason = f"the dataset cannot be read any further: {first_line(error)}; get or save it anew"
            raise SourceFault(number + 1, "unreadable", reason) from None

    def _as_declared(self, row: RawRow) -> RawRow:
        """The row with what its columns say beyond Arrow's types, such as JSON in text."""
        if row.values is None:
            return row
        try:
            return named(row_of(row.line, self._features.decode_example(row.values)), self._names)
        except (ValueError, TypeError, KeyError) as error:
            text = f"what it holds is not what the dataset's features say: {first_line(error)}; leave the row out"
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
        raise InputError(f"{name} cannot be loaded: {first_line(error)}") from error
    return HubDataset(name, _split(name, loaded, options.get("split")), Path(datasets.config.HF_CACHE_HOME))


def saved_dataset(folder: Path) -> HubDataset:
    """What `Dataset.save_to_disk` wrote; of several splits `train`, or the only one.

    Raises:
        InputError: the folder holds nothing of the kind.
    """
    require("datasets", "data")
    import datasets

    try:
        check_saved(folder)
        loaded = datasets.load_from_disk(str(folder))
    except (MemoryError, InputError):
        raise
    except Exception as error:  # the library trusts its own files, and others can make it raise almost anything
        TooManyOpenFiles.raise_if_behind(error, str(folder))
        reason = f"{type(error).__name__}: {first_line(error)}"
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
