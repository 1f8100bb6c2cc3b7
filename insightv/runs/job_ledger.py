"""The jobs of a run, in its `run.db`: committed before they are sent, so that a new process polls them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping

from insightv.backends.jobs import JobEntry, JobLedger
from insightv.runs.database import Database
from insightv.runs.limiter import StopSwitch

_TABLES = (
    "CREATE TABLE IF NOT EXISTS jobs (tag TEXT PRIMARY KEY, planned_at REAL NOT NULL, job TEXT) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS job_calls (key BLOB PRIMARY KEY, tag TEXT NOT NULL, tries INTEGER NOT NULL) "
    "WITHOUT ROWID",
)


class RunJobLedger(JobLedger):
    """Keeps jobs beside the calls of a run. The tables are made when the first job is looked for."""

    def __init__(self, database: Database, switch: StopSwitch) -> None:
        self._database = database
        self._switch = switch

    async def plan(self, tag: str, calls: Mapping[bytes, int]) -> None:
        """See `JobLedger.plan`; a run that has been told to stop sends no job."""
        if self._switch.error is not None:
            raise self._switch.error
        rows = [("INSERT OR REPLACE INTO job_calls VALUES (?, ?, ?)", (key, tag, n)) for key, n in calls.items()]
        await self._database.write(
            [*((sql, ()) for sql in _TABLES), ("INSERT INTO jobs VALUES (?, ?, NULL)", (tag, time.time())), *rows]
        )

    async def sent(self, tag: str, job: str) -> None:
        """See `JobLedger.sent`."""
        await self._database.write([("UPDATE jobs SET job = ? WHERE tag = ?", (job, tag))])

    async def entry(self, key: bytes) -> JobEntry | None:
        """See `JobLedger.entry`."""

        def find(connection: sqlite3.Connection) -> JobEntry | None:
            for sql in _TABLES:
                connection.execute(sql)
            row = connection.execute(
                "SELECT tag, planned_at, job, tries FROM job_calls JOIN jobs USING (tag) WHERE key = ?", (key,)
            ).fetchone()
            return JobEntry(*row) if row else None

        return await self._database.do(find)
