"""A worker in a process of its own: `python -m insightv.process_worker FD`, with a line to the run at that descriptor.

Each message is (number, method of `worker.Worker`, pickled arguments), each reply (number, what it returned, what it
raised as text). The process ends with the line, and so with the run.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from insightv.strangers import told
from insightv.worker import Worker

CANCEL = ""
"""The method of a message that takes back the one with its number."""


class Desk:
    """Does what comes in over a line, all at the same time."""

    def __init__(self, line: Connection) -> None:
        self._line = line
        self._loop = asyncio.get_running_loop()
        self._worker = Worker()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._sending = asyncio.Lock()

    def listen(self) -> None:
        """Take messages until the line ends, and the process with it."""
        try:
            while True:
                self._loop.call_soon_threadsafe(self._begin, *self._line.recv())
        except (EOFError, OSError):
            os._exit(0)  # whatever a model's threads are about, the run is gone

    def _begin(self, number: int, method: str, packed: bytes) -> None:
        if method != CANCEL:
            self._tasks[number] = self._loop.create_task(self._do(number, method, packed))
        elif number in self._tasks:
            self._tasks[number].cancel()

    async def _do(self, number: int, method: str, packed: bytes) -> None:
        value, fault = None, ""
        try:
            value = await getattr(self._worker, method)(*pickle.loads(packed))
        # Whatever it was, the run is to know: what a worker does not expect is a stranger's, or cannot be imported.
        except (Exception, SystemExit) as error:
            fault = told(error)
        finally:
            del self._tasks[number]
        async with self._sending:
            await asyncio.to_thread(self._send, number, value, fault)

    def _send(self, number: int, value: Any, fault: str) -> None:
        try:
            self._line.send((number, value, fault))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            self._line.send((number, None, f"what came back cannot be handed over: {told(error)}"))


async def serve(line: Connection) -> None:
    """Work for the run at the other end, until it is gone."""
    threading.Thread(target=Desk(line).listen, name="from the run", daemon=True).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Connection(int(sys.argv[1]))))
