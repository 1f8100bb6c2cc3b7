"""The trained agents of a run: where they lie, that they are whole, and the run's agents with them in place.

A run keeps them in `checkpoints/reasoning` and `checkpoints/summary`, each with a marker that was written last. A copy
of those two folders anywhere else serves as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from insightv.agents.replies.transcript import TAGS, check_tags
from insightv.backends.checkpoints import MARKER, is_complete, own_base, read_marker
from insightv.config.settings import BACKEND_KEYS, RoleTable, Settings, check_settings, load_settings
from insightv.config.trust import asks_of_agents, asks_of_serve, confirm
from insightv.errors import ConfigError, InputError
from insightv.runs.reader import CHECKPOINTS, CONFIG

FOLDERS: Mapping[str, str] = {
    "reasoning_agent": "reasoning",
    "summary_agent": "summary",
    "direct_cot_agent": "direct",
    "multi_turn_agent": "multi-turn",
}
"""The folder of each agent's checkpoint; the last two are the baselines of one model alone."""
TWO_AGENTS = ("reasoning_agent", "summary_agent")
SHOWN = "shown"
"""The fact of a checkpoint's marker that says what its agent was trained to be shown: `tags` and `system_prompt`."""


def is_trained(place: str | Path, agents: Iterable[str] = TWO_AGENTS) -> bool:
    """Whether there is a checkpoint of any of these agents, whole or not."""
    return bool(_found(place, agents))


def trained_folders(place: str | Path, agents: Sequence[str] = TWO_AGENTS) -> dict[str, Path]:
    """The checkpoint of each agent, by the agent's name; empty where there is none of any.

    `place` is a run's folder, or a folder that holds `reasoning` and `summary` itself. Every file is compared with the
    marker, which takes seconds for a large model.

    Raises:
        InputError: a checkpoint is not whole, or one is there and another is not.
    """
    found = _found(place, agents)
    for folder in found.values():
        _check_whole(folder)
    missing = [FOLDERS[agent] for agent in agents if agent in FOLDERS and agent not in found]
    if found and missing:
        raise InputError(
            f"{str(next(iter(found.values())))!r} is trained, and there is no {missing[0]!r} beside it: continue with "
            "`insightv train` (with a recipe that trains both: summary-only does not), or ask for the untrained agents "
            "(--untrained; in Python: trained=False)"
        )
    return found


def _found(place: str | Path, agents: Iterable[str]) -> dict[str, Path]:
    within = Path(place) / CHECKPOINTS
    parent = (within if within.is_dir() else Path(place)).absolute()
    return {
        agent: parent / FOLDERS[agent] for agent in agents if agent in FOLDERS and (parent / FOLDERS[agent]).is_dir()
    }


def as_trained(settings: Settings, folders: Mapping[str, Path]) -> Settings:
    """The settings for checkpoints that stand without their run: what agents are shown as their markers tell it.

    What the settings say themselves comes first.

    Raises:
        ConfigError: a marker tells what no agent can be shown.
    """
    told: dict[str, RoleTable] = {}
    for agent, folder in folders.items():
        table: RoleTable | None = getattr(settings, agent, None)
        shown = (read_marker(folder) or {}).get(SHOWN)
        if table is not None and isinstance(shown, dict):
            known = {name: shown[name] for name in ("tags", "system_prompt") if shown.get(name)}
            if not isinstance(known.get("system_prompt", ""), str):
                raise ConfigError(f"{str(folder / MARKER)!r}: system_prompt = {known['system_prompt']!r} is no text")
            tags: Any = known.get("tags", TAGS)
            if not isinstance(tags, list | tuple) or not all(isinstance(tag, str) for tag in tags):
                raise ConfigError(f"{str(folder / MARKER)!r}: tags = {tags!r} are no texts")
            if check_tags(tags) == TAGS:
                known.pop("tags", None)  # a plugin's agent may have no such option, and ours has these by itself
            told[agent] = type(table).model_validate(known | table.model_dump(exclude_unset=True))
    return settings.model_copy(update=told)


