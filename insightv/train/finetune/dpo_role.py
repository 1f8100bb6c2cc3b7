"""The built-in preference trainer: pairs go to a file, and DPO runs on it, in a process of its own or in this one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from insightv.agents.replies.transcript import TAGS, Tags, check_tags
from insightv.atomic_files import CARD, new_folder
from insightv.errors import InputError
from insightv.interfaces import PreferenceTrainer
from insightv.records import PreferencePair
from insightv.train.data.card import card
from insightv.train.data.layouts import write_trl
from insightv.train.data.pair_rows import funnel_of_pairs, is_external, origin_of_pairs, rows_of_pairs
from insightv.train.data.rows import TrainingRow
from insightv.train.finetune.process import run_here, run_job
from insightv.train.finetune.settings import Job, settings_of


class DPOPreferenceTrainer(PreferenceTrainer):
    """DPO with TRL, in a process of its own; `child = False` trains in this one.

    `tags` enclose a path as the policy writes it; `settings` are those of `PreferenceSettings`, on top of the preset
    ("default" or "paper"). Each pair's `meta["prompt"]` says what the policy is shown (`train.data.pair_rows`).
    """

    def __init__(
        self, *, preset: str = "default", tags: Sequence[str] = TAGS, child: bool = True, **settings: Any
    ) -> None:
        self.settings = settings_of("preference", preset, **settings)
        self.tags: Tags = check_tags(tags)
        self.child = child
        self._raise_if_stopped: Callable[[], None] = lambda: None

    def stopped_by(self, raise_if_stopped: Callable[[], None]) -> DPOPreferenceTrainer:
        """The same trainer; the function is called often while its child trains, and what it raises ends the child."""
        stoppable = copy.copy(self)
        stoppable._raise_if_stopped = raise_if_stopped
        return stoppable

    def train(self, policy: Path, pairs: Sequence[PreferencePair], out: Path) -> Path:
        """Train the directory `policy` on `pairs` into `out`; returns `out`. Resumes what was begun there."""
        if not pairs:
            raise InputError("there are no pairs to train on: no question has a right path and a clearly worse one")
        out = Path(out)
        data = out.with_name(f"{out.name}.pairs")
        write_pairs(pairs, data, self.tags)
        job = Job(stage="preference", policy=str(policy), data=data, out=out, settings=self.settings)
        return run_job(job, self._raise_if_stopped) if self.child else run_here(job)


def write_pairs(pairs: Sequence[PreferencePair], folder: Path, tags: Tags = TAGS) -> None:
    """Write pairs into a folder in TRL's form, with a card. The same pairs give the same bytes."""
    funnel = funnel_of_pairs(pairs)
    chosen, origin = origin_of_pairs(pairs)
    name = "external" if is_external(pairs) else "preference"

    def rows() -> Iterator[TrainingRow]:
        for row in rows_of_pairs(pairs, tags):
            funnel.wrote(row)
            yield row

    with new_folder(folder) as fresh:
        layout = write_trl("preference", rows(), fresh)
        text = card(name, funnel, chosen | {"tags": list(tags)}, origin, layout)
        (fresh / CARD).write_text(text, encoding="utf-8")
