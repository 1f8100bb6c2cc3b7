"""One round of preference training: pairs of the policy's own fresh paths, DPO on them, and what it did to accuracy.

Where pairs come from, how a policy is asked and which policy is kept are here; how weights move is `finetune`'s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import orjson

from insightv.backends.checkpoints import identity_of, mark_foreign
from insightv.config.roles import RoleFactory
from insightv.config.settings import OBJECT
from insightv.errors import ConfigError, InsightvError, PluginError
from insightv.evaluate.results import Result, compare, summary
from insightv.inputs.image_store import ImageStore
from insightv.interfaces import PreferenceTrainer
from insightv.plugin_guard import boundary, is_own
from insightv.records import PreferencePair, Question
from insightv.runs.reader import IMAGES, RunReader, open_stored
from insightv.runs.stage_facts import Accuracy, Age, Compared, Drift, Margins, StageFacts, StageId
from insightv.runs.status import RunStatus
from insightv.strict_json import Json
from insightv.train.data.external import read_external
from insightv.train.data.length_balance import Lengths, statistics
from insightv.train.data.pair_rows import to_json
from insightv.train.data.pairs import PairRule, select_pairs
from insightv.train.data.rows import Licence
from insightv.train.finetune.dpo_role import DPOPreferenceTrainer
from insightv.train.recipes import course_of
from insightv.train.rollouts import Rollouts
from insightv.train.row_sets import shown_by
from insightv.train.run_datasets import Selection


@dataclass(frozen=True)
class Round:
    """Round `number` (from 1), in its folder; `external` is a file of pairs in place of the policy's own."""

    number: int
    folder: Path
    runs: Rollouts
    trainer: PreferenceTrainer
    external: Path | None = None

    async def run(self, policy: Path) -> StageFacts:
        """Train `policy` for a round; returns its facts, in which `result` is the policy that is kept.

        Raises:
            RunChanged: the folder holds a round of something else.
            StopRun: stopped and resumable.
        """
        facts = StageFacts(
            round=self.number,
            policy=placed(policy, self.runs.folder),
            policy_identity=identity_of(policy),
            source=str(self.external) if self.external else "the policy's own paths",
        )
        if self.external is None:
            chosen = self.runs.settings.train.generation
            name = str(StageId.of_round(self.number))  # the seed of the paths depends on the type of the name
            status = await self.runs.paths(str(policy), self.folder / "paths", name, chosen.paths)
            facts |= StageFacts(questions=status.questions.done) | fresh_paths(status)
        pairs, found = await asyncio.to_thread(self._pairs)
        facts |= found
        if not pairs:
            return facts | StageFacts(result=placed(policy, self.runs.folder), trained=False, rolled_back=False)
        trained = await asyncio.to_thread(self._trained, policy, pairs)
        facts |= StageFacts(trained=True, drift=drift_of(trained))
        before = await self.runs.accuracy("reasoning-only", reasoning=str(policy))
        after = await self.runs.accuracy("reasoning-only", reasoning=str(trained))
        facts |= evidence(before, after)
        worse = hurts(facts.compared, self.runs.settings.train.rollback_p)
        return facts | StageFacts(rolled_back=worse, result=placed(policy if worse else trained, self.runs.folder))

    def _trained(self, policy: Path, pairs: list[PreferencePair]) -> Path:
        """What the trainer made, marked as whole.

        Raises:
            PluginError: it is a plugin's, and raised something of its own, or returned no folder of weights.
        """
        kind = type(self.trainer)
        name = f"the trainer {kind.__module__}.{kind.__qualname__}"
        own = is_own(self.trainer)
        with (
            nullcontext()
            if own
            else boundary(lambda said: PluginError(f"{name} failed: {said}"), passes=(InsightvError,))
        ):
            trained = self.trainer.train(policy, pairs, self.folder / "policy")
        if not isinstance(trained, Path) or not trained.is_dir():
            raise PluginError(f"{name} returned {trained!r}; it must return the folder of the trained model, a Path")
        if not any(trained.glob("*.safetensors")):
            raise PluginError(f"{name} returned {str(trained)!r}, which holds no weights (*.safetensors)")
        if not own:
            mark_foreign(trained)
        return trained

    def _pairs(self) -> tuple[list[PreferencePair], StageFacts]:
        settings, main = self.runs.settings, self.runs.folder
        store = ImageStore(main / IMAGES)
        with RunReader(main) as run:
            selection = Selection(run, settings, self.runs.raise_if_stopped)
            if self.external is not None:
                pairs = read_external(
                    self.external,
                    lambda question: to_json(selection.prompt(question), store),
                    tags=selection.tags,
                    raise_if_stopped=self.runs.raise_if_stopped,
                    **settings.images.opening,
                )
                lengths = [
                    Lengths(*(len(pair.meta["replies"][name]) for name in ("chosen", "rejected"))) for pair in pairs
                ]
                return pairs, StageFacts(pairs=len(pairs), age=None, lengths=statistics(lengths))
        with RunReader(self.folder / "paths") as fresh:
            selection = Selection(fresh, settings, self.runs.raise_if_stopped)

            def shown(question: Question) -> list[Json]:
                return to_json(selection.prompt(open_stored(question, fresh.images)), store)

            rule, data = settings.train.pairs, settings.datasets
            selected = select_pairs(
                selection.assessed,
                PairRule(rule.margin, rule.per_question, rule.length_slack, settings.seed, tags=selection.tags),
                shown,
                Licence(source=data.source, licence=data.licence),
            )
            written = fresh.written()
        return selected.pairs, StageFacts(
            pairs=len(selected.pairs),
            age=Age(rounds=0, seconds=round(time.time() - written, 1) if written else None),
            margins=margins(selected.pairs),
            lengths=selected.lengths,
            left_out=dict(selected.left_out),
        )


