"""What of a run folder's settings starts programs, loads code, sends keys or opens hosts, and asking for consent to it.

Such values count where the user gave them: in a file of their own, on the command line, in Python. Where they only
stand in a run's folder, which somebody else may have made, they count after consent (see `insightv.config.consent`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from insightv.config import builtin
from insightv.config.consent import consented, keep_consent
from insightv.config.file import origin_of
from insightv.config.roles import inherited
from insightv.config.sections import ServeSection, TrainSection
from insightv.config.settings import BACKEND_KEYS, OBJECT, RoleTable, Settings, key_parts, load_settings
from insightv.errors import ConfigError

DEFAULT_KEY = "OPENAI_API_KEY"
"""The variable whose value a server is sent as the key where `api_key_env` names none."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PLAIN = {
    *(
        "structured",
        "profile",
        "omit",
        "rename",
        "system",
        "mode",
        "deadline_s",
        "connections",
        "max_reply_bytes",
        "gather_s",
        "poll_s",
    ),
    *("start_s", "restarts", "device", "dtype", "batch", "threads", "cache_gb", "revision"),
}
"""Options of our own backends by which nothing is started, sent or reached; all others are asked about."""
_OWN_ACCELERATE = ("fsdp2", "zero2", "zero3")
AGENTS = ("reasoning_agent", "summary_agent")


@dataclass(frozen=True)
class Ask:
    """A value that needs consent: its place in the settings, what it is, and what it would do."""

    place: str
    value: Any
    does: str

    def __str__(self) -> str:
        return f"{self.place} = {json.dumps(self.value, ensure_ascii=False, default=str)[:300]}   ({self.does})"

    @property
    def text(self) -> str:
        """All of it, for its digest."""
        return json.dumps([self.place, self.value, self.does], sort_keys=True, default=str)


def _names(register: Callable[..., None]) -> frozenset[str]:
    found: set[str] = set()
    register(lambda name, _: found.add(name))
    return frozenset(found)


_OWN: dict[str, frozenset[str]] = {
    "generator": _names(builtin.register_generators),
    "scorers": _names(builtin.register_scorers),
    "agent": _names(builtin.register_agents),
}
_OWN_BACKENDS = _names(builtin.register_backends)
_OWN_TRAINERS = _names(builtin.register_trainers)


def asks_of(settings: Settings, agents: Collection[str] = AGENTS) -> list[Ask]:
    """All that needs consent in settings of a run's folder, each once; of the agents only of those in `agents`."""
    found = [*_of_role("generator", "generator", settings.generator)]
    for place, table in enumerate(settings.scorers):
        found += _of_role("scorers", f"scorers.{place}", table)
    found += [*asks_of_agents(settings, agents), *_of_run(settings), *_of_train(settings.train)]
    found += asks_of_serve(settings.serve)
    return list({ask.text: ask for ask in found}.values())


def asks_of_agents(settings: Settings, agents: Collection[str] = AGENTS) -> list[Ask]:
    """What needs consent for these agents to be asked."""
    tables = {name: getattr(settings, name) for name in agents}
    return [ask for name, table in tables.items() for ask in _of_role("agent", name, table, settings.generator)]


def asks_of_serve(serve: ServeSection) -> list[Ask]:
    """What needs consent in `[serve]`."""
    found = []
    if serve.host not in _LOOPBACK:
        found.append(Ask("serve.host", serve.host, "the server can be reached from other machines"))
    if serve.api_key_env != ServeSection().api_key_env:
        found.append(Ask("serve.api_key_env", serve.api_key_env, "its value is the key that lets clients in"))
    if serve.hosts:
        found.append(Ask("serve.hosts", list(serve.hosts), "pages of these names may ask the server"))
    if serve.image_hosts:
        found.append(Ask("serve.image_hosts", list(serve.image_hosts), "the server fetches pictures from these hosts"))
    return found


def confirm(
    folder: str | Path,
    settings: Settings,
    *,
    given: Iterable[str] = (),
    trust: bool = False,
    used: Collection[Ask] | None = None,
) -> None:
    """See that the user consents to what settings from a run's folder start, send and open; `trust` consents now.

    `given` are the keys, or the `section.key=value` texts, that the user gave on top. `used` is what is needed now (all
    that the settings ask where it is None); consent is always to all of it, so that it is asked for once.

    Raises:
        ConfigError: there is no consent; the text lists what it would be to.
    """
    own = [key_parts(change) for change in given]
    asked = [ask for ask in asks_of(settings) if not _is_given(ask, own)]
    known = consented(folder)
    needed = asked if used is None else [ask for ask in asked if ask in used]
    if all(known.holds(ask.text) for ask in needed):
        return
    if trust:
        keep_consent(folder, [ask.text for ask in asked])
        return
    lines = "".join(f"\n  {ask}" for ask in asked if not known.holds(ask.text))
    raise ConfigError(
        f"the settings in the run's folder {str(folder)!r} were not given by you here, and need your consent to:{lines}"
        "\ngive it, once for this folder and these values, with --trust (in Python: trust=True), or give settings of "
        "your own (--config FILE, --set KEY=VALUE)"
    )


@dataclass(frozen=True)
class GivenSettings:
    """Settings for a run that may be used, the line that says where they are from, and the user's file of them."""

    settings: Settings
    origin: str
    source: Path | None


