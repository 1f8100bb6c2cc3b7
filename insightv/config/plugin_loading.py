"""Loading plugins: the entry points of the group `insightv`, each one on its own."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from insightv import __version__
from insightv.errors import PluginError
from insightv.plugin_guard import boundary
from insightv.plugins import GROUP, Failure, PluginSource, Registry

log = logging.getLogger("insightv")
SLOW_S = 10.0
"""Seconds after which a plugin that is still being imported is named."""


def _chosen() -> set[str] | None:
    """The plugins that INSIGHTV_PLUGINS lists, None where it is not set: all."""
    chosen = os.environ.get("INSIGHTV_PLUGINS")
    return None if chosen is None else {part.strip() for part in chosen.split(",")} - {""}


def load_registry() -> Registry:
    """A registry of the built-in parts and of the installed plugins that INSIGHTV_PLUGINS allows."""
    from insightv.config import builtin

    registry = Registry()
    registry.add(builtin, PluginSource("builtin", "insightv", __version__))
    chosen = _chosen()
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    for name in sorted((chosen or set()) - {point.name for point in points}):
        reason = "it is in the list of INSIGHTV_PLUGINS, but no installed distribution has a plugin of this name"
        registry.failures.append(Failure(PluginSource(name, "unknown", "unknown"), reason))
    for point in points:
        if chosen is not None and point.name not in chosen:
            registry.left_out.append(point.name)
            continue
        dist = point.dist
        source = PluginSource(point.name, dist.name if dist else "unknown", dist.version if dist else "unknown")
        with _named_when_slow(source):
            _load(registry, point, source)
    return registry


def _load(registry: Registry, point: EntryPoint, source: PluginSource) -> None:
    try:
        with boundary(PluginError, passes=()):
            plugin: Any = point.load()
    except PluginError as error:
        registry.failures.append(Failure(source, str(error)))
    else:
        registry.add(plugin, source)


@contextmanager
def _named_when_slow(source: PluginSource) -> Iterator[None]:
    """Say which plugin is waited for where its import takes long; it may never end, and cannot be left."""
    text = "%s has been loading for %g s; wait, or leave it out: INSIGHTV_PLUGINS is the list of the plugins to load"
    timer = threading.Timer(SLOW_S, log.warning, [text, source, SLOW_S])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@cache
def default_registry() -> Registry:
    """The installed plugins, loaded once per process."""
    return load_registry()