def trainer_of(runs: Rollouts) -> PreferenceTrainer:
    """The trainer of a run's rounds: the object that was given, or the one that the settings name.

    Raises:
        ConfigError, PluginError: there is none, or it writes paths in other tags than the reasoning agent.
    """
    given, settings = runs.objects.get("trainer"), runs.settings
    trainer = given if isinstance(given, PreferenceTrainer) else _named_trainer(runs)
    if isinstance(trainer, DPOPreferenceTrainer):
        tags = shown_by(settings.reasoning_agent)["tags"]
        if course_of(settings).pairs == "own" and trainer.tags != tags:
            raise ConfigError(
                f"the trainer writes paths in {' '.join(trainer.tags)}, and the reasoning agent writes them in "
                f"{' '.join(tags)}; give DPOPreferenceTrainer(tags={list(tags)})"
            )
        return trainer.stopped_by(runs.raise_if_stopped)
    return trainer


def _named_trainer(runs: Rollouts) -> PreferenceTrainer:
    settings, train = runs.settings, runs.settings.train
    if train.trainer.startswith(OBJECT):
        given = train.trainer.removeprefix(OBJECT)
        raise ConfigError(f"the trainer was an object of {given}; give such an object to Pipeline again")
    options: dict[str, Any] = dict(train.preference)
    if train.trainer == "dpo":
        options = {"seed": settings.seed, **train.common, **options, "preset": train.preset, "child": train.child}
        options["tags"] = shown_by(settings.reasoning_agent)["tags"]
    return RoleFactory(runs.registry, settings).trainer(train.trainer, options)


def placed(path: Path, run: Path) -> str:
    """A path as the ledger keeps it: within the run's folder relative to it, so that the folder may be moved."""
    whole, root = path.absolute(), run.absolute()
    return str(whole.relative_to(root) if whole.is_relative_to(root) else whole)


def margins(pairs: Sequence[PreferencePair]) -> Margins | None:
    """Points of score between the two paths of a pair: least, mean and most."""
    found = [pair.margin for pair in pairs]
    if not found:
        return None
    return Margins(least=round(min(found), 2), mean=round(fmean(found), 2), most=round(max(found), 2))


def drift_of(policy: Path) -> Drift | None:
    """How far a policy moved from its reference, as its training's log says; None where a trainer keeps no such log."""
    report = policy / "report.json"
    told: dict[str, Any] = orjson.loads(report.read_bytes()) if report.is_file() else {}
    found = told.get("preference")
    if not isinstance(found, dict):
        return None
    names = ("margin", "accuracy", "log_ratio_chosen", "log_ratio_rejected")
    facts = {"steps": told.get("steps"), "change_kept": told.get("change_kept")}
    return Drift(**facts, **{name: found[name] for name in names if name in found})


def accuracy_of(result: Result | None) -> Accuracy | None:
    """A held-out result in short: accuracy on 0..1 with its 95 % interval, and where the whole of it is."""
    if result is None:
        return None
    found = summary(result.rows)["questions"]
    names = ("total", "right", "graded", "ungraded", "failed", "accuracy", "interval")
    return Accuracy(**{name: found[name] for name in names}, evaluation=result.name)


def evidence(before: Result | None, after: Result | None) -> StageFacts:
    """Held-out accuracy before and after a stage, and the paired comparison on the same questions."""
    facts = StageFacts(before=accuracy_of(before), after=accuracy_of(after))
    if before is None or after is None:
        return facts
    found = compare(before, after)
    return facts | StageFacts(compared=Compared(**{name: found[name] for name in Compared.model_fields}))


def fresh_paths(status: RunStatus) -> StageFacts:
    """The paths of a policy that a stage is trained on."""
    return StageFacts(paths=status.paths, bands=status.bands)


def hurts(compared: Compared | None, p: float) -> bool:
    """Whether the second is worse than the first beyond noise: fewer right, and McNemar's exact p below `p`.

    An answer that the grader cannot tell is not right here: a policy whose answers nobody can read any more has none
    that are graded wrong.
    """
    found = compared.right if compared else None
    if found is None or found.p is None:
        return False
    return found.only_second < found.only_first and found.p < p
