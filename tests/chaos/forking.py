"""A warm process whose forks run the command line: a case that needs many processes costs their work, not their start.

    python -m tests.chaos.forking race ROUNDS STARTERS build ... --run FOLDER/{round}

starts STARTERS forks at one moment, ROUNDS times, and prints a line of JSON per fork: its round, pid, exit code,
seconds of processor time, and what it said on stderr.

    python -m tests.chaos.forking break COMMITS build ... --run FOLDER

runs the command once, in this process, and lets every write of the database fail (as a broken disk does) after COMMITS
commits.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from insightv.cli.main import main as command_line


def in_fork(args: Sequence[str], before: Callable[[], None], errors: str = os.devnull) -> int:
    """The pid of a fork that runs the command; `before` is called in it first."""
    pid = os.fork()
    if pid:
        return pid
    try:
        before()
        target = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(target, 2)
        sys.argv = ["insightv", *args]
        command_line()
    except SystemExit as leaving:
        os._exit(leaving.code if isinstance(leaving.code, int) else 1)
    finally:
        os._exit(97)


def code_of(pid: int) -> int:
    """The exit code of a child; negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _await(pipe: int) -> None:
    os.read(pipe, 1)


def race(rounds: int, starters: int, args: Sequence[str]) -> None:
    """`starters` forks of the command at one moment; at the end of a round the folder is held by nobody."""
    for number in range(rounds):
        command = [arg.replace("{round}", str(number)) for arg in args]
        with tempfile.TemporaryDirectory() as folder:
            ready, go = os.pipe()
            said: dict[int, str] = {}
            for starter in range(starters):
                said_to = f"{folder}/{starter}"
                said[in_fork(command, partial(_await, ready), said_to)] = said_to
            os.write(go, b"x" * starters)
            for _ in range(starters):
                pid, status, usage = os.wait3(0)
                line: dict[str, Any] = {"round": number, "pid": pid, "code": os.waitstatus_to_exitcode(status)}
                line |= {
                    "cpu_s": usage.ru_utime + usage.ru_stime,
                    "stderr": Path(said[pid]).read_text(encoding="utf-8"),
                }
                print(json.dumps(line), flush=True)
            os.close(ready)
            os.close(go)


class _Breaking(sqlite3.Connection):
    """After `left` commits the database's file can be read and not be written any more."""

    left = 0

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        cursor = super().execute(sql, *args)
        if sql == "COMMIT":
            _Breaking.left -= 1
            if _Breaking.left == 0:
                _break_files()
        return cursor


def _break_files() -> None:
    for link in Path("/proc/self/fd").iterdir():
        target = os.readlink(link) if link.is_symlink() else ""
        if target.endswith(("run.db", "run.db-journal")):
            os.dup2(os.open(target, os.O_RDONLY), int(link.name))


def main() -> None:
    """See the module."""
    what, *rest = sys.argv[1:]
    if what == "race":
        race(int(rest[0]), int(rest[1]), rest[2:])
        return
    _Breaking.left = int(rest[0])
    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **options: connect(*args, **options, factory=_Breaking)  # type: ignore[assignment]
    sys.argv = ["insightv", *rest[1:]]
    command_line()


if __name__ == "__main__":
    main()
