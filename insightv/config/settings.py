"""insightv.toml -> checked settings. Knows which sections and keys there are; knows no model and no plugin.

Tables of roles (`[generator]`, `[[scorers]]`, `[reasoning_agent]`, `[summary_agent]`) hold a few keys of our own and
otherwise the options of the role's factory, which are checked against its signature when it is built.
"""

from __future__ import annotations

import logging
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from insightv.config.sections import (
    Bands,
    DatasetSection,
    ImageSection,
    QuestionSection,
    RunSection,
    Section,
    ServeSection,
    TrainSection,
)
from insightv.config.values import refuse_secrets, refuse_unwritable
from insightv.errors import ConfigError, did_you_mean
from insightv.inputs.plain_file import read_plain

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

log = logging.getLogger("insightv")

BACKEND_KEYS = (
    *("base_url", "api_key_env", "structured", "profile", "omit", "rename", "system"),
    *("mode", "backend"),
)
"""Keys of a role's table that are for the backend of its model."""

OBJECT = "object:"
"""Begins the `use` of a role that was given as an object; the name of its class follows."""


NULL = "null"
"""What stands for null in the `extra` of a table."""


def _replaced(value: Any, old: str | None, new: str | None) -> Any:
    """A value with another one in place of `old`, however deep."""
    if isinstance(value, Mapping):
        return {name: _replaced(each, old, new) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(each, old, new) for each in value]
    return new if value == old else value


class RoleTable(BaseModel):
    """A role by name: `use` the part, `model` as provider/model, and options.

    `profile`, `omit`, `rename` and `system` fit what is sent to the model's server. `mode` says how calls go out: each
    on its own, or together as jobs of a Batch API. `backend` holds options of the model's backend beyond these.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow")

    use: str = ""
    model: str | None = None
    base_url: str | tuple[str, ...] | None = None
    api_key_env: str | None = None
    structured: Literal["schema", "json", "prompt"] | None = None
    profile: str | None = None
    omit: tuple[str, ...] | None = None
    rename: dict[str, str] | None = None
    system: Literal["system", "developer", "user"] | None = None
    mode: Literal["chat", "batch"] | None = None
    backend: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _nulls_by_name(cls, table: Any) -> Any:
        """TOML has no null: in `extra` the text "null" stands for it, and for None of Python."""
        if isinstance(table, Mapping) and isinstance(table.get("extra"), Mapping):
            return {**table, "extra": _replaced(table["extra"], None, NULL)}
        return table

    @property
    def options(self) -> dict[str, Any]:
        """The options of the role's factory; without a model, those that a backend would be given are its own too."""
        own = dict(self.model_extra or {})
        if "extra" in own:
            own["extra"] = _replaced(own["extra"], NULL, None)
        return own | ({} if self.model is not None else self._of_backend)

    @property
    def backend_options(self) -> dict[str, Any]:
        """The options of the model's backend."""
        return {name: value for name, value in self._of_backend.items() if name != "backend"} | self.backend

    @property
    def _of_backend(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in BACKEND_KEYS}
        return {name: value for name, value in own.items() if value not in (None, {})}


class GeneratorTable(RoleTable):
    """`[generator]`: the writer of paths; `paths` per question (the paper's N, not published: 8)."""

    use: str = "progressive"
    paths: int = Field(default=8, ge=1, le=1000)


class ScorerTable(RoleTable):
    """One `[[scorers]]` table; scorers run in order."""

    use: str


class ReasoningTable(RoleTable):
    """`[reasoning_agent]`; without a model it uses the generator's."""

    use: str = "thoughts"


class SummaryTable(RoleTable):
    """`[summary_agent]`; without a model it uses the generator's."""

    use: str = "summary"


