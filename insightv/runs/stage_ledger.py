"""The ledger of a run's training: one row for each stage, in `run.db`, committed before it counts.

A stage's identity is all that decides its result. Knows no model and no order of stages.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from insightv.errors import InputError
from insightv.runs.database import connect, storage_trouble
from insightv.runs.rows import intact
from insightv.runs.stage_facts import StageFacts, StageId

_TABLE = """
CREATE TABLE IF NOT EXISTS stages (
  name TEXT PRIMARY KEY, identity TEXT NOT NULL, done INTEGER NOT NULL, facts TEXT NOT NULL, began REAL NOT NULL,
  ended REAL) WITHOUT ROWID
"""
_ASIDE = "CREATE TABLE IF NOT EXISTS laid_aside (one INTEGER PRIMARY KEY CHECK (one = 1), names TEXT NOT NULL)"


@dataclass(frozen=True)
class Entry:
    """A stage as it stands: `began` and `ended` are seconds since the epoch.

    `laid_aside`: its result is not part of the agents as they are now; the same training again takes it up.
    """

    name: StageId
    identity: dict[str, Any]
    done: bool
    facts: StageFacts
    began: float
    ended: float | None
    laid_aside: bool = False

    def as_json(self) -> dict[str, Any]:
        """The stage for programs: its name, whether it is done, its seconds (pauses included), and its facts."""
        seconds = None if self.ended is None else round(self.ended - self.began, 1)
        aside = {"laid_aside": True} if self.laid_aside else {}
        return {"stage": self.name, "done": self.done, "seconds": seconds, **aside, **self.facts.as_json()}


@dataclass(frozen=True)
class TrainingResult:
    """A training that is done: its recipe, every stage of it in order, and where the agents are by name.

    `failed` counts the paths whose model was not reached, and held-out questions likewise.
    """

    recipe: str
    stages: tuple[Entry, ...]
    checkpoints: dict[str, Path]

    @property
    def failed(self) -> int:
        """Paths and held-out questions that failed."""
        return sum(stage.facts.failed for stage in self.stages)

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "recipe": self.recipe,
            "stages": [{"stage": stage.name, **stage.facts.as_json()} for stage in self.stages],
            "checkpoints": {name: str(folder) for name, folder in self.checkpoints.items()},
            "failed": self.failed,
        }

    def __getitem__(self, key: str) -> Any:
        """A part as in `as_json`, for programs written for 0.1.0, where a training came back as a dict."""
        return self.as_json()[key]


class Ledger:
    """The ledger of a run that this process holds; close it, or use it as a context manager.

    Raises:
        InputError: there is no run in the folder.
        StorageFull: it cannot be written.
    """

    def __init__(self, database: Path) -> None:
        if not database.is_file():
            raise InputError(f"there is no run in {str(database.parent)!r}; make one with: insightv build")
        self._path = database
        self._connection = connect(database)
        self._write(_TABLE)
        self._write(_ASIDE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def find(self, name: str) -> Entry | None:
        """The stage of that name; None where it was never begun."""
        return next((entry for entry in self.entries() if entry.name == name), None)

    def begin(self, name: str, identity: Mapping[str, Any]) -> Entry:
        """Record that a stage is begun, in place of an earlier one of its name; one begun alike keeps its beginning."""
        kept = self.find(name)
        if kept is not None and not kept.done and kept.identity == identity:
            return kept
        row = (name, json.dumps(identity, sort_keys=True), time.time())
        self._write("INSERT OR REPLACE INTO stages VALUES (?, ?, 0, '{}', ?, NULL)", row)
        return self._stage(name)

    def finish(self, name: str, facts: StageFacts) -> Entry:
        """Record the facts of a stage, and that it is done."""
        row = (json.dumps(facts.as_json()), time.time(), name)
        self._write("UPDATE stages SET done = 1, facts = ?, ended = ? WHERE name = ?", row)
        return self._stage(name)

    def lay_aside(self, names: Iterable[str]) -> None:
        """Record which stages have no part in what is trained now; all others have."""
        self._write("INSERT OR REPLACE INTO laid_aside VALUES (1, ?)", (json.dumps(sorted(names)),))

    def entries(self) -> list[Entry]:
        """The stages in the order in which they were begun."""
        return _read(self._connection)

    def _stage(self, name: str) -> Entry:
        """A stage that was begun."""
        return next(entry for entry in self.entries() if entry.name == name)

    def _write(self, sql: str, row: tuple[object, ...] = ()) -> None:
        try:
            self._connection.execute(sql, row)  # a transaction of its own, synced before it returns
        except sqlite3.Error as error:
            if (trouble := storage_trouble(error, self._path)) is not None:
                raise trouble from error
            raise


def read_ledger(database: Path) -> list[Entry]:
    """The stages of a run's training in the order they were begun; also while another process writes them."""
    connection = connect(database, read_only=True)
    try:
        return _read(connection) if _has(connection, "stages") else []
    finally:
        connection.close()


def _has(connection: sqlite3.Connection, table: str) -> bool:
    found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
    return bool(found)


def _read(connection: sqlite3.Connection) -> list[Entry]:
    rows = connection.execute("SELECT name, identity, done, facts, began, ended FROM stages ORDER BY began").fetchall()
    found = connection.execute("SELECT names FROM laid_aside").fetchone() if _has(connection, "laid_aside") else None
    with intact("a stage of the training"):
        aside = json.loads(found[0]) if found else []
        return [
            Entry(
                StageId(name),
                dict(json.loads(identity).items()),
                bool(done),
                StageFacts(**json.loads(facts)),
                began,
                ended,
                name in aside,
            )
            for name, identity, done, facts, began, ended in rows
        ]
