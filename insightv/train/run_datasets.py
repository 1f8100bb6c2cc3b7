"""The datasets of a run: which sets there are, made from its assessed paths as the settings say.

Knows how a run, its settings and its agents' prompts come together in a set; what a set and a file are, `train` knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from insightv.agents.baselines import direct_cot_messages, multi_turn_messages
from insightv.agents.reasoning import reasoning_messages
from insightv.agents.replies.transcript import check_tags
from insightv.agents.summary import summary_messages
from insightv.assess.bands import AssessedQuestion
from insightv.atomic_files import new_file
from insightv.config.settings import Settings, load_settings
from insightv.config.trust import asks_of, confirm
from insightv.errors import ConfigError
from insightv.inputs.questions import QuestionFile
from insightv.records import Message, Question, ReasoningPath
from insightv.runs.reader import CONFIG, DATASETS, OWN, RunReader, open_stored
from insightv.runs.status import RunStatus
from insightv.train.data.card import Origin
from insightv.train.data.export import Exported, export_paths, export_set
from insightv.train.data.sets import RowSet, SummarySet
from insightv.train.row_sets import BASELINES, SETS, RowSets, shown_by


@dataclass(frozen=True)
class Selection:
    """What of a run becomes data. `raise_if_stopped` is called for every question; what it raises ends the reading.

    `general` is the general data of the summary set where it has been read already.
    """

    run: RunReader
    settings: Settings
    raise_if_stopped: Callable[[], None] = lambda: None
    general: QuestionFile | None = None

    def assessed(self) -> Iterator[AssessedQuestion]:
        """The finished questions; their pictures stay in the run's store until a row needs them."""
        for assessed in self.run.assessed(pictures=False):
            self.raise_if_stopped()
            yield assessed

    def prompt(self, question: Question) -> tuple[Message, ...]:
        """What the reasoning agent is shown of a question."""
        return reasoning_messages(question, **shown_by(self.settings.reasoning_agent))

    @property
    def tags(self) -> tuple[str, str]:
        """What encloses the reasoning agent's reply."""
        return check_tags(shown_by(self.settings.reasoning_agent)["tags"])

    def row_set(self, what: str) -> RowSet:
        """A set by name.

        `reason`, `summary`, `preference` (pairs), `paths` (every judged path with its verdict), or one of `BASELINES`.
        """
        return RowSets(self.settings, partial(open_stored, images=self.run.images), self.general).by_name(what)

    def origin(self, what: str = "") -> Origin:
        """What the card of a set says of the run; `what` is the set's name where it is one of `BASELINES`."""
        epochs = self.run.epochs()
        last: Mapping[str, Any] = epochs[-1] if epochs else {}
        scorers = last.get("scorers", {})
        parts = {"generator": last.get("generator", {})} | {f"scorer {i}": part for i, part in scorers.items()}
        prompts = {
            f"{part}: {name}": digest
            for part, made in parts.items()
            for name, digest in made.get("prompts", {}).items()
        }
        question = Question(id="any", question="any")
        path = ReasoningPath(question_id="any", index=0, status="rejected", code="any")
        shown = {
            "reasoning agent": reasoning_messages(question, **shown_by(self.settings.reasoning_agent)),
            "summary agent": summary_messages(question, path, **shown_by(self.settings.summary_agent)),
        }
        if what in BASELINES:
            opening = direct_cot_messages if what == "direct" else multi_turn_messages
            shown = {"model alone": opening(question, tags=shown_by(self.settings.reasoning_agent)["tags"])}
        for agent, (system, _) in shown.items():
            prompts[f"{agent}: system"] = hashlib.sha256(str(system.content).encode()).hexdigest()
        models = {"generator": self.settings.generator.model or self.settings.generator.use}
        models |= {f"scorer {table.use}": table.model for table in self.settings.scorers if table.model}
        # A training may come with others of these; the paths were made and sorted with those of the build.
        built = {name: last[name] for name in ("seed", "bands") if name in last}
        settings = self.settings.model_dump(mode="json", exclude_none=True, exclude={"run", "serve"}) | built
        return Origin(prompts=prompts, settings=settings, models=models, seed=int(settings["seed"]))


