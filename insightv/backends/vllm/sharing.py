"""Which models share a `vllm serve`: those of equal `Launch`. The last one that leaves stops it."""

from __future__ import annotations

import atexit
import threading

from insightv.backends.vllm.launch import Launch
from insightv.backends.vllm.source import Adapter
from insightv.backends.vllm.supervisor import Engine

_engines: dict[Launch, tuple[Engine, int]] = {}
_engines_lock = threading.Lock()


def join(launch: Launch, adapter: Adapter | None, log_folder: str | None) -> Engine:
    """The engine of this launch, shared by all who ask for it; each of them leaves it once."""
    with _engines_lock:
        engine, users = _engines.get(launch) or (Engine(launch, log_folder), 0)
        if engine.fault is not None:
            engine, users = Engine(launch, log_folder), 0
        _engines[launch] = (engine, users + 1)
        engine.want(adapter)
        return engine


def leave(engine: Engine, adapter: Adapter | None) -> None:
    """Give an engine back; the last one stops it."""
    with _engines_lock:
        engine.unwant(adapter)
        known, users = _engines.get(engine.launch, (None, 0))
        if known is engine and users > 1:
            _engines[engine.launch] = (engine, users - 1)
            return
        if known is engine:
            del _engines[engine.launch]
    engine.close()


@atexit.register
def _close_all() -> None:
    """An interpreter that ends without closing its models takes its servers with it."""
    for engine, _ in list(_engines.values()):
        engine.close()
