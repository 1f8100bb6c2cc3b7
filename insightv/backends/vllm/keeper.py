"""Runs a program, and ends it with all that it has started when it ends or when whoever asked for it is gone.

    python -I -S vllm_keeper.py PROGRAM ARGUMENT...

To be started as the leader of a session of its own. Standard input is the leash: when its other end closes, however its
holder died, the whole group gets SIGTERM and a little later SIGKILL. The program's output goes to standard error; on
standard output one line says how it ended. A file of its own without imports from insightv, so that it starts at once
and keeps running whatever happens there.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

LOOK_EVERY_S = 0.2
GRACE_S = 10.0
_PR_SET_PDEATHSIG = 1


def keep(command: list[str]) -> None:
    """Run `command` until it ends or the leash is let go of; never returns."""
    parent = os.getppid()
    # A handler, not SIG_IGN: what is ignored would be ignored by the program too.
    signal.signal(signal.SIGTERM, lambda *_: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, stderr=2, preexec_fn=_die_with_keeper)
    while child.poll() is None and os.getppid() == parent:
        if select.select([0], [], [], LOOK_EVERY_S)[0] and not os.read(0, 1024):
            break
    if child.poll() is None:
        os.killpg(0, signal.SIGTERM)
        give_up = time.monotonic() + GRACE_S
        while child.poll() is None and time.monotonic() < give_up:
            time.sleep(LOOK_EVERY_S / 4)
    with contextlib.suppress(OSError):  # nobody may be left to read it
        os.write(1, f"{child.poll()}\n".encode())
    os.killpg(0, signal.SIGKILL)


def _die_with_keeper() -> None:
    """The keeper may be killed as well; then the program dies with it, where the system can promise that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    keep(sys.argv[1:])
