from __future__ import annotations

import pytest

from insightv.assess.bands import band_of
from insightv.records import Band, Score

RIGHT = Score(scorer="answer", accepted=True)
WRONG = Score(scorer="answer", accepted=False)
UNJUDGED = Score(scorer="answer", reason="no ground truth")


def path(value: float | None, accepted: bool | None = True) -> Score:
    return Score(scorer="path", value=value, accepted=None if value is None else accepted)


@pytest.mark.parametrize(
    ("scores", "band"),
    [
        ([RIGHT, path(100)], Band.high),
        ([RIGHT, path(80)], Band.high),
        ([RIGHT, path(79.9)], Band.mid),
        ([RIGHT, path(50)], Band.mid),
        ([RIGHT, path(49.9)], Band.low),
        ([RIGHT, path(1)], Band.low),
        ([WRONG], Band.wrong),
        ([WRONG, path(99)], Band.wrong),
        ([WRONG, path(None)], Band.wrong),
        ([UNJUDGED, path(99)], Band.unscored),
        ([UNJUDGED], Band.unscored),
        ([Score(scorer="answer", value=90.0)], Band.unscored),
        ([RIGHT, path(None)], Band.unscored),
        ([RIGHT], Band.unscored),
        ([], Band.unscored),
        ([path(90)], Band.high),
        ([RIGHT, path(90, accepted=False)], Band.low),
        ([RIGHT, Score(scorer="length", accepted=False), path(90)], Band.low),
        ([RIGHT, Score(scorer="length", accepted=False), path(None)], Band.unscored),
        ([RIGHT, Score(scorer="length"), path(90)], Band.unscored),
        ([RIGHT, path(90), Score(scorer="steps", value=20)], Band.low),
        ([RIGHT, Score(scorer="steps", value=20), path(90)], Band.high),
        ([RIGHT, path(90), Score(scorer="length", accepted=True)], Band.high),
    ],
)
def test_band_follows_from_the_scores(scores: list[Score], band: Band) -> None:
    assert band_of(scores) is band


def test_thresholds_can_be_set() -> None:
    assert band_of([path(60)], high=60, mid=60) is Band.high
    assert band_of([path(59)], high=60, mid=60) is Band.low
