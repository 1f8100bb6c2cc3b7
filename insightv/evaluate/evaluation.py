"""Asking a system every question of a held-out file once, and grading what it answers.

    evaluation = Evaluation("runs/charts", "heldout.jsonl", system="reasoner")
    print(evaluation.run().as_json()["questions"]["accuracy"])

An evaluation is a run of its own, in `RUN/evaluations/NAME`: every call is recorded before it counts, and a second call
continues where the first one stopped.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import orjson

from insightv.assess.agreement import agrees
from insightv.assess.bands import AssessedPath, AssessedQuestion
from insightv.atomic_files import new_file
from insightv.backends.model_folder import weights_digest
from insightv.concurrency import blocking_twin
from insightv.config.identity import table_identity
from insightv.config.plugin_loading import default_registry
from insightv.config.settings import ScorerTable, Settings, check_settings, load_settings
from insightv.config.trust import settings_for
from insightv.errors import ConfigError, InputError, RunChanged
from insightv.evaluate.results import RESULT, Graded, Outcome, Result, Verdict
from insightv.evaluate.system_answer import flagged_seconds, from_paths, said_followed
from insightv.evaluate.systems import SYSTEMS, assembly, known_system, system_tables
from insightv.plugins import Registry
from insightv.reasoner.checkpoint_agents import is_trained, refuse_other_models, trained_folders
from insightv.records import Question, ReasoningPath, Usage
from insightv.runs.builder import Questions, RunBuilder
from insightv.runs.reader import CONFIG, EVALUATIONS, check_places, load_run
from insightv.runs.session import Watch
from insightv.runs.status import RunStatus

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def run_settings(
    run: str | Path, config: str | Path | None = None, changes: Iterable[str] = (), *, trust: bool = False
) -> Settings:
    """The settings to evaluate with: those of `config`, else those that the run was made with, with `changes` on top.

    Raises:
        InputError: no `config` is given, and there is no run in the folder.
        ConfigError: the settings are wrong, or those of the folder have no consent (`trust` gives it).
    """
    kept = Path(run) / CONFIG
    if config is None and not kept.is_file():
        raise InputError(f"there is no run in {str(run)!r} (no {CONFIG}); name its folder, or give --config")
    return settings_for(kept, config, changes, trust=trust).settings


def has_trained(run: str | Path, system: str) -> bool:
    """Whether the run has a checkpoint of one of the system's agents."""
    return is_trained(run, known_system(system).agents)


def refuse_unasked(run: str | Path, system: str, settings: Settings) -> None:
    """Refuse settings that name another model for an agent of the system than the run does, which has a checkpoint.

    Raises:
        ConfigError: they do; the checkpoint would be asked in its place.
    """
    kept = Path(run) / CONFIG
    agents = [agent for agent in known_system(system).agents if is_trained(run, [agent])]
    refuse_other_models(settings, load_settings(kept) if kept.is_file() else None, agents)


