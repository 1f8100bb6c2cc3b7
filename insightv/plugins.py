"""Plugins: hook specifications, loading, and names -> factories.

A plugin is a module with hook implementations, named by an entry point of the group `insightv`:

    from insightv import hookimpl

    @hookimpl
    def register_scorers(register):
        register("brevity", Brevity)

A factory is a callable, or the place of one as "package.module:attribute", which is imported on use. Built-in parts
are registered the same way, and each plugin is loaded on its own. Plugins run with all rights of the process; install
only what you trust.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Literal, get_args

import pluggy

from insightv.errors import MissingExtra, PluginError, did_you_mean
from insightv.plugin_guard import boundary

__all__ = ["Entry", "Factory", "Failure", "Hooks", "Kind", "PluginSource", "Register", "Registry", "hookimpl"]

GROUP = "insightv"
hookspec: pluggy.HookspecMarker = pluggy.HookspecMarker(GROUP)
hookimpl: pluggy.HookimplMarker = pluggy.HookimplMarker(GROUP)

log: logging.Logger = logging.getLogger("insightv")

Kind = Literal["backend", "generator", "scorer", "agent", "trainer"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Factory = Callable[..., object]
Register = Callable[[str, "Factory | str"], None]


class Hooks:
    """What a plugin may implement; each hook is given `register(name, factory)`."""

    @hookspec
    def register_backends(self, register: Register) -> None:
        """`factory(model, **options) -> ChatModel`, where `model` is the part after `name/`."""

    @hookspec
    def register_generators(self, register: Register) -> None:
        """`factory(model, **options) -> Generator`."""

    @hookspec
    def register_scorers(self, register: Register) -> None:
        """`factory(**options) -> Scorer`; `model` is among the options where the table names one."""

    @hookspec
    def register_agents(self, register: Register) -> None:
        """`factory(model, **options) -> ReasoningAgent or SummaryAgent`."""

    @hookspec
    def register_trainers(self, register: Register) -> None:
        """`factory(**options) -> PreferenceTrainer`."""


@dataclass(frozen=True)
class PluginSource:
    """Where a plugin comes from."""

    plugin: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"plugin {self.plugin!r} of {self.distribution} {self.version}"


@dataclass(frozen=True)
class Entry:
    """One registered name."""

    kind: Kind
    name: str
    factory: Factory | str
    source: PluginSource


@dataclass(frozen=True)
class Failure:
    """A plugin that could not be loaded or registered, and why."""

    source: PluginSource
    reason: str


class Registry:
    """All names of all plugins, by kind. `default_registry()` holds those that are installed."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.left_out: list[str] = []
        self._entries: dict[tuple[Kind, str], list[Entry]] = {}
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(Hooks)

    def add(self, plugin: ModuleType | object, source: PluginSource) -> None:
        """Register a plugin's hooks and collect its names; what goes wrong becomes a `Failure`."""
        name = f"{source.distribution}:{source.plugin}"
        try:
            with boundary(PluginError, passes=()):
                self._manager.register(plugin, name=name)
                self._manager.check_pending()
                if not self._manager.get_hookcallers(plugin):
                    hooks = ", ".join(f"register_{kind}s" for kind in KINDS)
                    raise PluginError(f"it implements no hook; mark at least one of {hooks} with @insightv.hookimpl")
                for kind in KINDS:
                    self._collect(kind, plugin, source)
        except PluginError as error:
            if self._manager.get_plugin(name) is plugin:
                self._manager.unregister(name=name)
            self._forget(source)
            self.failures.append(Failure(source, str(error)))

    def _collect(self, kind: Kind, plugin: object, source: PluginSource) -> None:
        def register(name: str, factory: Factory | str) -> None:
            if not isinstance(name, str) or not name or not (callable(factory) or isinstance(factory, str)):
                raise TypeError(f"register(name, factory) got {name!r}, {_shown(factory)}; give a name and a callable")
            self._entries.setdefault((kind, name), []).append(Entry(kind, name, factory, source))

        others = [other for other in self._manager.get_plugins() if other is not plugin]
        caller = self._manager.subset_hook_caller(f"register_{kind}s", remove_plugins=others)
        caller(register=register)

    def _forget(self, source: PluginSource) -> None:
        for key, entries in list(self._entries.items()):
            kept = [entry for entry in entries if entry.source != source]
            if kept:
                self._entries[key] = kept
            else:
                del self._entries[key]

    def entries(self) -> Iterator[Entry]:
        """Every registered name, clashing ones too, by kind and name."""
        for key in sorted(self._entries):
            yield from self._entries[key]

    def has(self, kind: Kind, name: str) -> bool:
        """Whether the name is registered, be it by several plugins."""
        return (kind, name) in self._entries

    def find(self, kind: Kind, name: str) -> Entry:
        """The entry of a name.

        Raises:
            PluginError: unknown (lists what there is), or registered by more than one plugin (names them).
        """
        entries = self._entries.get((kind, name), [])
        if len(entries) == 1:
            return entries[0]
        if entries:
            owners = " and ".join(str(entry.source) for entry in entries)
            raise PluginError(
                f"the {kind} name {name!r} is registered by {owners}; uninstall one, "
                "or leave one out by setting INSIGHTV_PLUGINS to a list of the plugins to load"
            )
        known = sorted(known for k, known in self._entries if k == kind)
        near = did_you_mean(name, known)
        hint = f"; {near}" if near else ""
        broken = "".join(f"; {failure.source} did not load: {failure.reason}" for failure in self.failures)
        if self.failures:
            broken += "; mend, upgrade or uninstall it, or leave it out by INSIGHTV_PLUGINS"
        if self.left_out:
            broken += f"; INSIGHTV_PLUGINS leaves out {', '.join(self.left_out)}"
        raise PluginError(f"there is no {kind} {name!r}{hint} (known: {', '.join(known) or 'none'}){broken}")

    def factory(self, kind: Kind, name: str) -> tuple[Entry, Factory]:
        """The factory of a name, imported if it was given by its place.

        Raises:
            PluginError: unknown name, clash, or the place cannot be imported.
        """
        entry = self.find(kind, name)
        if not isinstance(entry.factory, str):
            return entry, entry.factory

        def failed(said: str) -> PluginError:
            return PluginError(f"{kind} {name!r} ({entry.source}) cannot be imported: {said}")

        with boundary(failed, passes=(MissingExtra,)):
            loaded = EntryPoint(name, entry.factory, GROUP).load()
        if not callable(loaded):
            raise PluginError(f"{kind} {name!r} ({entry.source}): {entry.factory} is not callable")
        return entry, loaded


def _shown(value: object) -> str:
    """A value for a text; of an object only its kind, as its address says nothing."""
    return (
        repr(value) if value is None or isinstance(value, str | int | float) else f"an object of {type(value).__name__}"
    )
