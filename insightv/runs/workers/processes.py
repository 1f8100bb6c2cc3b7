"""The workers of `executor = "process"`: processes of this machine that hold the models, so that a crash ends only one.

A local model can take its process with it: a kernel that fails, a picture that a library cannot bear, the system's
out-of-memory killer. The run continues with a new process; `pool` says who is asked, and what is asked again.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Any

from insightv.child_processes import LineChild, how_ended, receive, send
from insightv.config.sections import ProcessSection
from insightv.errors import ConfigError, ModelError
from insightv.plugin_guard import error_text
from insightv.records import Usage
from insightv.runs.workers.process_main import CANCEL
from insightv.runs.workers.protocol import Lost, WorkerHandle

_END_S = 10.0


class LocalProcesses:
    """This machine as a `crew_members.Cluster`: as many processes as the settings say."""

    table = "run.process"
    cure = "the models take longer to load, or memory is short; set it higher, or run.process.workers lower"
    blames_calls = True
    close_s = 1.0

    def __init__(self, section: ProcessSection) -> None:
        self._section = section
        self._hands: list[WorkerProcess] = []

    def connect(self) -> tuple[int, int]:
        """See `crew_members.Cluster.connect`."""
        return self._section.workers, self._section.workers

    def start(self) -> WorkerHandle:
        """See `crew_members.Cluster.start`."""
        self._hands = [hand for hand in self._hands if not hand.gone]
        self._hands.append(WorkerProcess())
        return self._hands[-1]

    def close(self) -> None:
        """See `crew_members.Cluster.close`: wait until all are gone, and with them what memory they hold."""
        for hand in self._hands:
            hand.wait()


class WorkerProcess:
    """One process, and the line to it. It ends when this one does, however that ends."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[tuple[bytes, str]]] = {}
        self._why = ""
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="to a worker")  # a busy worker reads late
        # What libraries print there must not get between what this program prints on stdout. A descriptor 2 that was
        # closed may be any file by now.
        said = subprocess.DEVNULL if sys.__stderr__ is None else 2
        try:
            self._child = LineChild("insightv.runs.workers.process_main", said)
        except OSError as error:
            raise ConfigError(f"a worker process cannot be started: {error.strerror or error}") from error
        self._listener = threading.Thread(target=self._listen, name="from a worker", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="a worker's end", daemon=True)
        self._listener.start()
        self._watcher.start()

    @property
    def gone(self) -> bool:
        """Whether the process has ended, and all has been put away."""
        return not self._watcher.is_alive()

    async def call(self, method: str, *args: Any) -> Any:
        """See `crew_members.WorkerHandle.call`."""
        packed = _packed(method, args)
        if self._why:
            raise Lost(self._why)
        number, reply = next(self._numbers), self._loop.create_future()
        self._waiting[number] = reply
        try:
            self._send(number, method, packed)
            value, fault = await reply
        except asyncio.CancelledError:
            self._send(number, CANCEL)
            raise
        finally:
            del self._waiting[number]
        if not fault:
            try:
                return pickle.loads(value)
            # A plugin's class may fail here; it is this call that has no reply.
            except Exception as error:
                fault = f"what came back cannot be read: {error_text(error)}"
        raise ModelError("backend_error", fault, usage=Usage(requests=1))

    def dismiss(self) -> None:
        """See `crew_members.WorkerHandle.dismiss`; `wait` waits until it is gone."""
        self._child.kill()

    def wait(self) -> None:
        """Wait until a process that was dismissed is gone. Blocks."""
        self._watcher.join(_END_S)

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                (number, fault), value = receive(self._child.line)
                self._tell(self._land, number, value, fault)

    def _watch(self) -> None:
        """Wait for the end of the process, not of the line, which what it has forked may hold open."""
        self._child.wait()
        # The line is not closed yet: another could get its number, and what is still to be sent would go there.
        with socket.socket(fileno=os.dup(self._child.line.fileno())) as line, suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
        self._listener.join()
        self._tell(self._lose, f"it {how_ended(self._child.code)}")
        self._writer.shutdown()
        self._child.line.close()

    def _send(self, number: int, method: str, packed: bytes = b"") -> None:
        with suppress(RuntimeError):  # it is gone, and those who wait are about to hear of it
            self._writer.submit(send, self._child.line, [number, method], packed)

    def _tell(self, call: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the loop has been closed, and nobody waits
            self._loop.call_soon_threadsafe(call, *args)

    def _land(self, number: int, value: bytes, fault: str) -> None:
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result((value, fault))

    def _lose(self, why: str) -> None:
        self._why = why
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Lost(why))


def _packed(method: str, args: tuple[Any, ...]) -> bytes:
    try:
        return pickle.dumps(args)
    # What can go wrong here is up to whatever a factory, an option or a sampling holds.
    except Exception as error:
        if method != "prepare":
            raise ModelError("bad_request", f"the call cannot be handed to a worker: {error_text(error)}") from error
        raise ConfigError(
            f"a model cannot be made by another process ({error_text(error)}): its factory must be importable, and its "
            'options plain values; use executor = "local"'
        ) from error
