"""What the factories of the registry take, and the parts that they make: each option is checked before it is passed."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from insightv.config.settings import BACKEND_KEYS, RoleTable
from insightv.errors import ConfigError, InsightvError, PluginError, did_you_mean
from insightv.interfaces import ChatModel
from insightv.plugin_guard import boundary, unfit
from insightv.plugins import Factory, Kind, PluginSource

T = TypeVar("T")


@dataclass(frozen=True)
class ModelSpec:
    """How a model is made: its backend's factory and options. It can be pickled, and so followed by another process.

    `deadline_s` bounds a call; None where the backend does so itself, by its option of that name.
    """

    name: str
    what: str
    factory: Factory
    options: Mapping[str, Any]
    source: PluginSource
    deadline_s: float | None = None

    def make(self) -> ChatModel:
        """The model.

        Raises:
            ConfigError, MissingExtra, PluginError: it cannot be made.
        """
        model = built_by(self.factory, self.options, self.what, self.source, ChatModel)
        model.name = model.name or self.name
        return model

    @property
    def variables(self) -> set[str]:
        """The environment variables that the options, or the factory's defaults, name (those that end in `_env`)."""
        values = {**(parameters_of(self.factory) or {}), **self.options}
        return {value for name, value in values.items() if name.endswith("_env") and isinstance(value, str)}


def parameters_of(factory: Factory) -> dict[str, object] | None:
    """A factory's keyword parameters and their defaults, None if it takes any."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some callables of C have no signature
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {each.name: each.default for each in parameters if each.kind is not each.VAR_POSITIONAL}


def check_table(kind: Kind, table: RoleTable, known: Collection[str] | None) -> None:
    """Refuse an option of a role's table that its factory does not take.

    Raises:
        ConfigError: it names the nearest one, or the missing model.
    """
    what = f"{kind} {table.use!r}"
    for name in BACKEND_KEYS if known is not None and table.model is None else ():
        if name in table.options and name not in (known or ()):
            raise ConfigError(f"{what} has {name}, which is for its model, and no model; set its model (provider/NAME)")
    check_options(what, table.options, known, type(table).model_fields)


def check_options(
    what: str, options: Mapping[str, Any], known: Collection[str] | None, others: Collection[str] = ()
) -> None:
    """Refuse an option that a factory does not take; `others` are keys that its table may have too.

    Raises:
        ConfigError: it names the nearest one.
    """
    unknown = [] if known is None else [name for name in options if name not in known]
    if known is not None and unknown:
        names = sorted({*known, *others})
        hint = did_you_mean(unknown[0], names, f"known: {', '.join(names) or 'none'}")
        raise ConfigError(f"{what} has no option {unknown[0]!r}; {hint}")


def built_by(factory: Factory, options: Mapping[str, Any], what: str, source: PluginSource, role: type[T]) -> T:
    """What a factory makes of its options; `what` names it in errors.

    Raises:
        ConfigError: it does not take an option, or fails.
        PluginError: what it has made is not of the role, or lacks what the role asks of it.
    """
    check_options(what, options, parameters_of(factory))
    with boundary(lambda said: ConfigError(f"{what} ({source}) could not be made: {said}"), passes=(InsightvError,)):
        built = factory(**options)
    if not isinstance(built, role):
        raise PluginError(f"{what} ({source}) made a {type(built).__name__}, which is not a {role.__name__}")
    if fault := unfit(built, role):
        raise PluginError(f"{what} ({source}): {fault}")
    return built