class Settings(Section):
    """All settings of a run."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    generator: GeneratorTable = GeneratorTable()
    scorers: tuple[ScorerTable, ...] = (ScorerTable(use="answer"),)
    reasoning_agent: ReasoningTable = ReasoningTable()
    summary_agent: SummaryTable = SummaryTable()
    bands: Bands = Bands()
    run: RunSection = RunSection()
    images: ImageSection = ImageSection()
    questions: QuestionSection = QuestionSection()
    datasets: DatasetSection = DatasetSection()
    serve: ServeSection = ServeSection()
    train: TrainSection = TrainSection()


def load_settings(path: str | Path | None = None, changes: Iterable[str] = ()) -> Settings:
    """Settings from a TOML file (or the defaults), with `section.key=value` changes on top.

    Raises:
        ConfigError: not readable, not TOML, an unknown key (with the nearest name), a value of the wrong type or out
            of range, or a secret written into the file.
    """
    source = str(path) if path is not None else "the settings"
    table: dict[str, Any] = {}
    if path is not None:
        try:
            table = tomllib.loads(read_plain(path).decode())
        except OSError as error:
            raise ConfigError(f"cannot read the configuration {source!r}: {error.strerror or error}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:  # brackets, thousands deep
            raise ConfigError(f"{source}: not valid TOML: {error}") from error
    for change in changes:
        _apply(table, change)
    return check_settings(table, source)


_RENAMED = {
    ("run", "engine"): "executor",
    ("train", "engine"): "backend",
    ("train", "engine_options"): "backend_options",
}
"""Keys of release 0.1.0 and their names of today, by section."""


def _as_named_now(table: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """The table with the keys that were renamed under their names of today; each is said once.

    Raises:
        ConfigError: a key stands there under both names.
    """
    for (section, old), new in _RENAMED.items():
        keys = table.get(section)
        if not isinstance(keys, Mapping) or old not in keys:
            continue
        if new in keys:
            raise ConfigError(f"{source}: {section}.{old} is {section}.{new} now, and both are set; remove {old}")
        log.warning("%s: %s.%s is called %s.%s now; rename it", source, section, old, section, new)
        table = {**table, section: {**{k: v for k, v in keys.items() if k != old}, new: keys[old]}}
    return table


def check_settings(table: Mapping[str, Any], source: str = "the settings") -> Settings:
    """Settings from a mapping; raises ConfigError as `load_settings`."""
    table = _as_named_now(table, source)
    refuse_secrets(table)
    try:
        settings = Settings.model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "\n  ".join(_explain(fault) for fault in error.errors())) from error
    refuse_unwritable(table)
    return settings


def _explain(fault: ErrorDetails) -> str:
    loc, value = fault["loc"], str(fault["input"])[:80]
    where = ".".join(str(part) for part in loc) or "settings"
    if fault["type"] != "extra_forbidden":
        expected = re.findall("'([^']*)'", fault["msg"]) if fault["type"] == "literal_error" else []
        near = did_you_mean(value, expected)
        hint = f"; {near}" if near else ""
        if fault["type"] == "tuple_type":
            cure = f"begin each table with [[{where}]]" if isinstance(fault["input"], Mapping) else "put it into [ ]"
            return f"{where} = {value!r}: a list is needed; {cure}"
        return f"{where} = {value!r}: {fault['msg'].removeprefix('Value error, ')}{hint}"
    known = _keys_at(loc[:-1])
    hint = did_you_mean(str(loc[-1]), known, f"known keys: {', '.join(sorted(known))}")
    return f"unknown key {where!r}; {hint}"


def _keys_at(loc: tuple[int | str, ...]) -> list[str]:
    model: Any = Settings
    for part in loc:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            continue
        args = [arg for arg in getattr(field.annotation, "__args__", ()) if hasattr(arg, "model_fields")]
        model = args[-1] if args else field.annotation
    return list(getattr(model, "model_fields", {}))


def _apply(table: dict[str, Any], change: str) -> None:
    key, equals, raw = change.partition("=")
    names = _names(key.strip())
    if not equals or not all(names):
        raise ConfigError(f"--set {change!r} is not of the form section.key=value")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = raw
    default = Settings.model_fields[names[0]].default if names[0] in Settings.model_fields else None
    if len(names) > 1 and isinstance(default, tuple):  # a list: its places are those of the default, if none is given
        table.setdefault(names[0], [one.model_dump(exclude_unset=True) for one in default])
    here: Any = table
    for name in names[:-1]:
        here = here[_index(here, name, change)] if isinstance(here, list) else here.setdefault(name, {})
        if not isinstance(here, (dict, list)):
            raise ConfigError(f"--set {change!r}: {name!r} is a value, not a section")
    if isinstance(here, list):
        here[_index(here, names[-1], change)] = value
    else:
        here[names[-1]] = value


def key_parts(change: str) -> list[str]:
    """The parts of the key that a `section.key=value` text sets, or of a key by itself."""
    return _names(change.partition("=")[0].strip())


def _names(key: str) -> list[str]:
    """The parts of a key with dots, written as in TOML: run.prices."openai/qwen2.5".prompt."""
    try:
        inner: Any = tomllib.loads(f"{key} = 0")
    except (tomllib.TOMLDecodeError, RecursionError):
        return key.split(".")
    names = []
    while isinstance(inner, dict):
        if len(inner) != 1:  # several lines, with tables of their own
            return [key]
        [(name, inner)] = inner.items()
        names.append(name)
    return names


def _index(items: list[Any], name: str, change: str) -> int:
    if not name.isdecimal() or int(name) >= len(items):
        raise ConfigError(f"--set {change!r}: {name!r} is not one of the positions 0..{len(items) - 1} of a list")
    return int(name)
