"""Folders of weights that are known to be whole: a marker with the hash of every file, written last.

    mark(folder, step=40)                 # hashes and syncs every file, then writes the marker
    last_complete(folder_of_checkpoints)  # the newest whose marker and hashes are right

transformers writes straight into `checkpoint-N` and takes the highest number for the last: here, what a kill left half
written is never loaded. Knows files, no model.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from insightv.atomic_files import new_file
from insightv.errors import InputError
from insightv.inputs.plain_file import open_plain, read_plain
from insightv.strict_json import Json

MARKER = "insightv-complete.json"

_WEIGHTS = re.compile(r".*\.(safetensors|bin|json|model|jinja|txt)")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: where, after how many steps, and what its marker says besides."""

    folder: Path
    step: int
    facts: dict[str, Json] = field(default_factory=dict)


def mark(folder: Path, **facts: Json) -> None:
    """Sync every file of the folder, and write the marker with their hashes and `facts`.

    Raises:
        StorageFull: the disk is full.
    """
    files: dict[str, Json] = {}
    for path in _files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            files[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    with new_file(folder / MARKER) as file:
        file.write(orjson.dumps({"files": files, **facts}, option=orjson.OPT_INDENT_2))


def mark_foreign(folder: Path) -> None:
    """Mark what somebody else wrote as whole, unless its marker names just the files that are there, as they are.

    One that was copied along with other files would call them damaged, or name a base that they do not lie on.

    Raises:
        StorageFull: the disk is full.
        ConfigError: the folder cannot be written.
    """
    marker, there = read_marker(folder), {str(path.relative_to(folder)) for path in _files(folder)}
    files = marker["files"] if marker else None
    if not isinstance(files, dict) or set(files) != there or not is_complete(folder):
        mark(folder)


def note(folder: Path, **facts: Json) -> None:
    """Add facts to the marker of a folder; its files and its identity stay as they are.

    Raises:
        StorageFull: the disk is full.
    """
    marker = read_marker(folder)
    if marker is not None and any(marker.get(name) != fact for name, fact in facts.items()):
        with new_file(folder / MARKER) as file:
            file.write(orjson.dumps(marker | facts, option=orjson.OPT_INDENT_2))


def read_marker(folder: Path) -> dict[str, Json] | None:
    """What the marker says; None where there is none, or none that can be read.

    Raises:
        InputError: a FIFO or device is in its place, or it does not end.
    """
    try:
        marker = orjson.loads(read_plain(folder / MARKER))
    except (OSError, orjson.JSONDecodeError):
        return None
    return marker if isinstance(marker, dict) and isinstance(marker.get("files"), dict) else None


def is_complete(folder: Path) -> bool:
    """Whether the folder holds every file as it was when the marker was written."""
    marker = read_marker(folder)
    files = marker.get("files") if marker else None
    if not isinstance(files, dict):
        return False
    for name, digest in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return False
        try:
            with open_plain(folder / name) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return False
        except (OSError, ValueError, InputError):  # ValueError: a NUL in the name
            return False
    return True


def last_complete(folder: Path) -> Checkpoint | None:
    """The complete checkpoint with the most steps; None where there is none."""
    for step, path in sorted(steps_of(folder), reverse=True):
        if step > 0 and is_complete(path):
            return Checkpoint(path, step, read_marker(path) or {})
    return None


def steps_of(folder: Path) -> list[tuple[int, Path]]:
    """All checkpoints of a folder, complete or not, with their steps."""
    found = []
    for path in folder.glob("checkpoint-*"):
        number = path.name.removeprefix("checkpoint-")
        if number.isdecimal() and path.is_dir():
            found.append((int(number), path))
    return found


def keep_last(folder: Path, count: int) -> None:
    """Remove all but the last `count` marked checkpoints, and what is older than them; call after `mark`."""
    marked = sorted((step for step, path in steps_of(folder) if read_marker(path)), reverse=True)
    if len(marked) < count:
        return
    for step, path in steps_of(folder):
        if step < marked[count - 1]:
            (path / MARKER).unlink(missing_ok=True)  # first, so that a kill in between leaves no half with a marker
            shutil.rmtree(path)


def identity_of(folder: Path) -> str:
    """A hash of a model folder's weights and settings: that of its marker's list, or of the files themselves.

    Raises:
        InputError: it is not a folder of weights.
    """
    digest = hashlib.sha256()
    marker = read_marker(folder)
    if marker is not None:
        if not is_complete(folder):
            raise InputError(f"{str(folder)!r} is damaged: a file is not as its {MARKER} says; train or copy it again")
        return hashlib.sha256(orjson.dumps(marker["files"], option=orjson.OPT_SORT_KEYS)).hexdigest()
    found = 0
    for path in _files(folder):
        if _WEIGHTS.fullmatch(path.name) and path.parent == folder:
            with path.open("rb") as file:
                digest.update(f"{path.name}\0".encode() + hashlib.file_digest(file, "sha256").digest())
            found += path.suffix in (".safetensors", ".bin")
    if not found:
        raise InputError(f"{str(folder)!r} holds no weights (*.safetensors); name a model directory")
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MARKER)


ADAPTER = "adapter"
"""The folder within a trained model's directory that holds its adapter, where it was trained with one."""


def own_base(policy: Path) -> tuple[Path, Path] | None:
    """The adapter that a policy was trained with, and the directory of the weights below it; None without either.

    Training that adapter further keeps all stages in one adapter of one base, and adds up small steps in float32.
    """
    adapter, facts = policy / ADAPTER, read_marker(policy)
    base = facts.get("base") if facts else None
    if not isinstance(base, str) or not adapter.is_dir() or not Path(base).is_dir():
        return None
    same = facts is not None and facts.get("base_identity") == identity_of(Path(base))
    return (adapter, Path(base)) if same else None
