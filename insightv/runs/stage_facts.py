"""What the ledger of a training says of its stages: the stage's name and the facts of its work, as records.

A row of the ledger may be of another release: keys that a record does not know stay readable, and those that were never
written are written nowhere.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import ConfigDict

from insightv.records import Record
from insightv.runs.status import PathCounts

_ROUND = "round "


class StageId(str):
    """The name of a stage: reasoning, round 1, round 2, ..., summary, direct or multi-turn."""

    __slots__ = ()

    @classmethod
    def of_round(cls, number: int) -> Self:
        """The name of a round of preference training, counted from 1."""
        return cls(f"{_ROUND}{number}")

    @property
    def round(self) -> int | None:
        """The number of the round; 0 for the supervised training before the first, None where it is no such stage."""
        if self == "reasoning":
            return 0
        number = self.removeprefix(_ROUND)
        return int(number) if number != self and number.isdecimal() else None


class LedgerRecord(Record):
    """A frozen value of the ledger. Keys of other releases are kept; `as_json` has the keys that were given."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow")

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return self.model_dump(mode="json", exclude_unset=True)


class Accuracy(LedgerRecord):
    """A held-out result in short: accuracy on 0..1 with its 95 % interval; `evaluation` names the whole of it."""

    total: int = 0
    right: int = 0
    graded: int = 0
    ungraded: int = 0
    failed: int = 0
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    evaluation: str = ""


class RightOrNot(LedgerRecord):
    """Right answers before only and after only, with McNemar's exact p; an answer that is not graded is not right."""

    pairs: int = 0
    only_first: int = 0
    only_second: int = 0
    p: float | None = None


class Compared(LedgerRecord):
    """Accuracy before and after on the same held-out questions, paired; `difference` is after less before."""

    pairs: int = 0
    only_first: int = 0
    only_second: int = 0
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    right: RightOrNot | None = None


class Ends(LedgerRecord):
    """A figure of a training's log at its first and its last entry."""

    first: float | None = None
    last: float | None = None


class Drift(LedgerRecord):
    """How far a policy moved from its reference.

    `log_ratio_*` are mean log-ratios of policy to reference in nats, `margin` and `accuracy` those of TRL's rewards;
    `change_kept` is the share of the change that the type of the written weights keeps.
    """

    steps: int | None = None
    change_kept: float | None = None
    margin: Ends | None = None
    accuracy: Ends | None = None
    log_ratio_chosen: Ends | None = None
    log_ratio_rejected: Ends | None = None


class Age(LedgerRecord):
    """How old the paths of a round were when their pairs were taken."""

    rounds: int = 0
    seconds: float | None = None


class Margins(LedgerRecord):
    """Points of score between the two paths of a pair."""

    least: float = 0
    mean: float = 0
    most: float = 0


class StageFacts(LedgerRecord):
    """The facts of a stage, as far as it has them: `result` is the policy or agent that it ends with.

    Rounds have `round` to `rolled_back`; what is trained on a set has `steps` to `loss`. `a | b` has the facts of both.
    """

    round: int | None = None
    policy: str | None = None
    policy_identity: str | None = None
    source: str | None = None
    questions: int | None = None
    paths: PathCounts | None = None
    bands: dict[str, int] | None = None
    pairs: int | None = None
    age: Age | None = None
    margins: Margins | None = None
    lengths: dict[str, object] | None = None
    left_out: dict[str, int] | None = None
    trained: bool | None = None
    drift: Drift | None = None
    steps: int | None = None
    rows_trained_on: int | None = None
    rows_left_out: int | None = None
    resumed_from_step: int | None = None
    change_kept: float | None = None
    loss: float | None = None
    before: Accuracy | None = None
    after: Accuracy | None = None
    compared: Compared | None = None
    rolled_back: bool | None = None
    result: str | None = None
    result_identity: str | None = None

    def __or__(self, other: StageFacts) -> StageFacts:
        return StageFacts(**(self._given() | other._given()))

    def _given(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.model_fields_set}

    @property
    def failed(self) -> int:
        """Paths whose model was not reached, and held-out questions likewise."""
        return sum(part.failed for part in (self.paths, self.before, self.after) if part is not None)
