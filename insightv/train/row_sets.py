"""The sets that a run's paths become, as its settings say; looked at before anything is paid for.

Knows settings and prompts; no run, and no file but that of the general data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pydantic import ValidationError

from insightv.agents.baselines import answer_turn, direct_cot_messages, multi_turn_messages
from insightv.agents.reasoning import reasoning_messages
from insightv.agents.replies.transcript import TAGS
from insightv.agents.summary import summary_messages
from insightv.config.settings import RoleTable, Settings
from insightv.errors import ConfigError, require
from insightv.inputs.images import open_question
from insightv.inputs.questions import QuestionFile, read_questions
from insightv.records import Question, ReasoningPath
from insightv.train.data.baseline_sets import DirectSet, MultiTurnSet
from insightv.train.data.general import GeneralData
from insightv.train.data.mix import shares_of
from insightv.train.data.pair_rows import PreferenceSet
from insightv.train.data.pairs import PairRule
from insightv.train.data.rows import Licence
from insightv.train.data.sets import JudgedPaths, ReasonSet, RowSet, SummarySet

SETS = ("reason", "summary")
"""The sets that every run gets."""

BASELINES = ("direct", "multi-turn")
"""The sets of the paper's single-model baselines."""


@dataclass(frozen=True)
class RowSets:
    """How the settings make each set; `opener` opens a question's pictures.

    `general` is the general data where it has been read already.
    """

    settings: Settings
    opener: Callable[[Question], Question]
    general: QuestionFile | None = None

    def by_name(self, what: str) -> RowSet:
        """A set: `reason`, `summary`, `preference`, `paths`, or one of `BASELINES` (see `Selection.row_set`)."""
        chosen, opener = self.settings.datasets, self.opener
        licence = Licence(source=chosen.source, licence=chosen.licence)
        shown = shown_by(self.settings.reasoning_agent)
        prompt = partial(reasoning_messages, **shown)
        if what == "paths":
            return JudgedPaths(prompt=prompt, tags=shown["tags"], open=opener, licence=licence)
        if what == "preference":
            chosen_pairs = self.settings.train.pairs.model_dump()
            rule = PairRule(**chosen_pairs, seed=self.settings.seed, tags=shown["tags"])
            return PreferenceSet(prompt=prompt, rule=rule, open=opener, licence=licence)
        reason = ReasonSet(
            prompt=prompt, best_per_question=chosen.best_per_question, tags=shown["tags"], open=opener, licence=licence
        )
        if what == "reason":
            return reason
        if what == "direct":
            return DirectSet(replace(reason, prompt=partial(direct_cot_messages, tags=shown["tags"])))
        if what == "multi-turn":
            return MultiTurnSet(replace(reason, prompt=partial(multi_turn_messages, tags=shown["tags"])), answer_turn)
        return SummarySet(
            render=partial(summary_messages, **shown_by(self.settings.summary_agent)),
            mix={str(band): share for band, share in chosen.summary_mix.items()},
            total=chosen.summary_total,
            per_question=chosen.summary_per_question,
            seed=self.settings.seed,
            general=self._general(),
            open=opener,
            licence=licence,
        )

    def _general(self) -> GeneralData | None:
        file = self.general or read_general(self.settings)
        if file is None:
            return None
        opened = partial(open_question, root=file.root, **self.settings.images.opening)
        return GeneralData(questions=lambda: file, share=self.settings.datasets.general_share, open=opened)


def read_general(settings: Settings) -> QuestionFile | None:
    """The file of `datasets.general`, read and checked; None where there is none.

    Raises:
        InputError: it cannot be used.
    """
    chosen = settings.datasets
    if chosen.general is None:
        return None
    return read_questions(
        chosen.general,
        columns=chosen.general_columns,
        setting="datasets.general_columns",
        require_answer=True,
        **settings.images.opening,
    )


def check_sets(settings: Settings) -> QuestionFile | None:
    """See that the sets of a run can be made as the settings say, before there is anything to make them of.

    Returns the general data that it has read.

    Raises:
        ConfigError: a setting of [datasets] or of an agent's prompt is wrong.
        InputError: the general data cannot be read.
        MissingExtra: a package that writes them is not installed.
    """
    for package in ("pyarrow", "datasets", "yaml"):
        require(package, "data")
    question = Question(id="any", question="any")
    path = ReasoningPath(question_id="any", index=0, status="rejected", code="any")
    without = settings.datasets.model_copy(update={"general": None})
    sets = RowSets(settings.model_copy(update={"datasets": without}), lambda asked: asked)
    for name in SETS:
        try:
            rows = sets.by_name(name)
            if isinstance(rows, ReasonSet):
                rows.prompt(question)
            elif isinstance(rows, SummarySet):
                shares_of(rows.mix)
                rows.render(question, path)
        except (TypeError, ValidationError) as error:
            agent = "reasoning_agent" if name == "reason" else "summary_agent"
            raise ConfigError(f"[{agent}]: system_prompt is a text, and tags are two texts: {error}") from error
    return read_general(settings)


def shown_by(table: RoleTable) -> dict[str, Any]:
    """The options of an agent that say what it is shown."""
    options = table.options
    # As in `trained.trained_table`: a prompt of steps is for an untrained model; a trained one is not shown it.
    prompt = None if table.use == "steps" else options.get("system_prompt")
    return {"system_prompt": prompt, "tags": tuple(options.get("tags", TAGS))}