class Evaluation:
    """A system, the questions it is asked, and the folder where it is kept.

    Args:
        run: the run whose agents are asked; the evaluation is kept in its folder.
        data: questions with answers, as a build takes them.
        system: one of `SYSTEMS`.
        model: asked in place of the models that the settings name, at `base_url`.
        base_url: see `model`.
        settings: in place of the run's own; their `answer` scorer grades.
        trained: whether the run's checkpoints are asked in place of the models that the settings name. By default they
            are where the run has them, unless `model` or `settings` say otherwise.
        name: the folder's name. By default it is made of the system and a digest of all that changes results, so that
            the same evaluation continues where it stopped and another one gets a folder of its own.
        family: the key of a question's `meta` by which results are grouped.
        registry: where parts are looked up.
        trust: consent to what the run's own settings start, send and open.

    Raises:
        ConfigError, PluginError, InputError: the system cannot be made, there is no consent, or no run in the folder.
    """

    def __init__(
        self,
        run: str | Path,
        data: Questions,
        *,
        system: str = "reasoner",
        model: str | None = None,
        base_url: str | None = None,
        settings: Settings | None = None,
        trained: bool | None = None,
        name: str | None = None,
        family: str = "family",
        registry: Registry | None = None,
        trust: bool = False,
    ) -> None:
        if trained is None:
            trained = model is None and settings is None and has_trained(run, system)
        checkpoints = trained_folders(run, known_system(system).agents) if trained else {}
        if trained and not checkpoints:
            raise InputError(f"the run {str(run)!r} has no checkpoint for {system!r}; train one with: insightv train")
        settings = settings or run_settings(run, trust=trust)
        self._registry = registry or default_registry()
        self._data, self._family = data, family
        self.system: str = system
        self._tables = system_tables(system, settings, model, base_url, checkpoints)
        self._grader = next((table for table in settings.scorers if table.use == "answer"), ScorerTable(use="answer"))
        identity = self._identity()
        self.settings: Settings = _evaluation_settings(settings, self._grader, SYSTEMS[system].paths, identity)
        self.name: str = f"{system}-{self._digest(identity)}" if name is None else name
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"--name {self.name!r}: use letters, digits, '.', '_' and '-', at most 100, a letter first"
            )
        self.folder: Path = Path(run) / EVALUATIONS / self.name
        self._builder = RunBuilder(
            run=self.folder,
            generator=assembly(system, self._tables),
            settings=self.settings,
            registry=self._registry,
        )

    async def arun(
        self,
        *,
        bad_rows: Literal["stop", "skip"] = "stop",
        retry_failed: bool = False,
        watch: Watch | None = None,
    ) -> Result:
        """Ask and grade what is not done yet, and write `result.json`.

        Raises:
            InputError, ConfigError, PluginError: nothing was started.
            StopRun: stopped and resumable (key, quota, budget, disk, held by another process, interrupted).
        """
        check_places(self.folder.parents[1])
        try:
            await self._builder.abuild(self._data, bad_rows=bad_rows, retry_failed=retry_failed, watch=watch)
        except RunChanged as error:
            what = f"the evaluation {self.name!r} was made with something else"
            raise RunChanged.of(what, error.differences, "give this one another --name") from None
        finally:
            with suppress(OSError):  # the folder of evaluations goes where a refused one has left it empty
                self.folder.parent.rmdir()
        result = self.result()
        with new_file(self.folder / RESULT) as file:
            file.write(orjson.dumps(result.as_json(), option=orjson.OPT_INDENT_2) + b"\n")
        return result

    run: Final = blocking_twin(arun)

    def interrupt(self, signal_number: int = 2) -> None:
        """Stop: no further call is begun, calls in flight are recorded. Any thread may ask."""
        self._builder.interrupt(signal_number)

    def status(self) -> RunStatus:
        """The counts and sums of the evaluation's own run, grading included."""
        return self._builder.status()

    def result(self) -> Result:
        """What the finished questions came to."""
        return Result(
            system=self.system,
            name=self.name,
            data=str(self._data) if isinstance(self._data, str | Path) else "given in Python",
            seed=self.settings.seed,
            models={role: table.model for role, table in self._tables.items()},
            grading=table_identity(self._grader),
            bad_rows=self.status().questions.bad_rows,
            rows=tuple(self._rows()),
        )

    def _rows(self) -> Iterator[Graded]:
        with load_run(self.folder) as run:
            digests = run.digests()
            seconds = run.call_seconds()
            for assessed in run.assessed(pictures=False):
                yield graded(assessed, digests[assessed.question.id], self._family, seconds)

    def _identity(self) -> dict[str, Any]:
        """What of the system changes results, beside its prompts and the questions."""
        agents: dict[str, Any] = {}
        for role, table in self._tables.items():
            agents[role] = table_identity(table)
            source = self._registry.find("agent", table.use).source
            if source.distribution != "insightv":
                agents[role]["plugin"] = f"{source.distribution} {source.version}"
            if table.model and (digest := weights_digest(table.model)):
                agents[role]["weights"] = digest
        return {"system": self.system, "agents": agents}

    def _digest(self, identity: Mapping[str, Any]) -> str:
        data, source = self._data, ""
        if isinstance(data, str | Path):
            path = Path(data)
            source = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else str(data)
        form = [identity, table_identity(self._grader), self.settings.seed, self.settings.images.max_pixels, source]
        return hashlib.sha256(json.dumps(form, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _evaluation_settings(settings: Settings, grader: ScorerTable, paths: int, identity: Mapping[str, Any]) -> Settings:
    table = settings.model_dump(exclude_unset=True)
    # Not `system`, which is what a server takes for the role of the system message.
    table["generator"] = {"paths": paths, "evaluated": identity["system"], "agents": identity["agents"]}
    table["scorers"] = [grader.model_dump(exclude_unset=True)]
    return check_settings(table)


def graded(
    assessed: AssessedQuestion, digest: str, family: str, call_seconds: Mapping[str, float] = MappingProxyType({})
) -> Graded:
    """A finished question of an evaluation as a row. `call_seconds`: how long each call took, by its key."""
    question, made = assessed.question, from_paths(assessed)
    answered, reasoned = made.answer, made.reasoning
    score = answered.scores[0] if answered.scores else None
    group = question.meta.get(family)
    return Graded(
        id=question.id,
        digest=digest,
        family=None if group is None else str(group),
        outcome=_outcome(answered),
        truth=question.answer or "",
        answer=answered.path.answer,
        code=answered.path.code,
        graded_by=str(score.details.get("by", "")) if score else "",
        reason=score.reason if score else answered.path.detail,
        reasoning=None if reasoned is None else _verdict(reasoned),
        conclusion=reasoned.path.answer if reasoned else None,
        followed=None if reasoned is None else _followed(question, answered, reasoned),
        usage=sum((path.path.usage for path in assessed.paths), Usage()),
        seconds=_seconds(answered.path, call_seconds),
    )


def _outcome(answered: AssessedPath) -> Outcome:
    if answered.path.status != "ok":
        return answered.path.status
    verdict = _verdict(answered)
    return "ungraded" if verdict == "unknown" else verdict


def _verdict(path: AssessedPath) -> Verdict:
    accepted = path.scores[0].accepted if path.scores else None
    return "unknown" if accepted is None else "right" if accepted else "wrong"


def _followed(question: Question, answered: AssessedPath, reasoned: AssessedPath) -> bool | None:
    """Whether the answer says what the reasoning came to.

    An agent's own word counts first. Else two that are graded right say the same; then the rules that compare answers
    count, for the very same value; then the grades again: of a right and a wrong one at most one is the truth.
    """
    if (said := said_followed(answered.path)) is not None:
        return said
    grades = _verdict(answered), _verdict(reasoned)
    if grades == ("right", "right"):
        return True
    answer = answered.path.answer
    if answer and (same := agrees(question, answer, reasoned.path)) is not None:
        return same
    return False if set(grades) == {"right", "wrong"} else None


def _seconds(answered: ReasoningPath, call_seconds: Mapping[str, float]) -> float | None:
    """The seconds that the calls of an answer took; None where that is not known, or they went out as jobs."""
    measured = [call_seconds.get(call, 0.0) for call in answered.calls]
    return sum(measured) if measured and all(measured) else flagged_seconds(answered)
