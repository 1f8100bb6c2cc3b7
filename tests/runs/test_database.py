"""The database: grouped commits, faults of one job, a disk that fails and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from insightv.errors import InsightvError, StopRun, StorageFull
from insightv.runs.database import Database
from insightv.runs.schema import check_schema, open_database


def test_a_fault_of_one_job_reaches_its_caller_and_no_other(tmp_path: Path) -> None:
    async def run() -> list[BaseException | None]:
        database = Database(tmp_path / "x.db", lambda trouble: None)
        await database.write([("CREATE TABLE t (a INTEGER PRIMARY KEY)", ())])
        jobs = [database.write([("INSERT INTO t VALUES (?)", (number,))]) for number in (1, 2, 2, 3)]
        found = await asyncio.gather(*jobs, return_exceptions=True)
        database.close()
        return found

    found = asyncio.run(run())
    assert [type(item) for item in found] == [type(None), type(None), sqlite3.IntegrityError, type(None)]
    with sqlite3.connect(tmp_path / "x.db") as connection:
        assert connection.execute("SELECT a FROM t ORDER BY a").fetchall() == [(1,), (2,), (3,)]


def test_what_was_submitted_is_written_although_nobody_waits_any_more(tmp_path: Path) -> None:
    async def run() -> None:
        database = Database(tmp_path / "x.db", lambda trouble: None)
        await database.write([("CREATE TABLE t (a)", ())])
        waiting = asyncio.create_task(database.write([("INSERT INTO t VALUES (1)", ())]))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        database.close()

    asyncio.run(run())
    with sqlite3.connect(tmp_path / "x.db") as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (1,)


def test_a_full_disk_is_reported_and_what_waited_is_written_when_space_is_back(tmp_path: Path) -> None:
    troubles: list[StopRun] = []

    async def run() -> None:
        database = Database(tmp_path / "x.db", troubles.append)
        await database.write([("CREATE TABLE t (a)", ())])
        pages = await database.do(lambda c: int(c.execute("PRAGMA page_count").fetchone()[0]))
        await database.do(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone())
        with pytest.raises(StorageFull):
            await asyncio.wait_for(database.write([("INSERT INTO t VALUES (?)", ("y" * 100_000,))]), 10)
        troubles.clear()
        with database.patiently():
            held = database.submit(lambda c: c.execute("INSERT INTO t VALUES (?)", ("x" * 100_000,)) and None)
            while not troubles:
                await asyncio.sleep(0.01)
            assert not held.done()
            database._connection.execute("PRAGMA max_page_count = 100000")
            await asyncio.wait_for(asyncio.wrap_future(held), 10)
        database.close()

    asyncio.run(run())
    assert "x.db cannot be written" in str(troubles[0])
    with sqlite3.connect(tmp_path / "x.db") as connection:
        assert connection.execute("SELECT length(a) FROM t").fetchall() == [(100_000,)]


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE unrelated (a)")
    with pytest.raises(InsightvError, match="not the database of an insightv run"):
        open_database(tmp_path / "other.db", lambda trouble: None)
    with sqlite3.connect(tmp_path / "newer.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(InsightvError, match="newer insightv"):
        open_database(tmp_path / "newer.db", lambda trouble: None)


def test_a_run_of_the_first_schema_is_read_as_it_is_and_brought_up_to_date_to_be_written(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    open_database(path, lambda trouble: None).close()
    added = (("calls", "seconds"), ("faults", "model"), ("faults", "usage"), ("faults", "seconds"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        fresh = connection.execute("SELECT name, sql FROM sqlite_master").fetchall()
        for table, column in added:
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.execute("INSERT INTO calls VALUES (1, x'00', 'm', 'text', 0, '[]', 0)")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
        check_schema(connection, path)
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        open_database(path, lambda trouble: None).close()
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("SELECT seconds FROM calls").fetchall() == [(0.0,)]
        names = {name for name, _ in fresh}
        assert {name for (name,) in connection.execute("SELECT name FROM sqlite_master")} == names
        for table, column in added:
            assert column in {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def test_every_commit_is_synced_and_readers_need_no_second_file(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db", lambda trouble: None)
    [synchronous] = database.submit(lambda c: c.execute("PRAGMA synchronous").fetchone()).result(10)
    [journal] = database.submit(lambda c: c.execute("PRAGMA journal_mode").fetchone()).result(10)
    database.close()
    assert (synchronous, journal) == (2, "truncate")
