"""A worker in a process of its own: `process_main FD PARENT`, with a line to the run at FD.

Each message is (number, method of `worker.Worker`, pickled arguments), each reply (number, what it returned, pickled,
what it raised as text). The process ends with the run.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pickle
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

from insightv.plugin_guard import error_text
from insightv.runs.workers.worker import Worker

CANCEL = ""
"""The method of a message that takes back the one with its number."""
_PR_SET_PDEATHSIG = 1


class Desk:
    """Does what comes in over a line, all at the same time."""

    def __init__(self, line: Connection) -> None:
        self._line = line
        self._loop = asyncio.get_running_loop()
        self._worker = Worker()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="to the run")  # models use the loop's own threads

    def listen(self) -> None:
        """Take messages until the line ends, and the process with it."""
        try:
            while True:
                self._loop.call_soon_threadsafe(self._begin, *self._line.recv())
        except (EOFError, OSError):
            os._exit(0)  # whatever a model's threads are about, the run is gone

    def _begin(self, number: int, method: str, packed: bytes) -> None:
        if method != CANCEL:
            task = self._tasks[number] = self._loop.create_task(self._do(number, method, packed))
            task.add_done_callback(lambda _: self._tasks.pop(number))
        elif number in self._tasks:
            self._tasks[number].cancel()

    async def _do(self, number: int, method: str, packed: bytes) -> None:
        task = asyncio.current_task()
        try:
            value, fault = pickle.dumps(await getattr(self._worker, method)(*pickle.loads(packed))), ""
        # The run waits for a reply, so it gets one, whatever a plugin raised, SystemExit among it.
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            value, fault = b"", error_text(error)
        self._sender.submit(self._line.send, (number, value, fault))


async def serve(line: Connection) -> None:
    """Work for the run at the other end, until it is gone."""
    threading.Thread(target=Desk(line).listen, name="from the run", daemon=True).start()
    await asyncio.Event().wait()


def end_with(parent: int) -> None:
    """Let the system end this process with the one that started it.

    A thread that watches cannot run while a model's code holds the interpreter.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def main(line: int, parent: int) -> None:
    """Work until the run is gone."""
    end_with(parent)
    os.set_inheritable(line, False)
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes of a job; the run drains, then ends us
        signal.signal(number, lambda *_: None)
    asyncio.run(serve(Connection(line)))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
