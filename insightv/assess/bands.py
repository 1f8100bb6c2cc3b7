"""Where a path ends up: the band that its scores put it in. Pure: no model, no file."""

from __future__ import annotations

from collections.abc import Sequence

from insightv.errors import ConfigError
from insightv.records import Band, Score

ANSWER = "answer"
"""The name of the scorer that holds the answer against the ground truth; only its refusal makes a path wrong."""


def check_thresholds(high: float, mid: float) -> None:
    """Check that 1 <= mid <= high <= 100.

    Raises:
        ConfigError: they are not so.
    """
    if not 1 <= mid <= high <= 100:
        raise ConfigError(f"[bands] high = {high}, mid = {mid}: they must satisfy 1 <= mid <= high <= 100")


def band_of(scores: Sequence[Score], high: float = 80, mid: float = 50) -> Band:
    """The band of one path, from its scores in the order in which the scorers ran.

    In this order of precedence:

    - wrong: the answer check refused it;
    - unscored: some scorer could not judge it (neither value nor verdict), whatever the others said;
    - low: another scorer refused it, be its value what it may: it is not good enough, but its answer is not wrong;
    - unscored: no scorer gave a value;
    - high, mid or low by the value of the last scorer that gave one (thresholds are part of their band).

    Raises:
        ConfigError: not 1 <= mid <= high <= 100.
    """
    check_thresholds(high, mid)
    if any(score.scorer == ANSWER and score.accepted is False for score in scores):
        return Band.wrong
    if any(score.accepted is None and (score.value is None or score.scorer == ANSWER) for score in scores):
        return Band.unscored
    if any(score.accepted is False for score in scores):
        return Band.low
    values = [score.value for score in scores if score.value is not None]
    if not values:
        return Band.unscored
    if values[-1] >= high:
        return Band.high
    return Band.mid if values[-1] >= mid else Band.low