def settings_for(
    kept: Path, path: str | Path | None, changes: Iterable[str], *, trust: bool, own: bool = True
) -> GivenSettings:
    """Those of the file `path`, or of the `config.toml` that a run has `kept`, with `changes` on top.

    `own`: `path` is the user's; False where it was only named in the run's folder.

    Raises:
        ConfigError: settings are wrong, or those of the run's folder have no consent (`trust` gives it).
    """
    changes = list(changes)
    source = path if path is not None else kept if kept.is_file() else None
    settings = load_settings(source, changes)
    own = own and path is not None and not (kept.is_file() and kept.samefile(path))
    if source is not None and not own:
        confirm(kept.parent, settings, given=changes, trust=trust)
    return GivenSettings(settings, origin_of(path, kept), Path(path) if own and path is not None else None)


def keep_own(folder: str | Path, settings: Settings, source: str | Path | None) -> None:
    """Keep as consent what the user's own settings ask, now that they are written into the folder of their run.

    `source` is the user's file that they come from: it may be taken up again where it was edited meanwhile.
    """
    asked = [ask.text for ask in asks_of(settings)]
    if asked or source is not None:
        keep_consent(folder, asked, source)


def _is_given(ask: Ask, own: Collection[list[str]]) -> bool:
    place = ask.place.split(".")
    return any(place[: len(key)] == key for key in own)


def _of_role(kind: str, place: str, table: RoleTable, generator: RoleTable | None = None) -> Iterator[Ask]:
    """What the table of a role asks; an agent without a model of its own is asked that of the `generator`."""
    if table.use.startswith(OBJECT):
        return  # it is made in Python, or not at all
    foreign = table.use not in _OWN[kind]
    if foreign:
        yield Ask(f"{place}.use", table.use, "makes this part of a plugin")
        for name, value in (table.model_extra or {}).items():
            yield Ask(f"{place}.{name}", value, "an option of that part")
    asked, places = table, {"model": f"{place}.model"} | _places(place, table)
    if table.model is None and generator is not None:
        asked, places = inherited(generator, table), _places("generator", generator) | places
        places["model"] = "generator.model"
    if asked.model is not None or foreign:
        yield from _of_model(asked.model, asked.backend_options, places)


def _places(place: str, table: RoleTable) -> dict[str, str]:
    """Where each option of a table's backend stands."""
    own = {name: f"{place}.{name}" for name in BACKEND_KEYS if getattr(table, name) not in (None, {})}
    return own | {name: f"{place}.backend.{name}" for name in table.backend}


def _of_model(model: str | None, options: dict[str, Any], places: dict[str, str]) -> Iterator[Ask]:
    provider = "" if model is None else model.partition("/")[0]
    foreign = provider not in _OWN_BACKENDS
    if provider == "vllm":
        yield Ask(places["model"], model, "starts a `vllm serve` with this model")
    elif model is not None and foreign:
        yield Ask(places["model"], model, "asks a model of a plugin")
    urls, variable = options.get("base_url"), options.get("api_key_env")
    hosts = ", ".join(map(_server, [urls] if isinstance(urls, str) else urls or ())) or "the provider's own server"
    if urls:
        key = "" if variable else f", and sent the key in {DEFAULT_KEY} where that is set"
        yield Ask(places["base_url"], urls, f"questions and pictures are sent there{key}")
    if variable and (urls or variable != DEFAULT_KEY):
        yield Ask(places["api_key_env"], variable, f"the value of this variable is sent as the key to {hosts}")
    for name, value in options.items():
        plain = name in _PLAIN and not foreign
        if name not in ("base_url", "api_key_env") and not plain and (name, value) != ("proxy", "none"):
            yield Ask(places[name], value, _DOES.get(name, "an option of the model's backend that may reach out"))


_DOES = {
    "program": "this program is started, with your environment",
    "arguments": "a program is started with these arguments",
    "environment": "a program is started with these variables",
    "log_folder": "a log is written there",
    "proxy": "model servers are reached through the proxies that the environment names",
}


def _server(url: str) -> str:
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    except (ValueError, AttributeError):
        return repr(url)


def _of_run(settings: Settings) -> Iterator[Ask]:
    run = settings.run
    if run.proxy != "none":
        yield Ask("run.proxy", run.proxy, _DOES["proxy"])
    if run.executor == "ray":
        yield Ask("run.executor", run.executor, "work and keys are handed to the workers of a Ray cluster")
    if run.ray.address is not None:
        yield Ask("run.ray.address", run.ray.address, "the address of that cluster")
    if settings.images.hosts:
        yield Ask("images.hosts", list(settings.images.hosts), "pictures are fetched from these hosts")


def _of_train(train: TrainSection) -> Iterator[Ask]:
    if train.backend not in ("hf", "tiny"):
        yield Ask("train.backend", train.backend, "starts a server, or makes a part of a plugin")
    for name, value in train.backend_options.items():
        if name not in _PLAIN or train.backend not in _OWN_BACKENDS:
            yield Ask(f"train.backend_options.{name}", value, _DOES.get(name, "an option of that backend"))
    if train.trainer not in _OWN_TRAINERS and not train.trainer.startswith(OBJECT):
        yield Ask("train.trainer", train.trainer, "makes this part of a plugin")
    agents = {name: getattr(train, name) for name in ("reasoning", "summary", "preference", "direct", "multi_turn")}
    tables = {"train": train.common} | {f"train.{name}": table for name, table in agents.items()}
    for place, table in tables.items():
        launch = table.get("accelerate_config")
        if launch is not None and launch not in _OWN_ACCELERATE:
            yield Ask(f"{place}.accelerate_config", launch, "processes are started as this file says")
        if table.get("trl"):
            yield Ask(f"{place}.trl", table["trl"], "TRL may report to other hosts, and write elsewhere")
