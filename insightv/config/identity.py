"""What of a role makes up a run's identity: all that changes results, and nothing that says only where a model is."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from insightv.config.roles import Part
from insightv.config.settings import RoleTable
from insightv.errors import ConfigError
from insightv.interfaces import MADE_WITH, ChatModel, Generator, ReasoningAgent, Scorer, SummaryAgent
from insightv.plugin_guard import described, named

_FREE_KEYS = {"base_url", "api_key_env", "backend", "mode"}
"""Keys of a role's table that say where a model is reached, not what it answers."""
_FREE_OPTIONS = {
    *("deadline_s", "connections", "max_reply_bytes", "gather_s", "poll_s", "proxy"),
    *("program", "arguments", "environment", "start_s", "restarts", "log_folder"),
    *("device", "batch", "threads", "cache_gb"),
}
"""Options of our own backends that say how a model is run and reached; others (a revision, a dtype) may change replies.

Options of a plugin's backend all count, whatever their names: only its author knows what they change.
"""
_CURE = "give the class a property `identity` that returns what changes its results, as plain values"
_ROLES = (Generator, Scorer, ReasoningAgent, SummaryAgent)


def table_identity(table: RoleTable) -> dict[str, Any]:
    """A role's table, as JSON has it, without the keys that say only where its model is reached."""
    return {k: v for k, v in table.model_dump(mode="json", exclude_none=True).items() if k not in _FREE_KEYS}


def role_identity(part: Part[Any], table: RoleTable, given: object = None) -> dict[str, Any]:
    """What of a role changes results: its options, its prompts' hashes, and a plugin's distribution and version.

    `given` is the role as it was given, where that was an object.

    Raises:
        ConfigError: as `object_identity`.
    """
    role = part.role
    identity = table_identity(table)
    if isinstance(given, _ROLES):
        identity["object"] = object_identity(given)
    own = part.backend is not None and part.backend.distribution == "insightv"
    if options := {k: v for k, v in table.backend.items() if not own or k not in _FREE_OPTIONS}:
        identity["backend"] = options
    prompts = getattr(role, "prompts", None)
    if isinstance(prompts, Mapping):
        identity["prompts"] = {
            name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(prompts.items())
        }
    for name, source in (("plugin", part.source), ("backend_plugin", part.backend)):
        if source is not None and source.distribution != "insightv":
            identity[name] = f"{source.distribution} {source.version}"
    return identity


def object_identity(part: object) -> Any:
    """What an object says of itself by `identity`, else the arguments that it was made with, as plain values.

    Raises:
        ConfigError: an argument is no plain value, model or part, and the class has no `identity`.
    """
    if (said := getattr(part, "identity", None)) is not None and not callable(said):
        return said
    return {name: _plain(value, f"{type(part).__name__}.{name}") for name, value in _options(part).items()}


def _options(part: object) -> dict[str, Any]:
    """The fields of a record; of another object, the arguments of its constructor."""
    if is_dataclass(part):
        return {field.name: getattr(part, field.name) for field in fields(part) if field.init}
    if isinstance(part, BaseModel):
        return {name: getattr(part, name) for name in type(part).model_fields}
    found: dict[str, Any] | None = getattr(part, MADE_WITH, None)
    if found is None and type(part).__init__ is not object.__init__:  # that of a class which is no part
        raise ConfigError(f"what {described(part)} was made with is not known; {_CURE}")
    return found or {}


def _plain(value: Any, place: str) -> Any:
    """A value as JSON has it; `place` names it in errors."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, ChatModel):
        return _model_identity(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each, f"{place}[{key!r}]") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, place) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, _ROLES) or is_dataclass(value) or isinstance(value, BaseModel) or hasattr(value, "identity"):
        return {"class": named(type(value)), "options": object_identity(value)}
    if hasattr(value, "__qualname__"):
        return named(value)
    raise ConfigError(f"{place} is {described(value)}, by which a resumed run cannot be compared; {_CURE}")


def _model_identity(model: ChatModel) -> dict[str, Any]:
    """A model's name, and those of its options that are plain; how our own backends run and reach it does not count."""
    own = type(model).__module__.partition(".")[0] == "insightv"
    free = _FREE_KEYS | (_FREE_OPTIONS if own else set())
    options: dict[str, Any] = {}
    for name, value in _options(model).items():
        if name not in free and (_is_plain(value) or inspect.isfunction(value)):
            options[name] = _plain(value, name)
    return {"model": model.name or named(type(model)), "options": options}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return isinstance(value, list | tuple) and all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | bytes | Path)