def _check_whole(folder: Path) -> None:
    if is_complete(folder):
        return
    why = f"a file is not as its {MARKER} says" if read_marker(folder) else f"it has no readable {MARKER}"
    raise InputError(
        f"the checkpoint {str(folder)!r} is not whole: {why}; train it again, or copy it again with all its files (a "
        f"model that insightv did not train is named as hf/{folder})"
    )


def refuse_other_models(settings: Settings, own: Settings | None, agents: Iterable[str]) -> None:
    """Refuse settings that name a model for an agent whose checkpoint is asked, other than the run's `own` name.

    Raises:
        ConfigError: they do, and it would not be asked.
    """
    for agent in agents:
        given, before = (_named(each, agent, own is not None) if each else (None, None) for each in (settings, own))
        if given != before:
            at = f" at {given[1]}" if given[1] else ""
            raise ConfigError(
                f"the settings name {given[0]}{at} as the model of {agent}, and the run's checkpoint would be asked "
                "in its place; ask for the untrained agents (--untrained; in Python: trained=False), or leave the "
                "model out"
            )


def _named(settings: Settings, agent: str, inherits: bool) -> tuple[str | None, object]:
    """An agent's model and where it is served; `inherits`: the generator's, where the agent has none."""
    table: RoleTable | None = getattr(settings, agent, None)
    if (table is None or table.model is None) and inherits:
        table = settings.generator
    return (None, None) if table is None else (table.model, table.base_url)


def confirm_agents(
    place: str | Path,
    settings: Settings,
    trained: Collection[str],
    *,
    serving: bool = False,
    given: Iterable[str] = (),
    trust: bool = False,
) -> None:
    """See that there is consent to what a run's own settings ask for its agents, but for those that are `trained`.

    `serving`: also to what they ask of a server. `given`: what the user set on top; `trust` consents.

    Raises:
        ConfigError: there is none.
    """
    used = asks_of_agents(settings, [agent for agent in TWO_AGENTS if agent not in trained])
    used += asks_of_serve(settings.serve) if serving else []
    confirm(place, settings, given=given, trust=trust, used=used)


def settings_of_agents(
    place: str | Path,
    folders: Mapping[str, Path],
    settings: Settings | None,
    backend: str,
    options: Mapping[str, Any],
    *,
    trust: bool = False,
) -> Settings:
    """The settings to make both agents by: `settings`, else the run's own, with the checkpoints in `folders`.

    Raises:
        ConfigError: `settings` name a model that a checkpoint stands in for, or the run's own have no consent.
    """
    path = Path(place) / CONFIG
    own = load_settings(path) if path.is_file() else None
    if folders and settings is not None:
        refuse_other_models(settings, own, folders)
    if own is not None and settings is None:
        confirm_agents(place, own, folders, trust=trust)
    settings = settings or own or check_settings({})
    return with_trained(as_trained(settings, folders) if own is None else settings, folders, backend, options)


def with_trained(
    settings: Settings, folders: Mapping[str, Path], backend: str = "hf", options: Mapping[str, Any] | None = None
) -> Settings:
    """The settings with the trained models as the two agents', served by `backend` with its `options`."""
    own: Mapping[str, RoleTable] = {
        "reasoning_agent": settings.reasoning_agent,
        "summary_agent": settings.summary_agent,
    }
    return settings.model_copy(
        update={agent: trained_table(own[agent], folder, backend, options) for agent, folder in folders.items()}
    )


def trained_table(
    table: RoleTable, folder: str | Path, backend: str = "hf", options: Mapping[str, Any] | None = None
) -> RoleTable:
    """An agent's table with the checkpoint as its model.

    To vllm a checkpoint that was trained as an adapter goes as that, so that both agents share one server.
    """
    given = dict(options or {})
    adapted = own_base(Path(folder)) if backend == "vllm" else None
    if adapted is not None:
        folder, given["base"] = adapted[0], str(adapted[1])
    model = f"{backend}/{folder}"
    if table.use == "steps":  # an untrained model's way to reason; a trained one writes its path as text
        kept = {name: table.options[name] for name in ("tags",) if name in table.options}
        return type(table).model_validate({**kept, "use": "thoughts", "model": model, "backend": given})
    where: dict[str, Any] = {**dict.fromkeys(BACKEND_KEYS), "backend": given}
    return table.model_copy(update={"model": model, **where})
