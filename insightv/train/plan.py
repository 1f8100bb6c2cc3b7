"""What is trained on a run: the recipe's stages, each with all that decides its result.

Base model, files and held-out questions are checked here, before anything is started.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insightv.backends.checkpoints import identity_of
from insightv.backends.model_folder import embedded_weights, reaches_out
from insightv.config.identity import table_identity
from insightv.config.plugin_loading import default_registry
from insightv.config.roles import RoleFactory
from insightv.config.settings import OBJECT, Settings
from insightv.errors import ConfigError, InputError, require
from insightv.inputs.questions import QuestionFile
from insightv.plugins import Registry
from insightv.runs.reader import RunReader
from insightv.runs.stage_facts import StageId
from insightv.train.data.external import check_external
from insightv.train.finetune.models import fetched
from insightv.train.finetune.process import accelerate_file
from insightv.train.finetune.trl_options import check_trl
from insightv.train.heldout import read_heldout
from insightv.train.recipes import Course, agent_settings, course_of
from insightv.train.row_sets import check_sets


@dataclass(frozen=True)
class TrainingPlan:
    """A training that can be begun: what every stage is trained from, on what, and how."""

    settings: Settings
    course: Course
    base: str
    base_identity: str
    run_identity: str
    heldout: QuestionFile | None
    external: Path | None
    trainer: str = "dpo"

    def stages(self) -> dict[StageId, dict[str, Any]]:
        """All stages in order, each with what decides its result as far as that is known before the first."""
        course, settings = self.course, self.settings
        stages: dict[StageId, dict[str, Any]] = {}
        if course.alone:
            stages[StageId(course.alone)] = self._decides(course.alone)
        if course.reasoning:
            stages[StageId("reasoning")] = self._decides("reasoning") | {
                "shown": table_identity(settings.reasoning_agent)
            }
        drawn = {
            "generation": settings.train.generation.model_dump(),
            "scorers": [table_identity(table) for table in settings.scorers],
            "bands": settings.bands.model_dump(),
        }
        source = drawn | {"pairs": settings.train.pairs.model_dump()}
        if self.external:
            source = {"external": _digest(self.external)}
        for number in range(1, course.rounds + 1):
            stages[StageId.of_round(number)] = self._decides("preference") | {
                "trainer": self.trainer,
                "rollback_p": settings.train.rollback_p,
                **source,
            }
        if course.summary:
            stages[StageId("summary")] = (
                self._decides("summary")
                | drawn
                | {
                    "rounds": course.rounds,
                    "pairs": course.pairs if course.rounds else "none",
                    "summary_paths": settings.train.summary_paths if course.reasoning else 0,
                    "shown": table_identity(settings.summary_agent),
                }
            )
        return {name: json.loads(json.dumps(identity, default=str)) for name, identity in stages.items()}

    def _datasets(self) -> dict[str, Any]:
        chosen = self.settings.datasets
        free = {"licence", "source"} | ({"general_columns"} if not chosen.general_columns else set())
        found = chosen.model_dump(mode="json", exclude=free)  # without columns as the ledgers before there were any
        general = Path(chosen.general) if chosen.general else None
        return found | ({"general": _digest(general)} if general and general.is_file() else {})

    def _decides(self, agent: str) -> dict[str, Any]:
        return {
            "seed": self.settings.seed,
            "base": self.base_identity,
            "run": self.run_identity,
            "datasets": self._datasets(),
            "heldout": self.heldout.digest if self.heldout else None,
            "settings": (
                dict(self.settings.train.preference)
                if agent == "preference" and self.settings.train.trainer != "dpo"
                else agent_settings(self.settings, agent).identity()
            ),
        }


def plan_of(settings: Settings, folder: Path, registry: Registry | None = None) -> TrainingPlan:
    """The plan for the run in `folder`.

    Raises:
        InputError: a file or model cannot be used, or held-out questions are in the run.
        ConfigError: a setting is wrong or missing.
        MissingExtra: a package that a setting needs is not installed.
    """
    course, train = course_of(settings), settings.train
    for agent in course.agents:
        if agent != "preference" or train.trainer == "dpo":
            _check_launch(settings, agent)
    registry = registry or default_registry()
    workshop = RoleFactory(registry, settings)
    workshop.check_agents()
    workshop.check_backend(train.backend, train.backend_options)
    general = check_sets(settings)
    base, identity = _base(train.base, train.revision)
    if course.pairs == "external" and train.external is None:
        raise ConfigError('train.external is not set; name the file of preference data for train.recipe = "external"')
    external = Path(train.external) if course.pairs == "external" and train.external else None
    pairs = None if external is None else check_external(external, **settings.images.opening)
    with RunReader(folder) as run:
        status, digests = run.status(), run.digests()
        if status.questions.done < status.questions.total:
            left = status.questions.total - status.questions.done
            raise InputError(
                f"{left} questions of the run are not done yet; finish it with: insightv build --run {folder}"
            )
    counts = {"paths": status.paths.model_dump(), "bands": status.bands}
    made = hashlib.sha256(json.dumps([digests, counts], sort_keys=True).encode()).hexdigest()
    heldout = read_heldout(settings, folder, general, pairs)
    return TrainingPlan(settings, course, base, identity, made, heldout, external, _trainer(train.trainer, registry))


def _trainer(name: str, registry: Registry) -> str:
    """What identifies a trainer: its name, and the plugin's version where it is one's."""
    if name.startswith(OBJECT):
        return name
    source = registry.find("trainer", name).source
    return name if source.distribution == "insightv" else f"{name} ({source.distribution} {source.version})"


def _check_launch(settings: Settings, agent: str) -> None:
    """See that an agent's training can be started at all, while nothing has been spent on what comes before it."""
    asked = agent_settings(settings, agent)
    check_trl(agent, asked.trl, bf16=bool(asked.bf16))
    if asked.method == "qlora":
        require("bitsandbytes", "train")
    if asked.accelerate_config is None:
        return
    accelerate_file(asked.accelerate_config)
    if not settings.train.child:
        raise ConfigError(
            f"accelerate_config = {asked.accelerate_config!r} needs processes of its own, and train.child = false "
            "trains in this one; leave one of the two out"
        )


def _base(name: str | None, revision: str | None) -> tuple[str, str]:
    """The directory of the model, which for one of the hub is that of a commit, and what identifies its weights."""
    if name is None:
        raise ConfigError(
            'train.base is not set; set it to a model directory, an id of the hub, or "tiny/base" for the embedded '
            "model (--base NAME on the command line)"
        )
    provider, _, rest = name.partition("/")
    hub = not Path(name).is_dir() and provider not in ("tiny", "base", "teacher")
    if hub and (name.startswith(("/", ".")) or name.count("/") != 1):
        raise InputError(f"train.base = {name!r} is no directory and no id of the hub (OWNER/NAME)")
    if revision is not None and not hub:
        raise ConfigError(
            f"train.revision = {revision!r} is for a model of the hub, and {name!r} is none; leave it out"
        )
    if hub:
        folder = fetched(name, revision)
    elif Path(name).is_dir():
        folder = Path(name).absolute()
    else:
        folder = embedded_weights((rest or "teacher") if provider == "tiny" else name)
    if wrong := reaches_out(folder):
        raise InputError(f"train.base = {name!r} {wrong}")
    return str(folder), identity_of(folder)


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"the data in {str(file)!r} cannot be read: {error.strerror or error}") from error
