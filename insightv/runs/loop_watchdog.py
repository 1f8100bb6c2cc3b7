"""Who holds the event loop: code that blocks where it should await lets nothing else run, and no deadline ends it.

A loop cannot look after itself while it is held, so a thread does. Knows no part and no run.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import CodeType, FrameType

log = logging.getLogger("insightv")
_OWN = f"{Path(__file__).parents[1]}{os.sep}"
_ASYNCIO = f"{Path(asyncio.__file__).parent}{os.sep}"
_BEAT_S = 0.25
_TEXT = (
    "%s() in %s, line %d, has held the event loop for %.0f s: nothing else can run, and no deadline ends it; "
    "await there, or put what blocks into asyncio.to_thread"
)


@asynccontextmanager
async def blockers_named(after_s: float = 5.0) -> AsyncIterator[None]:
    """Warn, once for each place, of code that holds the running loop for more than `after_s` seconds at a stretch."""
    watch = _Watch(threading.get_ident(), after_s)
    thread = threading.Thread(target=watch.look, name="insightv-held-loop", daemon=True)
    thread.start()
    beating = asyncio.create_task(watch.beat())
    try:
        yield
    finally:
        beating.cancel()
        watch.over.set()


class _Watch:
    def __init__(self, thread: int, after_s: float) -> None:
        self.over = threading.Event()
        self._thread = thread
        self._after_s = after_s
        self._last = time.monotonic()
        self._named: set[CodeType] = set()

    async def beat(self) -> None:
        while True:
            self._last = time.monotonic()
            await asyncio.sleep(_BEAT_S)

    def look(self) -> None:
        while not self.over.wait(_BEAT_S):
            held_s = time.monotonic() - self._last
            frame = sys._current_frames().get(self._thread) if held_s > self._after_s else None
            holder = None if frame is None else _holder(frame)
            if holder is not None and holder.f_code not in self._named:
                self._named.add(holder.f_code)
                name, file, line = holder.f_code.co_name, holder.f_code.co_filename, holder.f_lineno
                log.warning(_TEXT, name, file, line, held_s)


def _holder(frame: FrameType) -> FrameType | None:
    """Where the loop's callback is: the plugin's function that our code has called, else our own; None: idle."""
    stack: list[FrameType] = []
    inner: FrameType | None = frame
    while inner is not None and not inner.f_code.co_filename.startswith(_ASYNCIO):
        stack.append(inner)
        inner = inner.f_back
    if not stack or stack[-1].f_globals.get("__name__") == "selectors":  # it waits: the whole process stood still
        return None
    ours = next((at for at, each in enumerate(stack) if each.f_code.co_filename.startswith(_OWN)), len(stack))
    return stack[max(0, ours - 1)]
