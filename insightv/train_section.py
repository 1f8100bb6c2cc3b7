"""`[train]` of insightv.toml: what is trained from what, in which order, and how each round goes.

Beside these keys `[train]` holds settings of training for every agent (method, epochs, learning_rate, ...), and the
tables `[train.reasoning]`, `[train.summary]`, `[train.preference]`, `[train.direct]` and `[train.multi-turn]` those of
one. Those are checked where they are known: by `insightv.training_plan`, before anything is started.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Recipe = Literal["multi-agent", "dpo", "iterative-dpo", "external", "direct", "multi-turn", "summary-only"]


class Section(BaseModel):
    """A section whose keys are all known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RoundPaths(Section):
    """`[train.generation]`: the fresh paths that a policy writes, in a round and for the summary agent.

    `questions` of the run's, drawn anew each time (None: all), `paths` for each, drawn at `temperature`.
    """

    questions: int | None = Field(default=None, ge=1)
    paths: int = Field(default=8, ge=2, le=1000)
    temperature: float = Field(default=0.8, ge=0, le=2, allow_inf_nan=False)


class RoundPairs(Section):
    """`[train.pairs]`: which two paths of a question make a pair (see `insightv.train.pairs.PairRule`).

    `length_slack` = 0.5 lets lengths differ as they will.
    """

    margin: float = Field(default=20, gt=0, le=100, allow_inf_nan=False)
    per_question: int = Field(default=2, ge=1)
    length_slack: float = Field(default=0.02, ge=0, le=0.5, allow_inf_nan=False)


class TrainSection(BaseModel):
    """`[train]`.

    `base` is the model that every agent is trained from: a model directory, an id of the hub, or an embedded model
    ("tiny/base", "tiny/teacher"); `revision` is the commit, tag or branch of one of the hub (None: its newest commit).
    `recipe` says what is trained; `rounds` the number of rounds of "iterative-dpo". `heldout` is a questions file that
    nothing is trained on: every stage is measured on it, and a round that makes the reasoning agent worse on it (exact
    paired test, p below `rollback_p`; 0: never) is rolled back. `external` is the file of preference data of
    "external". `summary_paths` fresh paths per question of the last reasoning agent are added to the summary set.
    `child` = false trains in this process. `trainer` is a registered PreferenceTrainer. Policies are asked through the
    backend `engine` with `engine_options`.
    """

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    base: str | None = None
    revision: str | None = None
    preset: str = "default"
    recipe: Recipe = "iterative-dpo"
    rounds: int | None = Field(default=None, ge=1, le=100)
    heldout: str | None = None
    rollback_p: float = Field(default=0.05, ge=0, le=1, allow_inf_nan=False)
    external: str | None = None
    summary_paths: int = Field(default=4, ge=0, le=1000)
    child: bool = True
    trainer: str = "dpo"
    engine: str = "hf"
    engine_options: dict[str, Any] = Field(default_factory=dict)
    generation: RoundPaths = RoundPaths()
    pairs: RoundPairs = RoundPairs()
    reasoning: dict[str, Any] = Field(default_factory=dict)
    summary: dict[str, Any] = Field(default_factory=dict)
    preference: dict[str, Any] = Field(default_factory=dict)
    direct: dict[str, Any] = Field(default_factory=dict)
    multi_turn: dict[str, Any] = Field(default_factory=dict, alias="multi-turn")

    @property
    def common(self) -> dict[str, Any]:
        """The settings of training for every agent."""
        return dict(self.model_extra or {})
