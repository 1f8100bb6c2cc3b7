"""Child processes: each leads a group of its own, and ends with the process that started it, however that ends.

A `LineChild` is a module of insightv that is sent messages. The system kills it when its parent dies (on Linux), and
without that it ends once it reads the end of its line. A `KeptProgram` is any program, whose whole group has to end. It
has a keeper: this file run as a program, `python -I -S child_processes.py PROGRAM ARGUMENT...`. So this file imports
the standard library alone: the keeper starts at once and works whatever happens to insightv meanwhile.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import IO, Any

GRACE_S = 10.0
"""From SIGTERM to SIGKILL, for a kept program and its group."""
_LEASHED = "INSIGHTV_LEASHED"
_LOOK_S = 0.2
_PR_SET_PDEATHSIG = 1

Message = tuple[Any, bytes]
"""A head, which JSON can hold, and bytes. No pickles: what a child that reads hostile files sends could be anything."""


class ChildEnded(Exception):
    """A child has ended, or was ended, before it replied; the text says how."""


class ChildProcess:
    """A program that leads a group of its own: Ctrl-C at the terminal is for this process, which ends its children.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        self._process: subprocess.Popen[bytes] = subprocess.Popen(command, start_new_session=True, **options)
        self._group_ended = False

    @property
    def pid(self) -> int:
        """Its number, and that of its group."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """How it ended, negative for a signal; None while nobody has waited for its end."""
        return self._process.returncode

    def wait(self, limit_s: float | None = None) -> bool:
        """Wait until it has ended, at most so long; whether it has. What is left of its group is killed then."""
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return False
        if not self._group_ended:  # once: later the number may be another's
            self._group_ended = True
            _kill_group(self.pid)
        return True

    def kill(self) -> None:
        """Kill its whole group, from any thread; does not wait."""
        if self.code is None:
            _kill_group(self.pid)


class LineChild(ChildProcess):
    """A module run as a program, which begins with `line_to_parent` or `answer_parent`; `said` is its output.

    It is found as this process finds it, and never in the working folder.
    The system ends it with the thread that started it, so that one must live as long as the child is wanted.
    """

    def __init__(self, module: str, said: int = subprocess.DEVNULL) -> None:
        self.line, far = Pipe()
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        try:
            super().__init__(
                [sys.executable, "-P", "-m", module, str(far.fileno()), str(os.getpid())],
                pass_fds=(far.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=os.environ | {"PYTHONPATH": path},
            )
        except OSError:
            self.line.close()
            raise
        finally:
            far.close()

    def ask(self, head: object, data: bytes = b"", *, limit_s: float) -> Message:
        """The reply to a message, of a child that serves by `answer_parent`; without one it is ended.

        Raises:
            ChildEnded: there was none within `limit_s` seconds, or it has ended.
        """
        ends = time.monotonic() + limit_s
        limit = threading.Timer(limit_s, self.kill)
        limit.daemon = True
        limit.start()
        try:
            send(self.line, head, data)
            return receive(self.line)
        except (EOFError, OSError, ValueError):
            late = time.monotonic() >= ends
            self.wait(1.0)  # it ends by itself where its line has; how, is to be known
            self.end()
            raise ChildEnded(f"did not reply within {limit_s:g} s" if late else how_ended(self.code)) from None
        except BaseException:  # a reply that comes later would be taken for that to the next message
            self.end()
            raise
        finally:
            limit.cancel()
            limit.join()

    def end(self) -> None:
        """End it, with all that it has started, and wait until it is gone."""
        self.kill()
        self.wait()
        self.line.close()


class KeptProgram(ChildProcess):
    """A program whose group ends with it, with `end`, and with us, however we die; what it says goes to `log`.

    Its standard input is the leash, in which nothing is ever written: see `end_with_leash`.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> None:
        super().__init__(
            [sys.executable, "-I", "-S", __file__, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**environment, _LEASHED: "1"},
        )
        self._told: int | None = None

    @property
    def code(self) -> int | None:
        """As of any child: that of the program, or of its keeper where that one was killed."""
        return super().code if self._told is None else self._told

    def wait(self, limit_s: float | None = None) -> bool:
        """As of any child."""
        if not super().wait(limit_s):
            return False
        leash, told = self._process.stdin, self._process.stdout
        if leash is not None and told is not None and not told.closed:
            leash.close()
            with told:
                self._told = json.loads(told.read() or b"null")
        return True

    def end(self) -> None:
        """End the whole group and wait for it: SIGTERM, and after ten seconds SIGKILL."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if not self.wait(GRACE_S + 5.0):
            self.kill()
            self.wait()


def send(line: Connection, head: object, data: bytes = b"") -> None:
    """Send a message over a line, from one thread at a time; OSError where the other end is gone."""
    line.send_bytes(json.dumps(head).encode())
    line.send_bytes(data)


def receive(line: Connection) -> Message:
    """The next message of a line, for one thread at a time; EOFError or OSError where the other end is gone."""
    return json.loads(line.recv_bytes()), line.recv_bytes()


def line_to_parent() -> Connection:
    """For the main program of a `LineChild`: the line; from now on this process ends with the one that started it.

    A thread that watches could not run while C code holds the interpreter.
    """
    number, parent = map(int, sys.argv[1:])
    _die_with_parent()
    if os.getppid() != parent:  # it died before
        os._exit(0)
    os.set_inheritable(number, False)
    return Connection(number)


def answer_parent(answer: Callable[[Any, bytes], Message], *, memory_bytes: int) -> None:
    """Be a `LineChild` that replies to one message after the other, within so much memory, until the line ends."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory_bytes if most == resource.RLIM_INFINITY else min(memory_bytes, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    line = line_to_parent()
    with suppress(EOFError, OSError):
        while True:
            send(line, *answer(*receive(line)))


