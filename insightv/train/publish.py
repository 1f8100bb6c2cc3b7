"""The agents of a run as they are used, in `checkpoints/`: the last policy, and the summary agent that has met it."""

from __future__ import annotations

from pathlib import Path

from insightv.atomic_files import copy_folder, refuse_foreign, remove
from insightv.backends.checkpoints import identity_of, is_complete, note, read_marker
from insightv.config.settings import Settings
from insightv.reasoner.checkpoint_agents import SHOWN
from insightv.runs.reader import CHECKPOINTS
from insightv.runs.stage_ledger import Ledger
from insightv.train.row_sets import shown_by


def publish(run: Path, ledger: Ledger, reasoning: Path | None) -> None:
    """Put the last policy where the agents are; a summary agent that was trained for another one goes.

    Where there is none, the summary agent is trained alone, and a reasoning agent of before is none to be asked with
    it: it goes from here, and is still where its round has it.

    Raises:
        ConfigError: a checkpoint's folder holds what insightv did not write.
    """
    place, entry = own_place(run, "reasoning"), ledger.find("summary")
    wanted = None if reasoning is None else identity_of(reasoning)
    if entry is None or entry.identity.get("reasoner") != wanted:
        remove(own_place(run, "summary"))
    if reasoning is None or not is_complete(place) or identity_of(place) != wanted:
        remove(place)
    if reasoning is not None and not place.is_dir():
        copy_folder(reasoning, place)


def own_place(run: Path, agent: str) -> Path:
    """The folder of an agent's checkpoint, which may be replaced.

    Raises:
        ConfigError: it holds what insightv did not write.
    """
    place = run / CHECKPOINTS / agent
    if read_marker(place) is None:
        refuse_foreign(place)
    return place


def tell_shown(run: Path, settings: Settings) -> None:
    """Note beside each agent what it was trained to be shown, so that a copy of its folder is asked alike."""
    tables = {"reasoning": settings.reasoning_agent, "summary": settings.summary_agent}
    for agent, table in tables.items():
        shown = shown_by(table)
        note(run / CHECKPOINTS / agent, **{SHOWN: shown | {"tags": list(shown["tags"])}})
