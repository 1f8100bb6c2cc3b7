"""Labels that a table keeps as numbers: their names stand in what the datasets library writes beside the columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from insightv.inputs.sources import RawRow

_KEY = b"huggingface"


def label_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, Sequence[str]]:
    """The names of each column of labels, from the metadata of an Arrow schema; nothing where there are none."""
    try:
        features = json.loads((metadata or {}).get(_KEY, b"{}"))["info"]["features"]
        return {
            name: list(map(str, feature["names"]))
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def named(row: RawRow, names: Mapping[str, Sequence[str]]) -> RawRow:
    """The row with labels by their names; -1 is none."""
    if row.values is None or not names:
        return row
    found = dict(row.values)
    for column, labels in names.items():
        value = found.get(column)
        if isinstance(value, int) and value < len(labels):
            found[column] = labels[value] if value >= 0 else None
    return replace(row, values=found)
