"""A process that dies at chosen moments: the command line, in a child, killed (SIGKILL) at its Nth boundary.

    python -m tests.chaos.dying commit FOLDER build QUESTIONS --config ... --run {run}

runs the command for N = 1, 2, ... with {run} = FOLDER/N (a copy of FOLDER/start, if there is one), dies at the Nth
boundary, then runs it again, undisturbed, to its end. It prints N and the two exit codes of each round, and stops at
the first N that is never reached. A boundary is "begin" (before COMMIT), "commit" (after COMMIT, before anybody knows
of it), or "file" (the run's folder is about to be changed). All children are forks of one warm process, which keeps a
round at the price of its own work.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.chaos.forking import code_of, in_fork

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def countdown(n: int) -> Callable[[], None]:
    left = n

    def step() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            die()

    return step


class _Watched(sqlite3.Connection):
    """Steps before or after each COMMIT."""

    step: Callable[[], None] = staticmethod(lambda: None)
    after = False

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        commit = sql == "COMMIT"
        if commit and not self.after:
            self.step()
        cursor = super().execute(sql, *args)
        if commit and self.after:
            self.step()
        return cursor


def arm(boundary: str, n: int, folder: str) -> None:
    step = countdown(n)
    if boundary == "file":

        def hook(event: str, args: tuple[Any, ...]) -> None:
            changes = event in _CHANGES or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR))
            if changes and str(args[0]).startswith(folder):
                step()

        sys.addaudithook(hook)
        return
    _Watched.step, _Watched.after = staticmethod(step), boundary == "commit"
    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **options: connect(*args, **options, factory=_Watched)  # type: ignore[assignment]


def main(boundary: str, folder: str, *args: str) -> None:
    n = 0
    while True:
        n += 1
        run = os.path.join(folder, str(n))
        command = [arg.replace("{run}", run) for arg in args]
        if os.path.isdir(start := os.path.join(folder, "start")):
            shutil.copytree(start, run)
        died = code_of(in_fork(command, partial(arm, boundary, n, run)))
        again = code_of(in_fork(command, lambda: None))
        print(n, died, again, flush=True)
        sys.stdin.readline()
        if died != -signal.SIGKILL:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