def write_datasets(
    folder: Path,
    settings: Settings,
    raise_if_stopped: Callable[[], None] = lambda: None,
    names: Sequence[str] = SETS,
    general: QuestionFile | None = None,
) -> dict[str, Exported]:
    """Write sets of a run into its `datasets/`; each replaces its old one when it is whole.

    `raise_if_stopped` is called for every question; what it raises ends the writing. `general`: see `Selection`.

    Raises:
        MissingExtra: pyarrow or datasets is not installed.
        StorageFull: the disk is full.
    """
    with RunReader(folder) as run:
        selection = Selection(run, settings, raise_if_stopped, general)
        return {
            name: export_set(
                selection.row_set(name), selection.assessed, folder / DATASETS / name, selection.origin(name)
            )
            for name in names
        }


def write_summary_set(
    folder: Path, settings: Settings, fresh: Path | None, out: Path, raise_if_stopped: Callable[[], None] = lambda: None
) -> Exported:
    """Write the summary set of a run with the paths of the run `fresh` after its own, into `out`; as `write_datasets`.

    The fresh paths are those of the reasoning agent whose output the summary agent will judge.
    """
    with ExitStack() as stack:
        runs = [stack.enter_context(RunReader(run)) for run in (folder, fresh) if run is not None]
        selections = [Selection(run, settings, raise_if_stopped) for run in runs]

        def assessed() -> Iterator[AssessedQuestion]:
            return chain.from_iterable(selection.assessed() for selection in selections)

        def opened(question: Question) -> Question:
            names = [str(image).removeprefix("sha256:") for image in question.images]
            own = next((run for run in runs if all(map(run.images.place, names))), runs[0])
            return open_stored(question, own.images)

        rows = selections[0].row_set("summary")
        if isinstance(rows, SummarySet):
            rows = replace(rows, open=opened, several_runs=len(runs) > 1)
        return export_set(rows, assessed, out, selections[0].origin())


def why_empty(status: RunStatus, scorers: Sequence[str]) -> str:
    """Why a run, by its status, has no rows to train on, with the cure; `scorers` are those of its settings by name."""
    paths, bands = status.paths, status.bands
    if not paths.ok:
        return (
            f"none of its {paths.total} paths can be used ({paths.rejected} rejected, {paths.failed} failed); "
            "`insightv status` says why"
        )
    if not bands["unscored"] or any(bands[name] for name in ("high", "mid", "low")):
        return "no path is good enough; generate more paths, or lower the thresholds of [bands]"
    if status.unjudged:
        return (
            f"{bands['unscored']} paths are in no band, as {status.unjudged} scores could not be given (`insightv "
            "status` says why); try those again with: insightv build --retry-failed"
        )
    return (
        f"{bands['unscored']} paths are in no band, as none of the [[scorers]] ({', '.join(scorers)}) gives a value; "
        'build a run with one that does, such as use = "path"'
    )


def export(folder: str | Path, what: str, form: str, out: str | Path, *, trust: bool = False) -> Exported:
    """Export `paths`, `reason`, `summary`, `preference` or one of `BASELINES` of a run to `out`.

    `form` is jsonl, parquet, trl, llamafactory or swift. `trust` consents to what the run's settings start and open.

    Raises:
        ConfigError: unknown `what` or `form`, or general data would be fetched from hosts that nobody consented to.
        InputError: there is no run.
    """
    known = ("paths", *SETS, "preference", *BASELINES)
    if what not in known:
        raise ConfigError(f"--what {what!r} is not known; one of: {', '.join(known)}, calls")
    refuse_own(Path(folder), Path(out))
    with RunReader(folder) as run:
        settings = load_settings(Path(folder) / CONFIG)
        if settings.datasets.general is not None:
            confirm(
                folder, settings, trust=trust, used=[ask for ask in asks_of(settings) if ask.place == "images.hosts"]
            )
        selection = Selection(run, settings)
        if what == "paths" and form in ("jsonl", "parquet"):
            return export_paths(selection.assessed, form, Path(out))
        return export_set(selection.row_set(what), selection.assessed, Path(out), selection.origin(what), form)


def refuse_own(folder: Path, out: Path) -> None:
    """Refuse to write an export over what a run consists of.

    Raises:
        ConfigError: `out` is the run's folder, one of its files, or within one of its own folders.
    """
    run, target = folder.resolve(), out.resolve()
    if target.is_relative_to(run) and (target == run or target.relative_to(run).parts[0] in OWN):
        raise ConfigError(f"--out {str(out)!r} is where the run keeps {target.name!r}; name another place")


def export_calls(folder: str | Path, out: Path) -> int:
    """Write every recorded call of a run as a line of JSON, as `replay/FILE` reads them; returns their number."""
    rows = 0
    refuse_own(Path(folder), out)
    with RunReader(folder) as run, new_file(out) as file:
        for call in run.calls():
            file.write(orjson.dumps(call) + b"\n")
            rows += 1
    return rows
