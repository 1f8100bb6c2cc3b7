"""The tables of `run.db`, and bringing those of an earlier release up to date.

questions   one row per question, `state` pending or done, `epoch` the settings it was (or will be) answered under
calls       every reply of a model, by question and content key
faults      calls that were not answered, with what they cost
paths       one row per path, with its outcome and band
scores      one row per path and scorer
totals      running sums: requests, tokens, money, seconds
epochs      the settings that results were made under; a new one begins where `--allow-change` was given
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

from insightv.errors import InputError, StopRun
from insightv.runs.database import Database, connect, damaged, storage_trouble

SCHEMA_VERSION = 2


TOTALS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "usd", "elapsed_s")


# Tables with long rows have rowids: without, SQLite moves what is beyond a quarter of a page to one of its own.
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE epochs (epoch INTEGER PRIMARY KEY, settings TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE questions (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, epoch INTEGER NOT NULL, digest TEXT NOT NULL,
  state TEXT NOT NULL, present INTEGER NOT NULL, record BLOB NOT NULL, place TEXT NOT NULL);
CREATE INDEX questions_state ON questions (present, state, seq);
CREATE TABLE bad_rows (row TEXT NOT NULL);
CREATE TABLE calls (
  question INTEGER NOT NULL, key BLOB NOT NULL, model TEXT NOT NULL, kind TEXT NOT NULL, seed INTEGER NOT NULL,
  replies BLOB NOT NULL, at REAL NOT NULL, seconds REAL NOT NULL DEFAULT 0,
  UNIQUE (question, key));
CREATE TABLE faults (
  question INTEGER NOT NULL, key BLOB, code TEXT NOT NULL, message TEXT NOT NULL, kept TEXT NOT NULL,
  requests INTEGER NOT NULL, at REAL NOT NULL, model TEXT NOT NULL DEFAULT '', usage BLOB NOT NULL DEFAULT '{}',
  seconds REAL NOT NULL DEFAULT 0);
CREATE TABLE paths (
  question INTEGER NOT NULL, epoch INTEGER NOT NULL, path INTEGER NOT NULL, status TEXT NOT NULL, code TEXT,
  band TEXT, record BLOB NOT NULL, UNIQUE (question, epoch, path));
CREATE INDEX paths_counted ON paths (question, epoch, status, code, band);
CREATE TABLE scores (
  question INTEGER NOT NULL, epoch INTEGER NOT NULL, path INTEGER NOT NULL, position INTEGER NOT NULL,
  failed INTEGER NOT NULL, record BLOB NOT NULL, UNIQUE (question, epoch, path, position));
CREATE INDEX scores_failed ON scores (question, epoch) WHERE failed = 1;
CREATE TABLE totals (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
"""


_UPGRADES = {
    1: "ALTER TABLE calls ADD COLUMN seconds REAL NOT NULL DEFAULT 0;"
    "ALTER TABLE faults ADD COLUMN model TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE faults ADD COLUMN usage BLOB NOT NULL DEFAULT '{}';"
    "ALTER TABLE faults ADD COLUMN seconds REAL NOT NULL DEFAULT 0;",
}
"""What makes a file of the schema of that number one of the next; later columns only add to what readers need."""


def open_database(path: Path, on_trouble: Callable[[StopRun], None]) -> Database:
    """The database of a run, made if it is not there.

    Raises:
        InputError: the file is of a newer schema, not a run's database, or damaged.
        StorageFull: it cannot be written.
    """
    connection = connect(path)
    try:
        check_schema(connection, path, create=True)
    finally:
        connection.close()
    return Database(path, on_trouble)


def check_schema(connection: sqlite3.Connection, path: Path, *, create: bool = False) -> None:
    """Check that a file is a run's database of a known schema.

    `create` makes the tables of an empty one, and brings one of an older schema up to date.
    """
    try:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        raise storage_trouble(error, path) or damaged(error, path) from error
    if 0 < found <= SCHEMA_VERSION:
        _check_objects(connection, path, found)
    if found == SCHEMA_VERSION or (0 < found < SCHEMA_VERSION and not create):
        return
    if 0 < found < SCHEMA_VERSION:
        steps = "".join(_UPGRADES[version] for version in range(found, SCHEMA_VERSION))
        connection.executescript(f"BEGIN IMMEDIATE;{steps}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
        return
    if found == 0 and not tables and create:
        zeros = "".join(f"INSERT INTO totals VALUES ('{name}', 0);" for name in TOTALS)
        connection.executescript(f"BEGIN IMMEDIATE;{_TABLES}{zeros}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
        return
    if found > SCHEMA_VERSION:
        raise InputError(f"{path} was written by a newer insightv (schema {found}); upgrade insightv to open it")
    if found == 0 and not tables:
        raise InputError(f"{path} is empty, the run has not begun; make it with: insightv build QUESTIONS --run FOLDER")
    raise InputError(f"{path} is not the database of an insightv run; point --run at a run's folder")


_WITH_CODE = re.compile(r"(?i)\b(?:AS|GENERATED|VIRTUAL|COLLATE|REFERENCES|SELECT|LIKE|GLOB|MATCH|REGEXP)\b")
"""Words by which SQLite would do more than keep values."""
_BRACKETS = re.compile(r'(?:\bTABLE "?\w+"?|\bON "?\w+"?|\bUNIQUE|\bKEY) ?\(|\bCHECK \(one = 1\)')
"""Where a bracket may stand in what we make; before any other one would be a function or an expression."""


def _check_objects(connection: sqlite3.Connection, path: Path, found: int) -> None:
    """See that a database of schema `found` has our tables with their columns, and nothing that computes.

    A view may take the place of a table and never end; a trigger or a generated column works whenever a row is written.

    Raises:
        InputError: it is otherwise.
    """
    kept = {}
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall():
        text = re.sub(r"'(?:\{\})?'", "", sql or "")
        if kind not in ("table", "index") or _WITH_CODE.search(text) or "(" in _BRACKETS.sub("", text):
            raise InputError(
                f"{path} is damaged: its {kind} {name!r} is none that insightv makes; restore it from a copy"
            )
        kept[name] = kind
    later = {column for upgrade in range(found, SCHEMA_VERSION) for column in _added(upgrade)}
    with sqlite3.connect(":memory:") as ours:
        ours.executescript(_TABLES)
        for table in re.findall(r"CREATE TABLE (\w+)", _TABLES):
            if kept.get(table) != "table":
                raise InputError(f"{path} is damaged: it has no table {table}; restore it from a copy")
            wanted, there = (_columns(one, table) for one in (ours, connection))
            if gone := wanted - there - {column for added, column in later if added == table}:
                raise InputError(
                    f"{path} is damaged: its table {table} has no column {min(gone)}; restore it from a copy"
                )
    ours.close()


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _added(version: int) -> list[tuple[str, str]]:
    """The tables and columns that an upgrade adds."""
    return re.findall(r"ALTER TABLE (\w+) ADD COLUMN (\w+)", _UPGRADES[version])
