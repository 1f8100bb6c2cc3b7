"""Settings -> models and roles, through the plugin registry.

Everything here happens before anything is paid for: unknown names, unknown options and missing keys end here.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Generic, TypeVar

from insightv.config import BACKEND_KEYS, OBJECT, RoleTable, ScorerTable, Settings
from insightv.errors import ConfigError, InsightvError, PluginError
from insightv.interfaces import ChatModel, Generator, PreferenceTrainer, ReasoningAgent, Scorer, SummaryAgent
from insightv.plugins import Factory, Kind, Registry, Source
from insightv.recipes import check_train
from insightv.strangers import described, unfit

T = TypeVar("T")
Wrap = Callable[[ChatModel, float | None], ChatModel]
"""Puts a model into the journal; the number is the deadline in seconds of a backend that does not keep its own."""


@dataclass(frozen=True)
class Part(Generic[T]):
    """A role that has been built, and where it came from; `deadline_s` bounds a call of a plugin's part.

    `backend` is where the backend of its model came from, if it has one.
    """

    role: T
    source: Source | None
    deadline_s: float | None = None
    backend: Source | None = None


@dataclass(frozen=True)
class Assembly(Generic[T]):
    """A role put together from parts of the workshop that it is given; so its models are those of the run's journal.

    `name` says in the run's settings what it is.
    """

    name: str
    make: Callable[[Workshop], T]


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
    name = role.name if isinstance(role, Assembly) else f"{type(role).__module__}.{type(role).__qualname__}"
    return {"use": f"{OBJECT}{name}"}


@dataclass(frozen=True)
class Recipe:
    """How a model is made: its backend's factory and options. It can be pickled, and so followed by another process.

    `deadline_s` bounds a call; None where the backend does so itself, by its option of that name.
    """

    name: str
    what: str
    factory: Factory
    options: Mapping[str, Any]
    source: Source
    deadline_s: float | None = None

    def make(self) -> ChatModel:
        """The model.

        Raises:
            ConfigError, MissingExtra, PluginError: it cannot be made.
        """
        model = _built(self.factory, self.options, self.what, self.source, ChatModel)
        model.name = model.name or self.name
        return model

    @property
    def variables(self) -> set[str]:
        """The environment variables that the options, or the factory's defaults, name (those that end in `_env`)."""
        values = {**(_parameters(self.factory) or {}), **self.options}
        return {value for name, value in values.items() if name.endswith("_env") and isinstance(value, str)}


Place = Callable[[Recipe], ChatModel]
"""Where a model is held: by `Recipe.make` here, else by whoever makes it elsewhere and answers for it."""


class Workshop:
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
        place: Place = Recipe.make,
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
            known = _parameters(factory)
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
            limit = None if own_deadline else deadline_s
            recipe = Recipe(name, f"backend {provider!r}", factory, given, entry.source, limit)
            here = options.get("mode") == "batch" or self._place is Recipe.make or self._asks_a_server(known)
            model = recipe.make() if here else self._place(recipe)
            # Whoever holds a model elsewhere bounds its calls there: waiting for a worker is no fault of a call.
            self._models[key] = self._wrap(model, limit if here else None)
        return self._models[key]

    def _asks_a_server(self, known: Collection[str] | None) -> bool:
        """Whether a model needs no process of its own: workers of this machine would each keep to its limits apart."""
        return self._settings.run.engine == "process" and bool({"base_url", "connections"} & set(known or ()))

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
        return _built(factory, options, f"trainer {name!r}", entry.source, PreferenceTrainer)

    def check(self) -> None:
        """Build every role, to see that it can be built."""
        self.generator()
        for table in self._settings.scorers:
            self.scorer(table)
        self.reasoning_agent()
        self.summary_agent()
        check_train(self._settings)

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
                _check_table(kind, table, _parameters(factory))

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
        _check_options(f"backend {provider!r}", options, _parameters(factory))

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
        options, known = table.options, _parameters(factory)
        # Before the model is made: a misspelt base_url must not end in an error about the model.
        _check_table(kind, table, known)
        backend = None
        if table.model is not None:
            options["model"] = self.model(table.model, table.backend_options)
            backend = self._registry.find("backend", table.model.partition("/")[0]).source
        elif known is not None and known.get("model") is inspect.Parameter.empty:
            place = "its model, or that of [generator]" if kind == "agent" else "its model"
            raise ConfigError(f'{kind} {table.use!r} needs a model; set {place}: model = "provider/NAME"')
        if known is not None and "seed" in known and kind == "scorer":
            options.setdefault("seed", self._settings.seed)
        built = _built(factory, options, f"{kind} {table.use!r}", entry.source, role)
        foreign = entry.source.distribution != "insightv"
        return Part(built, entry.source, self._settings.run.deadline_s if foreign else None, backend)


def agent_table(settings: Settings, table: RoleTable) -> RoleTable:
    """An agent's table with the model that it uses: the generator's where it names none, asked as it says itself."""
    if table.model is not None:
        return table
    inherited = {name: getattr(settings.generator, name) for name in ("model", *BACKEND_KEYS) if name != "mode"}
    own = {name: value for name in inherited if (value := getattr(table, name)) not in (None, {})}
    return table.model_copy(update=inherited | own)


def _parameters(factory: Factory) -> dict[str, object] | None:
    """A factory's keyword parameters and their defaults, None if it takes any."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some callables of C have no signature
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {each.name: each.default for each in parameters if each.kind is not each.VAR_POSITIONAL}


def _check_table(kind: Kind, table: RoleTable, known: Collection[str] | None) -> None:
    """Refuse an option of a role's table that its factory does not take.

    Raises:
        ConfigError: it names the nearest one, or the missing model.
    """
    what = f"{kind} {table.use!r}"
    for name in BACKEND_KEYS if known is not None and table.model is None else ():
        if name in table.options and name not in (known or ()):
            raise ConfigError(f"{what} has {name}, which is for its model, and no model; set its model (provider/NAME)")
    _check_options(what, table.options, known, type(table).model_fields)


def _check_options(
    what: str, options: Mapping[str, Any], known: Collection[str] | None, others: Collection[str] = ()
) -> None:
    """Refuse an option that a factory does not take; `others` are keys that its table may have too.

    Raises:
        ConfigError: it names the nearest one.
    """
    unknown = [] if known is None else [name for name in options if name not in known]
    if known is not None and unknown:
        names = sorted({*known, *others})
        near = get_close_matches(unknown[0], names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
        raise ConfigError(f"{what} has no option {unknown[0]!r}; {hint}")


def _built(factory: Factory, options: Mapping[str, Any], what: str, source: Source, role: type[T]) -> T:
    _check_options(what, options, _parameters(factory))
    try:
        built = factory(**options)
    except InsightvError:
        raise
    # A factory may be a stranger's; whatever it raises is about this part and its options.
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{what} ({source}) could not be made: {type(error).__name__}: {error}") from error
    if not isinstance(built, role):
        raise PluginError(f"{what} ({source}) made a {type(built).__name__}, which is not a {role.__name__}")
    if fault := unfit(built, role):
        raise PluginError(f"{what} ({source}): {fault}")
    return built
