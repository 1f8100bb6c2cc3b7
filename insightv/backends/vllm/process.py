"""One run of a program on a leash: its whole group ends with it, with `end`, and with us, however we die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from insightv.backends.vllm import keeper

_PATIENCE_S = keeper.GRACE_S + 5.0


class GuardedProcess:
    """A program started under `vllm_keeper`; what it says goes to `log`.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> None:
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(keeper.__file__)), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=dict(environment),
            start_new_session=True,  # a group of its own: Ctrl-C in a terminal ends calls first, then this
        )
        self._leash, self._end = cast(IO[bytes], self._keeper.stdin), cast(IO[bytes], self._keeper.stdout)
        self.group = self._keeper.pid
        self._code: int | None = None
        self._reaped = False

    @property
    def code(self) -> int | None:
        """How the program ended, negative for a signal; None while it runs, and where nobody could tell."""
        return self._code

    def ended(self) -> bool:
        """Whether it has ended; its group is gone then."""
        if not self._reaped:
            if os.waitid(os.P_PID, self.group, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                return False
            self._bury()
        return True

    def end(self) -> None:
        """End the whole group and wait for it: SIGTERM, and after ten seconds SIGKILL."""
        if self.ended():
            return
        self._leash.close()
        try:
            self._keeper_exit(_PATIENCE_S)
        except TimeoutError:
            os.kill(self.group, signal.SIGKILL)
            self._keeper_exit(None)
        self._bury()

    def _keeper_exit(self, seconds: float | None) -> None:
        """Wait for the keeper without taking its number away: until `_bury` no other process can get it."""
        give_up = time.monotonic() + seconds if seconds is not None else float("inf")
        while os.waitid(os.P_PID, self.group, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            if time.monotonic() > give_up:
                raise TimeoutError
            time.sleep(0.05)

    def _bury(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, signal.SIGKILL)  # the keeper does so itself, unless it was killed
        self._leash.close()
        with self._end:
            told = self._end.read()
        self._keeper.wait()
        self._code = int(told) if told.strip().lstrip(b"-").isdigit() else None
        self._reaped = True
