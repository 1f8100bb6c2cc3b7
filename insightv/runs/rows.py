"""Every row that is read of `run.db`, checked by the names of its columns: SQLite keeps a value of any type in each.

A column that is computed is known by the name that its statement gives it.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from insightv.errors import InputError

_CURE = "restore run.db from a copy, or begin in another --run"
_ABSENT = type(None)
_COLUMNS: dict[str, tuple[type, ...]] = (
    dict.fromkeys(("seq", "epoch", "path", "position", "question", "seed", "failed", "present", "done"), (int,))
    | dict.fromkeys(("requests", "number", "tries"), (int,))
    | dict.fromkeys(("id", "state", "place", "digest", "settings", "row", "model", "kind", "name", "status"), (str,))
    | dict.fromkeys(("message", "kept", "identity", "facts", "names", "tag"), (str,))
    | dict.fromkeys(("code", "band", "job"), (str, _ABSENT))
    | dict.fromkeys(("record", "replies", "key"), (bytes,))
    | {"usage": (bytes, str)}  # a text where it was added to a run of before
    | dict.fromkeys(("value", "at", "seconds", "began", "planned_at"), (float, int))
    | dict.fromkeys(("ended", "last_at"), (float, int, _ABSENT))
)
_ONE_OF = {
    "state": ("pending", "done"),
    "status": ("ok", "rejected", "failed"),
    "band": ("high", "mid", "low", "wrong", "unscored", None),
    "present": (0, 1),
    "done": (0, 1),
}
_TABLES = {
    "questions": ("seq", "id", "epoch", "digest", "state", "present", "record", "place"),
    "epochs": ("epoch", "settings", "at"),
    "bad_rows": ("row",),
    "calls": ("question", "key", "model", "kind", "seed", "replies", "at", "last_at", "seconds"),
    "faults": ("question", "key", "code", "message", "kept", "requests", "at", "model", "usage", "seconds"),
    "paths": ("question", "epoch", "path", "status", "code", "band", "record"),
    "scores": ("question", "epoch", "path", "position", "failed", "record"),
    "totals": ("name", "value"),
    "stages": ("name", "identity", "done", "facts", "began", "ended"),
    "laid_aside": ("names",),
    "jobs": ("tag", "planned_at", "job"),
    "job_calls": ("key", "tag", "tries"),
}


def checked_row(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The row as it is; the `row_factory` of every connection to a run's database.

    Raises:
        InputError: a value is not of its column's type; the text names the column.
    """
    for (name, *_), value in zip(cursor.description, row, strict=True):
        types = _COLUMNS.get(name)
        if types is None:
            continue
        fits = type(value) in types and not (type(value) is float and not math.isfinite(value))
        if not fits or (name in _ONE_OF and value not in _ONE_OF[name]):
            raise _damaged(f"the column {_of(name)} holds {_shown(value)}")
    return row


def checked_text(data: bytes) -> str:
    """A text of the database; the `text_factory` of every connection to it.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _damaged(f"a text in it is not UTF-8 ({_shown(data)})") from error


@contextmanager
def intact(what: str) -> Iterator[None]:
    """Reading of what is stored: where it is not what was written, InputError says which.

    Raises:
        InputError: it cannot be read.
    """
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _damaged(f"{what} is not as it was written ({_first_line(error)})") from error
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) not in _OF_CONTENT:
            raise  # the disk's, or another program's
        raise _damaged(f"{what} is not as it was written ({_first_line(error)})") from error


_OF_CONTENT = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_CONSTRAINT)


def _damaged(what: str) -> InputError:
    return InputError(f"the run's database is damaged: {what}; {_CURE}")


def _first_line(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return (f"no {text}" if isinstance(error, KeyError) else text.splitlines()[0])[:200]


def _of(name: str) -> str:
    tables = [table for table, columns in _TABLES.items() if name in columns]
    return f"{name!r} (of {' or '.join(tables)})"


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes, {value[:20]!r}"
    return repr(value if not isinstance(value, str) else value[:60])
