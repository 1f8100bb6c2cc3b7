"""Assessed paths -> files for other programs, and the run's own datasets.

    export_set(ReasonSet(prompt=...), assessed, Path("runs/charts/datasets/reason"), Origin(...))
    export_paths(assessed, "jsonl", Path("paths.jsonl"))
    export_set(SummarySet(render=...), assessed, Path("out"), Origin(...), "llamafactory")

Whatever is written takes its place whole or not at all. Imports nothing heavy until it writes Parquet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from insightv.assess.bands import Assessed
from insightv.atomic_files import CARD, new_file, new_folder
from insightv.errors import ConfigError, require
from insightv.strict_json import json_text
from insightv.train.data.card import Origin, card
from insightv.train.data.funnel import Funnel
from insightv.train.data.layouts import (
    FolderWriter,
    kind_of,
    write_jsonl,
    write_llamafactory,
    write_parquet,
    write_swift,
    write_trl,
)
from insightv.train.data.rows import TrainingRow, path_features, path_row, path_table_row
from insightv.train.data.sets import RowSet

Format = Literal["jsonl", "parquet", "trl", "llamafactory", "swift"]
FORMATS: tuple[Format, ...] = get_args(Format)

_FOLDERS: Mapping[str, FolderWriter] = {"trl": write_trl, "llamafactory": write_llamafactory, "swift": write_swift}


@dataclass(frozen=True)
class Exported:
    """What was written: where, how many rows, and the count of all that came in."""

    path: Path
    rows: int
    funnel: Funnel


def export_set(rows: RowSet, assessed: Assessed, out: Path, origin: Origin, form: str = "trl") -> Exported:
    """Write a set as `form`, one of `FORMATS`, to the file or folder `out`. The old set stays until it is whole.

    "trl" is Parquet with the pictures inside, and a card. With "jsonl" the pictures go into a folder beside the file,
    named after it (`x.jsonl.images` for `x.jsonl`).

    Raises:
        MissingExtra: pyarrow or datasets is not installed.
        ConfigError: the folder holds what insightv did not write, or cannot be written.
        StorageFull: the disk is full.
    """
    _check(form)
    if form in _FOLDERS:
        return _export_folder(rows, assessed, form, out, origin)
    funnel = Funnel()
    with new_file(out) as file:
        counted = _counted(rows, assessed, funnel)
        if form == "jsonl":
            write_jsonl(counted, file, out.with_name(f"{out.name}.images"))
        else:
            write_parquet(counted, file, kind_of(rows.name))
    return Exported(out, funnel.row_count, funnel)


def export_paths(assessed: Assessed, form: str, out: Path) -> Exported:
    """Write every path, rejected and failed ones too, one on a line or row, to the file `out`.

    Raises:
        ConfigError: `form` is not "jsonl" or "parquet" (the other forms are for training: `JudgedPaths`).
        MissingExtra, StorageFull: as `export_set`.
    """
    _check(form)
    if form not in ("jsonl", "parquet"):
        raise ConfigError(f"paths for reading are jsonl or parquet, not {form!r}; export_set writes JudgedPaths")
    funnel = Funnel()
    with new_file(out) as file:
        rows = _path_rows(assessed, funnel)
        if form == "jsonl":
            for row in rows:
                file.write(json_text(row).encode() + b"\n")
        else:
            from insightv.train.data.parquet import write_file

            write_file(map(path_table_row, rows), path_features(), file)
    return Exported(out, funnel.paths, funnel)


def _check(form: str) -> None:
    if form not in FORMATS:
        raise ConfigError(f"unknown format {form!r}; known are {', '.join(FORMATS)}")
    if form in ("parquet", "trl"):
        require("pyarrow", "data")
        require("datasets", "data")


def _export_folder(rows: RowSet, assessed: Assessed, form: str, out: Path, origin: Origin) -> Exported:
    require("yaml", "data")
    funnel = Funnel()
    with new_folder(out) as folder:
        layout = _FOLDERS[form](rows.name, _counted(rows, assessed, funnel), folder)
        text = card(rows.name, funnel, rows.settings(), origin, layout)
        (folder / CARD).write_text(text, encoding="utf-8")
    return Exported(out, funnel.row_count, funnel)


def _counted(rows: RowSet, assessed: Assessed, funnel: Funnel) -> Iterator[TrainingRow]:
    for row in rows.rows(assessed, funnel):
        funnel.wrote(row)
        yield row


def _path_rows(assessed: Assessed, funnel: Funnel) -> Iterator[dict[str, object]]:
    for item in assessed():
        funnel.read(item)
        for path in item.paths:
            yield path_row(item.question.id, path)
