"""What `[train]` of the settings means: the recipes by name, and how each agent is trained.

    course_of(settings)                       # which stages there are
    agent_settings(settings, "reasoning")     # preset, common settings and the agent's own, checked

Knows no run and no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from insightv.config.sections import Recipe, TrainSection
from insightv.config.settings import Settings
from insightv.errors import ConfigError, did_you_mean
from insightv.train.finetune.settings import PreferenceSettings, Stage, TrainSettings, settings_of
from insightv.train.finetune.trl_options import FORBIDDEN

ITERATIONS = 3
"""The paper's rounds of iterative DPO."""


@dataclass(frozen=True)
class Course:
    """What a recipe trains: a reasoning agent and rounds of DPO on it, a summary agent, or one model alone.

    `pairs` says where preference pairs come from: the policy's own fresh paths, or a file.
    """

    reasoning: bool = True
    rounds: int = 0
    pairs: Literal["own", "external"] = "own"
    summary: bool = True
    alone: Literal["", "direct", "multi-turn"] = ""

    @property
    def agents(self) -> tuple[str, ...]:
        """Whose tables of `[train]` say how something of the course is trained."""
        named = (("reasoning", self.reasoning), ("preference", self.rounds), ("summary", self.summary))
        return *(name for name, trained in named if trained), *filter(None, [self.alone])


COURSES: dict[Recipe, Course] = {
    "multi-agent": Course(),
    "dpo": Course(rounds=1),
    "iterative-dpo": Course(rounds=ITERATIONS),
    "external": Course(rounds=1, pairs="external"),
    "direct": Course(reasoning=False, summary=False, alone="direct"),
    "multi-turn": Course(reasoning=False, summary=False, alone="multi-turn"),
    "summary-only": Course(reasoning=False),
}
"""The rows of the paper's tables 3 and 4 by one word."""

_STAGE: dict[str, Stage] = {"reasoning": "reason", "summary": "summary", "preference": "preference"}


def check_train(settings: Settings) -> None:
    """Check `[train]` as far as that goes without models and files.

    Raises:
        ConfigError: a key is unknown or a value out of range.
    """
    _check_keys(settings.train)
    for agent in ("reasoning", "summary", "direct", "multi-turn"):
        agent_settings(settings, agent)
    if settings.train.trainer == "dpo":  # what another trainer takes, its factory says
        preference = agent_settings(settings, "preference")
        if course_of(settings).rounds:
            _check_continued(agent_settings(settings, "reasoning"), preference)


def _check_continued(reasoning: TrainSettings, preference: TrainSettings) -> None:
    """Refuse a shape of adapters for the rounds that the adapter which they continue has not."""
    goes_on = isinstance(preference, PreferenceSettings) and preference.continue_adapter
    if not goes_on or "full" in (reasoning.method, preference.method):
        return
    for name in ("lora_rank", "lora_alpha", "train_projector"):
        before, after = getattr(reasoning, name), getattr(preference, name)
        if before != after:
            raise ConfigError(
                f"[train.preference]: {name} = {after}, and the rounds continue the reasoning agent's adapter, which "
                f"has {before}; set both alike, or preference.continue_adapter = false for a new adapter in each round"
            )


def _check_keys(train: TrainSection) -> None:
    """Refuse a key of `[train]` that is neither one of the section nor a setting of training."""
    own = {field.alias or name for name, field in TrainSection.model_fields.items()}
    known = sorted(own | set(TrainSettings.model_fields))
    for name in train.common:
        if name not in known and name not in FORBIDDEN:
            hint = did_you_mean(name, known, f"known keys: {', '.join(known)}")
            raise ConfigError(f"unknown key 'train.{name}'; {hint}")


def agent_settings(settings: Settings, agent: str) -> TrainSettings:
    """How one agent is trained: the preset, then what `[train]` says for all, then its own table."""
    train = settings.train
    own = getattr(train, agent.replace("-", "_"))
    try:
        return settings_of(_STAGE.get(agent, "reason"), train.preset, **{"seed": settings.seed, **train.common, **own})
    except ConfigError as error:
        raise ConfigError(f"[train] or [train.{agent}]: {error}") from None


def course_of(settings: Settings) -> Course:
    """The recipe; `rounds` is for iterative DPO, so that a file that has it serves the baselines by one word too."""
    train = settings.train
    if train.recipe == "iterative-dpo" and train.rounds is not None:
        return Course(rounds=train.rounds)
    return COURSES[train.recipe]
