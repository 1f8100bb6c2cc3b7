"""A worker in a process of its own, with a line to the run.

Each message is number, method of `worker.Worker` and pickled arguments, each reply the number, what was raised as text,
and what was returned, pickled. The process ends with the run.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

from insightv.child_processes import line_to_parent, receive, send
from insightv.plugin_guard import error_text
from insightv.runs.workers.worker import Worker

CANCEL = ""
"""The method of a message that takes back the one with its number."""


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
                (number, method), packed = receive(self._line)
                self._loop.call_soon_threadsafe(self._begin, number, method, packed)
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
        self._sender.submit(send, self._line, [number, fault], value)


async def serve(line: Connection) -> None:
    """Work for the run at the other end, until it is gone."""
    threading.Thread(target=Desk(line).listen, name="from the run", daemon=True).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    to_the_run = line_to_parent()
    for each in (signal.SIGINT, signal.SIGTERM):  # sent to all processes of a job; the run drains, then ends us
        signal.signal(each, lambda *_: None)
    asyncio.run(serve(to_the_run))
