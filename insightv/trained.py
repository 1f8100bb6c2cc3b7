"""The trained agents of a run: where they lie, that they are whole, and the run's agents with them in place.

A run keeps them in `checkpoints/reasoning` and `checkpoints/summary`, each with a marker that was written last. A copy
of those two folders anywhere else serves as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from insightv.config import RoleTable, Settings
from insightv.errors import InputError
from insightv.train.checkpoints import MARKER, is_complete, read_marker

CHECKPOINTS = "checkpoints"
FOLDERS: Mapping[str, str] = {"reasoning_agent": "reasoning", "summary_agent": "summary"}
"""The folder of each agent's checkpoint."""


def trained_folders(place: str | Path) -> dict[str, Path] | None:
    """The checkpoint of each agent, by the name of its settings; None where there is none of either.

    `place` is a run's folder, or a folder that holds `reasoning` and `summary` itself. Every file is compared with the
    marker, which takes seconds for a large model.

    Raises:
        InputError: a checkpoint is not whole, or only one of the two is there.
    """
    within = Path(place) / CHECKPOINTS
    parent = within if within.is_dir() else Path(place)
    found = {role: parent / name for role, name in FOLDERS.items() if (parent / name).is_dir()}
    if not found:
        return None
    for folder in found.values():
        _check_whole(folder)
    missing = [str(parent / name) for role, name in FOLDERS.items() if role not in found]
    if missing:
        raise InputError(
            f"{str(next(iter(found.values())))!r} is trained and {missing[0]!r} is not there yet: go on with "
            f"`insightv train`, or ask for the untrained agents (--untrained; in Python: trained=False)"
        )
    return {role: folder.absolute() for role, folder in found.items()}


def _check_whole(folder: Path) -> None:
    if is_complete(folder):
        return
    why = f"a file is not as its {MARKER} says" if read_marker(folder) else f"it has no readable {MARKER}"
    raise InputError(
        f"the checkpoint {str(folder)!r} is not whole: {why}; train it again, or copy it again with all its files (a "
        f"model that insightv did not train is named as hf/{folder})"
    )


def with_trained(
    settings: Settings, folders: Mapping[str, Path], backend: str = "hf", options: Mapping[str, Any] | None = None
) -> Settings:
    """The settings with the trained models as the agents', served by `backend` with its `options`."""
    given = dict(options or {})
    tables: dict[str, RoleTable] = {
        "reasoning_agent": settings.reasoning_agent,
        "summary_agent": settings.summary_agent,
    }
    own = {role: _with_model(tables[role], f"{backend}/{folder}", given) for role, folder in folders.items()}
    return settings.model_copy(update=own)


def _with_model(table: RoleTable, model: str, options: Mapping[str, Any]) -> RoleTable:
    if table.use == "steps":  # an untrained model's way to reason; a trained one writes its path as text
        kept = {name: table.options[name] for name in ("tags",) if name in table.options}
        return type(table).model_validate({**kept, "use": "thoughts", "model": model, "backend": dict(options)})
    where: dict[str, Any] = {"base_url": None, "api_key_env": None, "structured": None, "backend": dict(options)}
    return table.model_copy(update={"model": model, **where})
