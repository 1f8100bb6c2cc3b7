"""Settings -> models and roles, through the plugin registry.

Everything here happens before anything is paid for: unknown names, unknown options and missing keys end here.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from insightv.config.factories import ModelSpec, built_by, check_options, check_table, parameters_of
from insightv.config.settings import BACKEND_KEYS, OBJECT, RoleTable, ScorerTable, Settings, check_settings
from insightv.errors import ConfigError, PluginError
from insightv.interfaces import ChatModel, Generator, PreferenceTrainer, ReasoningAgent, Scorer, SummaryAgent
from insightv.plugin_guard import described, named, unfit
from insightv.plugins import Kind, PluginSource, Registry

T = TypeVar("T")
Wrap = Callable[[ChatModel, float | None], ChatModel]
"""Puts a model into the journal; the number is the deadline in seconds of a backend that does not keep its own."""


@dataclass(frozen=True)
class Part(Generic[T]):
    """A role that has been built, and where it came from; `deadline_s` bounds a call of a plugin's part.

    `backend` is where the backend of its model came from, if it has one.
    """

    role: T
    source: PluginSource | None
    deadline_s: float | None = None
    backend: PluginSource | None = None


@dataclass(frozen=True)
class Assembly(Generic[T]):
    """A role put together from parts of the workshop that it is given; so its models are those of the run's journal.

    `name` says in the run's settings what it is.
    """

    name: str
    make: Callable[[RoleFactory], T]


_ROLES: dict[str, type] = {
    "generator": Generator,
    "scorers": Scorer,
    "reasoning_agent": ReasoningAgent,
    "summary_agent": SummaryAgent,
    "trainer": PreferenceTrainer,
}


def given_table(place: str, role: object, objects: dict[str, object], registry: Registry) -> dict[str, Any]:
    """The table of a role that was given in Python; an object is put into `objects`, by its place in the settings.

    A text is the name of a part, or, for a generator or agent, that of a model (`provider/model`).

    Raises:
        ConfigError: it is neither an object of the role, nor a name, nor a table.
    """
    if isinstance(role, str):
        kind: Kind = "generator" if place == "generator" else "agent"
        asked = place in ("generator", "reasoning_agent", "summary_agent") and not registry.has(kind, role)
        return {"model": role} if asked and registry.has("backend", role.partition("/")[0]) else {"use": role}
    if isinstance(role, Mapping):
        return dict(role)
    wanted = _ROLES[place.partition(".")[0]]
    if not isinstance(role, wanted | Assembly):
        known = f"a {wanted.__name__}, the name of a registered one, or a table with `use` and its options"
        raise ConfigError(f"{place} is {described(role)}; give {known}")
    if isinstance(role, wanted) and (fault := unfit(role, wanted)):
        raise ConfigError(f"{place}: {fault}")
    objects[place] = role
    name = role.name if isinstance(role, Assembly) else named(type(role))
    return {"use": f"{OBJECT}{name}"}


def given_tables(
    settings: Settings | Mapping[str, Any] | None,
    roles: Mapping[str, Any],
    objects: dict[str, object],
    registry: Registry,
) -> dict[str, Any]:
    """The settings as a table, with those roles on top that were given in Python (None: not given).

    Raises:
        ConfigError: the settings are wrong, or a role is none (see `given_table`).
    """
    given = check_settings(settings) if isinstance(settings, Mapping) else settings or Settings()
    table = given.model_dump(exclude_unset=True)
    for name in ("generator", "reasoning_agent", "summary_agent"):
        if roles[name] is not None:
            table[name] = table.get(name, {}) | given_table(name, roles[name], objects, registry)
    scorers, trainer = roles["scorers"], roles["trainer"]
    if isinstance(scorers, Scorer | str | Mapping):
        raise ConfigError("scorers is one scorer; give a list of them, in the order in which they judge")
    if scorers is not None:
        places = [(f"scorers.{i}", scorer) for i, scorer in enumerate(scorers)]
        table["scorers"] = [given_table(*one, objects, registry) for one in places]
    if trainer is not None:
        chosen = given_table("trainer", trainer, objects, registry)
        own = {"trainer": chosen.pop("use", "dpo")} | ({"preference": chosen} if chosen else {})
        table["train"] = table.get("train", {}) | own
    return table


Place = Callable[[ModelSpec], ChatModel]
"""Where a model is held: by `ModelSpec.make` here, else by whoever makes it elsewhere and answers for it."""


class RoleFactory:
    """Builds roles for one run. `wrap` is applied to each model before a role gets it.

    `folder` is the run's, for backends that keep a log of their own (those that take `log_folder`). `place` says where
    models are held. Those that send jobs are held here, where the run keeps what is out; so are those that ask servers,
    where the others are held by processes of this machine.
    """

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        wrap: Wrap = lambda model, _: model,
        folder: Path | None = None,
        place: Place = ModelSpec.make,
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._wrap = wrap
        self._folder = folder
        self._place = place
        self._models: dict[str, ChatModel] = {}

    @property
    def models(self) -> list[ChatModel]:
        """Every model built so far; whoever built the workshop closes them."""
        return list(self._models.values())

    def model(self, name: str, options: Mapping[str, Any]) -> ChatModel:
        """The model `provider/model`, built once for the same name and options.

        Raises:
            PluginError: unknown provider.
            ConfigError: unknown options.
        """
        key = json.dumps([name, dict(options)], sort_keys=True, default=str)
        if key not in self._models:
            provider, _, rest = name.partition("/")
            entry, factory = self._registry.factory("backend", provider)
            known = parameters_of(factory)
            if known is not None and "model" not in known:
                raise PluginError(
                    f"backend {provider!r} ({entry.source}) takes no `model`; its factory must, the part of the name "
                    "after the slash"
                )
            given = {"model": rest, **options}
            own_deadline = known is None or "deadline_s" in known
            deadline_s = self._settings.run.deadline_s
            if known is not None and "deadline_s" in known:
                given.setdefault("deadline_s", deadline_s)
            if known is not None and "log_folder" in known and self._folder is not None:
                given.setdefault("log_folder", str(self._folder))
            if known is not None and "proxy" in known and entry.source.distribution == "insightv":
                given.setdefault("proxy", self._settings.run.proxy)  # what a plugin's `proxy` is only its author knows
            limit = None if own_deadline else deadline_s
            spec = ModelSpec(name, f"backend {provider!r}", factory, given, entry.source, limit)
            here = options.get("mode") == "batch" or self._place is ModelSpec.make or self._asks_a_server(known)
            model = spec.make() if here else self._place(spec)
            # Whoever holds a model elsewhere bounds its calls there: waiting for a worker is no fault of a call.
            self._models[key] = self._wrap(model, limit if here else None)
        return self._models[key]

    def _asks_a_server(self, known: Collection[str] | None) -> bool:
        """Whether a model needs no process of its own: workers of this machine would each keep to its limits apart."""
        return self._settings.run.executor == "process" and bool({"base_url", "connections"} & set(known or ()))

    def generator(self) -> Part[Generator]:
        """The `[generator]` of the settings."""
        table = self._settings.generator
        if table.model is None and table.use == "progressive":
            raise ConfigError(
                'generator.model is not set; set for example: [generator] model = "openai/NAME" with base_url, '
                'or model = "tiny" for the embedded model'
            )
        return self._role("generator", table, Generator)

    def scorer(self, table: ScorerTable) -> Part[Scorer]:
        """One of the `[[scorers]]` of the settings."""
        return self._role("scorer", table, Scorer)

    def reasoning_agent(self) -> ReasoningAgent:
        """The `[reasoning_agent]`; its model is the generator's where it names none."""
        return self.agent(self._settings.reasoning_agent, ReasoningAgent)

    def summary_agent(self) -> SummaryAgent:
        """The `[summary_agent]`; its model is the generator's where it names none."""
        return self.agent(self._settings.summary_agent, SummaryAgent)

    def trainer(self, name: str, options: Mapping[str, Any]) -> PreferenceTrainer:
        """The registered trainer `name` with these options.

        Raises:
            PluginError, ConfigError: there is none, or it cannot be made.
        """
        entry, factory = self._registry.factory("trainer", name)
        return built_by(factory, options, f"trainer {name!r}", entry.source, PreferenceTrainer)

    def check(self) -> None:
        """Build every role, to see that it can be built."""
        self.generator()
        for table in self._settings.scorers:
            self.scorer(table)
        self.reasoning_agent()
        self.summary_agent()

    def check_options(self) -> None:
        """See that no table of a role has an option that its part does not take; nothing is made.

        A part that is not there is left to whoever needs it.

        Raises:
            ConfigError: an option is unknown, with the nearest name.
        """
        settings = self._settings
        tables: list[tuple[Kind, RoleTable]] = [("generator", settings.generator)]
        tables += [("scorer", table) for table in settings.scorers]
        agents = (settings.reasoning_agent, settings.summary_agent)
        tables += [("agent", agent_table(settings, table)) for table in agents]
        for kind, table in tables:
            if self._registry.has(kind, table.use):
                _, factory = self._registry.factory(kind, table.use)
                check_table(kind, table, parameters_of(factory))

    def check_agents(self) -> None:
        """See that both agents are there; no model is made.

        Raises:
            PluginError: there is no such agent.
        """
        for table in (self._settings.reasoning_agent, self._settings.summary_agent):
            if not table.use.startswith(OBJECT):
                self._registry.factory("agent", table.use)

    def check_backend(self, provider: str, options: Mapping[str, Any]) -> None:
        """See that there is such a backend, and that it takes these options.

        Raises:
            ConfigError, PluginError: as `check_agents`.
        """
        _, factory = self._registry.factory("backend", provider)
        check_options(f"backend {provider!r}", options, parameters_of(factory))

    def agent(self, table: RoleTable, role: type[T]) -> T:
        """The agent of a table; its model is the generator's where it names none."""
        return self._role("agent", agent_table(self._settings, table), role).role

    def _role(self, kind: Kind, table: RoleTable, role: type[T]) -> Part[T]:
        if table.use.startswith(OBJECT):
            name = table.use.removeprefix(OBJECT)
            raise ConfigError(
                f"the {role.__name__} of this run was an object of {name}; give such objects again (to Pipeline, or "
                "both agents to Reasoner), or name one in the settings"
            )
        entry, factory = self._registry.factory(kind, table.use)
        options, known = table.options, parameters_of(factory)
        # Before the model is made: a misspelt base_url must not end in an error about the model.
        check_table(kind, table, known)
        backend = None
        if table.model is not None:
            options["model"] = self.model(table.model, table.backend_options)
            backend = self._registry.find("backend", table.model.partition("/")[0]).source
        elif known is not None and known.get("model") is inspect.Parameter.empty:
            place = "its model, or that of [generator]" if kind == "agent" else "its model"
            raise ConfigError(f'{kind} {table.use!r} needs a model; set {place}: model = "provider/NAME"')
        if known is not None and "seed" in known and kind == "scorer":
            options.setdefault("seed", self._settings.seed)
        built = built_by(factory, options, f"{kind} {table.use!r}", entry.source, role)
        foreign = entry.source.distribution != "insightv"
        return Part(built, entry.source, self._settings.run.deadline_s if foreign else None, backend)


def agent_table(settings: Settings, table: RoleTable) -> RoleTable:
    """An agent's table with the model that it uses: the generator's where it names none, asked as it says itself."""
    return table if table.model is not None else inherited(settings.generator, table)


def inherited(generator: RoleTable, table: RoleTable) -> RoleTable:
    """An agent's table with the generator's model, and what the generator says of it beside what the agent says."""
    found = {name: getattr(generator, name) for name in ("model", *BACKEND_KEYS) if name != "mode"}
    own = {name: value for name in found if (value := getattr(table, name)) not in (None, {})}
    return table.model_copy(update=found | own)
