"""The workers of `engine = "process"`: processes of this machine that hold the models, so that a crash ends only one.

A local model can take its process with it: a kernel that fails, a picture that a library cannot bear, the system's
out-of-memory killer. The run goes on with a new process; who is asked, and what is asked again, is `crew`'s.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Pipe
from typing import Any

from insightv.crew_members import Hand, Lost
from insightv.errors import ConfigError, ModelError
from insightv.process_worker import CANCEL
from insightv.records import Usage
from insightv.run_section import ProcessSection

log = logging.getLogger("insightv.process")

_END_S = 10.0


class LocalProcesses:
    """This machine as a `crew_members.Cluster`: as many processes as the settings say."""

    table = "run.process"
    cure = (
        "the models take longer to load, or the machine is out of memory; set it higher, or run.process.workers lower"
    )
    blames_calls = True

    def __init__(self, section: ProcessSection) -> None:
        self._section = section

    def connect(self) -> tuple[int, int]:
        """See `crew_members.Cluster.connect`."""
        return self._section.workers, self._section.workers

    def start(self) -> Hand:
        """See `crew_members.Cluster.start`."""
        return ProcessHand()

    def close(self) -> None:
        """See `crew_members.Cluster.close`; processes end when they are dismissed."""


class ProcessHand:
    """One process, and the line to it. It ends when this one does, however that ends."""

    def __init__(self) -> None:
        self._line, far = Pipe()
        self._loop = asyncio.get_running_loop()
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[tuple[Any, str]]] = {}
        self._why = ""
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="to a worker")  # a busy worker reads late
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "insightv.process_worker", str(far.fileno())],
                pass_fds=(far.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a library prints must not get between what this program prints
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # Ctrl-C is for the run, which ends its workers in its own time
            )
        except OSError as error:
            raise ConfigError(f"a worker process cannot be started: {error.strerror or error}") from error
        finally:
            far.close()
        threading.Thread(target=self._listen, name="from a worker", daemon=True).start()

    async def call(self, method: str, *args: Any) -> Any:
        """See `crew_members.Hand.call`."""
        try:
            packed = pickle.dumps(args)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"a model cannot be made by another process ({error}): its factory must be importable, and its options "
                'plain values; use engine = "local"'
            ) from error
        number, reply = next(self._numbers), self._loop.create_future()
        self._waiting[number] = reply
        try:
            await self._send((number, method, packed))
            value, fault = await reply
        except asyncio.CancelledError:
            with suppress(RuntimeError):  # it has been dismissed
                self._writer.submit(self._line.send, (number, CANCEL, b""))
            raise
        finally:
            self._waiting.pop(number, None)
        if fault:
            raise ModelError("backend_error", fault, usage=Usage(requests=1))
        return value

    def dismiss(self) -> None:
        """See `crew_members.Hand.dismiss`."""
        self._process.kill()
        self._process.wait()
        self._writer.shutdown(wait=False, cancel_futures=True)

    async def _send(self, message: tuple[int, str, bytes]) -> None:
        if self._why:
            raise Lost(self._why)
        with suppress(OSError):  # it is gone: whoever listens will say so
            await asyncio.wrap_future(self._writer.submit(self._line.send, message))

    def _listen(self) -> None:
        with suppress(EOFError, OSError), self._line:
            while True:
                self._tell(self._land, *self._line.recv())
        self._tell(self._lose, ended(self._process))

    def _tell(self, call: Any, *args: Any) -> None:
        with suppress(RuntimeError):  # the loop has been closed, and nobody waits
            self._loop.call_soon_threadsafe(call, *args)

    def _land(self, number: int, value: Any, fault: str) -> None:
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result((value, fault))

    def _lose(self, why: str) -> None:
        self._why = why
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Lost(why))


def ended(process: subprocess.Popen[bytes]) -> str:
    """How a process ended that has closed its line; it is made to, where it goes on without."""
    try:
        code = process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    if code >= 0:
        return f"it ended with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}{', perhaps by the system, out of memory' if -code == signal.SIGKILL else ''}"
