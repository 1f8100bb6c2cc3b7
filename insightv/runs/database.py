"""One SQLite connection, owned by one thread, with grouped commits. Knows SQL's failures; knows no table of ours.

Every write is durable (synchronous=FULL) before its caller continues; writes that arrive during a commit share
the next one. A rollback journal is used, not WAL: `insightv status` opens a second connection, and with two connections
the WAL of SQLite before 3.51.3 can be corrupted.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from insightv.errors import InputError, InsightvError, StopRun, StorageFull, TooManyOpenFiles
from insightv.inputs.plain_file import open_plain, refuse_strange
from insightv.runs.host_limits import SpareFiles
from insightv.runs.rows import checked_row, checked_text

T = TypeVar("T")
Row = Sequence[object]
Statement = tuple[str, Row]

_STORAGE_CODES = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_BUSY,
}
_GATHER_S = 0.01
"""Where writes come thickly each commit waits this long for company: a commit costs more than what is in it."""
_PAGE_BYTES = 1024
"""Of a new file. A commit writes whole pages, most of them for a row or two: smaller ones are less to write."""
_SPARE = 8
"""A journal and its folder take two; other threads may take one that has just been let go of."""
_LONGEST = 128 * 2**20
"""The most bytes of a text or blob: a question whose pictures stand in it has at most 32 MiB."""
_JOURNAL = bytes.fromhex("d9d505f920a163d7")  # begins a journal of SQLite's, and ends one that names another file
_BUSY_S = 30.0
_RETRY_S = 0.25


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection with this module's settings; `read_only` ones may still roll a dead writer's journal back.

    Raises:
        StorageFull: the file cannot be opened or written.
        InputError: it is no database, or a link, FIFO or device is in its place.
    """
    _refuse_strange_files(path)
    try:
        if not read_only:
            path.touch(mode=0o600)
        connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        connection.row_factory, connection.text_factory = checked_row, checked_text
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA query_only = ON" if read_only else "PRAGMA journal_mode = TRUNCATE")
        connection.execute("PRAGMA synchronous = FULL")
    except OSError as error:
        raise StorageFull.of(path, error) from error
    except sqlite3.DatabaseError as error:
        raise storage_trouble(error, path) or damaged(error, path) from error
    return connection


def _refuse_strange_files(path: Path) -> None:
    """See that SQLite opens, and writes, nothing but a run's own files.

    A journal may name a further file, by which several databases change at once: SQLite removes that at the end. No
    run has one.
    """
    for suffix in ("", "-journal", "-wal", "-shm"):
        refuse_strange(path.with_name(path.name + suffix))
    journal = path.with_name(f"{path.name}-journal")
    if journal.is_file():
        with open_plain(journal) as file:
            file.seek(max(0, file.seek(0, 2) - len(_JOURNAL)))
            if file.read() == _JOURNAL:
                raise InputError(f"{journal} names another file, which no journal of a run does; remove it")


def storage_trouble(error: sqlite3.Error, path: Path) -> StopRun | None:
    """The error as a StorageFull if the disk is its cause, as a TooManyOpenFiles if that is, else None."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or code & 0xFF not in _STORAGE_CODES:
        return None
    if _lacks_files(error):
        return TooManyOpenFiles.of(str(path))
    if code & 0xFF == sqlite3.SQLITE_BUSY:
        return StorageFull(f"{path} cannot be written: {error}, by another program; end that, then resume the run")
    return StorageFull(
        f"{path} cannot be written: {error}; free some space or make the folder writable, then resume the run"
    )


def _lacks_files(error: sqlite3.Error) -> bool:
    """Whether SQLite could not open its journal, or the folder of it, because too many files are open."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR) and TooManyOpenFiles.is_behind(error)


def damaged(error: sqlite3.Error, path: Path) -> InputError:
    """The error of a file that is no database, or is not whole any more."""
    cure = "restore it from a copy, or begin anew in another --run"
    return InputError(f"{path} cannot be read as a run's database: {error}; {cure}")


