"""The Arrow files of a saved dataset, before the datasets library opens them: it unpacks what is compressed, whole.

`Dataset.save_to_disk` compresses nothing, so that its files are mapped into memory and take none.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

from insightv.errors import InputError

_RECORD_BATCH = 3
_COMPRESSION = 3


def check_saved(folder: Path) -> None:
    """Check the files of all splits: they lie in their split's folder, and nothing in them is compressed.

    Raises:
        InputError: not so.
        OSError, ValueError, LookupError, TypeError, pyarrow's errors: they are damaged.
    """
    for state in (folder / "state.json", *sorted(folder.glob("*/state.json"))):
        if state.is_file():
            for entry in json.loads(state.read_bytes())["_data_files"]:
                name = str(entry["filename"])
                if Path(name).name != name:
                    raise InputError(f"{state} names the file {name!r}, outside of its folder; save the dataset anew")
                _check_file(state.parent / name)


def _check_file(path: Path) -> None:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        for message in pa.ipc.MessageReader.open_stream(source):
            if message.type == "record batch" and _is_packed(message.metadata.to_pybytes()):
                raise InputError(
                    f"{path} is compressed, and would be unpacked whole into memory; save the dataset anew, with "
                    "Dataset.save_to_disk, which does not compress"
                )


def _is_packed(metadata: bytes) -> bool:
    """Whether a message is a batch with a compression: field 3 of the `RecordBatch` that is field 2 of a `Message`."""
    (root,) = struct.unpack_from("<I", metadata, 0)
    kind = _field(metadata, root, 1)
    if not kind or metadata[root + kind] != _RECORD_BATCH:
        return False
    at = root + _field(metadata, root, 2)
    (inner,) = struct.unpack_from("<I", metadata, at)
    return _field(metadata, at + inner, _COMPRESSION) > 0


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a FlatBuffers table lies within it; 0 where the table lacks it."""
    (back,) = struct.unpack_from("<i", data, table)
    size, place = *struct.unpack_from("<H", data, table - back), 4 + 2 * number
    return int(struct.unpack_from("<H", data, table - back + place)[0]) if place < size else 0