def end_with_leash() -> None:
    """For the main program of a `KeptProgram`, which a launcher may have started in a session of its own.

    The keeper's signals do not reach it there, but the leash does.
    """

    def wait() -> None:
        os.read(0, 1)  # returns when the leash is let go of
        os._exit(1)

    if os.environ.get(_LEASHED):
        threading.Thread(target=wait, name="leash", daemon=True).start()


def how_ended(code: int | None) -> str:
    """How a process ended, in words that follow its name."""
    if code is None or code >= 0:
        return "ended" if code is None else f"ended with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + ("; out of memory is the likely cause" if name == "SIGKILL" else "")


def end_of(log: Path, most: int, start: int = 0) -> str:
    """The last `most` bytes of a log, from byte `start` on, as text."""
    with log.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start, end - most))
        return file.read().decode(errors="replace")


def keep(command: list[str]) -> None:
    """Run a program until it ends or the leash, our standard input, is let go of; never returns.

    The whole group is ended then: by SIGTERM if the program still runs, and a little later by SIGKILL. What the program
    says goes to standard error; on standard output a line says how it ended.
    """
    parent = os.getppid()
    # A handler, not SIG_IGN: what is ignored would be ignored by the program too.
    signal.signal(signal.SIGTERM, lambda *_: None)
    # The keeper may be killed as well; then the program dies with it, where the system can promise that.
    child = subprocess.Popen(command, stdout=2, stderr=2, preexec_fn=_die_with_parent)
    while child.poll() is None and os.getppid() == parent:
        if select.select([0], [], [], _LOOK_S)[0] and not os.read(0, 1024):
            break
    if child.poll() is None:
        os.killpg(0, signal.SIGTERM)
        give_up = time.monotonic() + GRACE_S
        while child.poll() is None and time.monotonic() < give_up:
            time.sleep(_LOOK_S / 4)
    with suppress(OSError):  # nobody may be left to read it
        os.write(1, json.dumps(child.poll()).encode())
    os.killpg(0, signal.SIGKILL)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    keep(sys.argv[1:])