@dataclass(eq=False, slots=True)
class _Job:
    work: Callable[[sqlite3.Connection], object]
    future: Future[Any] | asyncio.Future[Any]
    result: object = None
    error: BaseException | None = None

    def settle(self) -> None:
        if isinstance(self.future, asyncio.Future) and self.future.done():
            return  # whoever waited was cancelled
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Database:
    """A database file that one process writes. `on_trouble` is called (in the writer's thread) when the disk fails.

    Within `patiently`, jobs that the disk fails are held in memory and tried again, so that what was answered is
    kept if space comes back; `close` gives them up after its last try. Otherwise they end in StorageFull.

    SQLite opens its journal anew for each commit. Descriptors are held in reserve for that, so that what was paid for
    is recorded in a process that has opened all the files that it may.
    """

    def __init__(self, path: Path, on_trouble: Callable[[StopRun], None]) -> None:
        self.path = path
        self._on_trouble = on_trouble
        self._jobs: list[_Job] = []
        self._wake = threading.Condition()
        self._closing = False
        self._patient = False
        self._connection = connect(path)
        self._spare = SpareFiles(_SPARE)
        self._thread = threading.Thread(target=self._run, name="insightv-database", daemon=True)
        self._thread.start()

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """While calls are sent: what was paid for may be in the jobs, so they wait where the disk fails them."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Do `work` within the next transaction; the future is done when that transaction is committed."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # from here on it cannot be cancelled: what was paid for is recorded
        self._add(_Job(work, future))
        return future

    async def do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`submit`, awaited. The work is not undone when the waiting is cancelled."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._add(_Job(work, future))
        return await future

    def _add(self, job: _Job) -> None:
        with self._wake:
            if self._closing:
                raise InsightvError(f"{self.path} is closed")
            self._jobs.append(job)
            self._wake.notify()

    async def write(self, statements: Iterable[Statement]) -> None:
        """Execute statements in one transaction, and return when it is committed."""
        kept = list(statements)
        await self.do(lambda connection: _execute(connection, kept))

    def close(self) -> None:
        """Commit what is waiting, or give it up if the disk still fails, and close."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        thick = False
        while True:
            with self._wake:
                while not self._jobs and not self._closing:
                    self._wake.wait()
            if thick:
                time.sleep(_GATHER_S)
            with self._wake:
                jobs, self._jobs = self._jobs, []
                last = self._closing
            if jobs:
                self._commit(jobs)
                thick = len(jobs) > 1
            if last and not self._jobs:
                self._connection.close()
                self._spare.close()
                return

    def _commit(self, jobs: list[_Job]) -> None:
        while True:
            try:
                self._transaction(jobs)
                break
            except sqlite3.Error as error:
                trouble = storage_trouble(error, self.path)
                if trouble is None:
                    return self._commit_singly(jobs, error)
                if not self._hold(jobs, trouble):
                    break
            # A job's own fault must reach its caller and not stop the writer.
            except Exception as error:
                return self._commit_singly(jobs, error)
        return _settle(jobs)

    def _transaction(self, jobs: list[_Job]) -> None:
        try:
            self._try_transaction(jobs)
        except sqlite3.Error as error:
            if not _lacks_files(error):
                raise
            with self._spare.lent():
                self._try_transaction(jobs)

    def _try_transaction(self, jobs: list[_Job]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for job in jobs:
                job.result = job.work(self._connection)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _commit_singly(self, jobs: list[_Job], error: Exception) -> None:
        if len(jobs) == 1:
            jobs[0].error = error
            return _settle(jobs)
        for job in jobs:
            self._commit([job])
        return None

    def _hold(self, jobs: list[_Job], trouble: StopRun) -> bool:
        """Wait for space, and say whether to try again; jobs that are given up have `trouble` as their error."""
        self._on_trouble(trouble)
        if self._patient:
            time.sleep(_RETRY_S)
            if self._patient and not self._closing:
                return True
            try:
                self._transaction(jobs)
                return False
            # Whatever it is, nobody may wait for ever: the disk was the trouble before.
            except Exception as error:
                trouble.__context__ = error
        for job in jobs:
            job.error = trouble
        return False


def _settle(jobs: list[_Job]) -> None:
    """Answer all that wait, those on an event loop together: waking a loop costs more than the answer."""
    waiting: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in jobs:
        if isinstance(job.future, asyncio.Future):
            waiting.setdefault(job.future.get_loop(), []).append(job)
        else:
            job.settle()
    for loop, told in waiting.items():
        try:
            loop.call_soon_threadsafe(_settle_here, told)
        except RuntimeError:
            if not loop.is_closed():
                raise


def _settle_here(jobs: list[_Job]) -> None:
    for job in jobs:
        job.settle()


def _execute(connection: sqlite3.Connection, statements: list[Statement]) -> None:
    for sql, row in statements:
        connection.execute(sql, tuple(row))
