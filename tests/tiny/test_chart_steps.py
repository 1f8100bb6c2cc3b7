"""The chart-steps scorer on right, wrong and unreadable paths."""

import asyncio
import random
from typing import Any

import pytest

from insightv.records import Question, ReasoningPath, Score, Step
from insightv.tiny import claims, world
from insightv.tiny.chart_steps import ChartSteps
from tools.tiny import batches, tell

BARS: dict[str, Any] = {"kind": "bars", "labels": ["A", "C", "D"], "values": [5, 7, 2]}
COLOURS: dict[str, Any] = {"kind": "bars", "labels": ["red", "blue", "green"], "values": [3, 9, 4]}
TABLE: dict[str, Any] = {"kind": "table", "rows": ["A", "B"], "columns": ["X", "Y"], "values": [[5, 3], [0, 8]]}


def score(texts: list[str], chart: dict[str, Any] | None = BARS, answer: str | None = "12") -> Score:
    steps = tuple(Step(title="t", content=text, action="continue") for text in texts)
    path = ReasoningPath(question_id="q", index=0, status="ok", steps=steps)
    meta = {} if chart is None else {"chart": chart}
    return asyncio.run(ChartSteps().score(Question(id="q", question="?", answer=answer, meta=meta), [path]))[0]


def test_a_right_path() -> None:
    got = score(["A 5, C 7, D 2.", "A + C = 5 + 7 = 12.", "The answer is 12."])
    assert (got.value, got.accepted, got.details["first_error"]) == (100, True, None)
    assert [step["verdict"] for step in got.details["steps"]] == ["right"] * 3
    assert got.details["claims"] == 5


def test_a_misread_value_is_found_where_it_stands() -> None:
    got = score(["A 5, C 7, D 2.", "C is 8. A + C = 5 + 8 = 13.", "The answer is 13."])
    assert got.details["first_error"] == 2
    assert [step["verdict"] for step in got.details["steps"]] == ["right", "faulty", "faulty"]
    assert got.value == 1 + 99 * 3 / 6
    assert "C is 8" in got.reason


def test_a_step_without_claims_is_not_counted_as_right() -> None:
    got = score(["The chart is very clear to me.", "A 5, C 7."])
    assert [step["verdict"] for step in got.details["steps"]] == ["unchecked", "right"]
    assert got.value == 1 + 99 * 2 / 3


@pytest.mark.parametrize("texts", [[], ["I like charts."], ["Surely, it is so.", "Trust me: certainly right."]])
def test_nothing_to_check(texts: list[str]) -> None:
    got = score(texts)
    assert (got.value, got.accepted) == (None, None)
    assert got.reason


@pytest.mark.parametrize("chart", [None, {"kind": "pie"}, {"kind": "bars"}])
def test_no_chart(chart: dict[str, Any] | None) -> None:
    got = score(["A 5."], chart)
    assert (got.value, got.accepted) == (None, None)


@pytest.mark.parametrize(
    ("chart", "text", "right"),
    [
        (BARS, "A is 5 and C has 7.", [True, True]),
        (BARS, "Bar A has the value 6.", [False]),
        (BARS, "K 5.", [False]),
        (BARS, "C - D = 7 - 2 = 5.", [True]),
        (BARS, "C - D = 8 - 3 = 5.", [False]),
        (BARS, "C minus D equals 4.", [False]),
        (BARS, "A > D, C > A, D > C.", [True, True, False]),
        (BARS, "Bar A is more than bar C.", [False]),
        (BARS, "The tallest is C with 7. The lowest bar is A.", [True, False]),
        (BARS, "The tallest is C with 8.", [False]),
        (BARS, "C is the tallest bar.", [True]),
        (BARS, "The largest value is 7.", [True]),
        (BARS, "Left of C is A. Right of C is A.", [True, False]),
        (BARS, "Left of A is C.", [False]),
        (BARS, "Above 4: A, C. That is 2.", [True, True]),
        (BARS, "Above 4: A, C, D. That is 2.", [False, False]),
        (BARS, "Not above 4: D. Below 2: none.", [True, True]),
        (BARS, "There are 4 bars.", [False]),
        (COLOURS, "red 3, blue is 9, green 5.", [True, True, False]),
        (COLOURS, "The red bar is less than the green bar.", [True]),
        (COLOURS, "red + blue = 3 + 9 = 13.", [False]),
        (TABLE, "A: X 5, Y 3. B: X is 0, Y is 7.", [True, True, True, False]),
        (TABLE, "Row B, column Y is 8.", [True]),
        (TABLE, "A X + A Y = 5 + 3 = 8.", [True]),
        (TABLE, "The largest in row B is Y with 8.", [True]),
        (TABLE, "The smallest in row A is X.", [False]),
        (TABLE, "A X > B X, B X > B Y.", [True, False]),
        (TABLE, "C Z is 4.", [False]),
    ],
)
def test_claims(chart: dict[str, Any], text: str, right: list[bool]) -> None:
    assert [claim.right for claim in claims.read(chart, [text], None)[0]] == right


def test_the_worlds_own_paths() -> None:
    """Every step of a right path is read and right; a path about a misread chart never is."""
    rng = random.Random(3)
    for item in world.make_questions(400, 7, "train"):
        chart, kind, asked = item.meta["chart"], item.meta["kind"], item.meta["ask"]
        texts = [content for _, content in tell.steps(chart, kind, asked, rng)]
        found = claims.read(chart, texts, item.answer)
        assert all(step and all(claim.right for claim in step) for step in found), texts
        spoilt = batches.spoil(chart, rng)
        if spoilt["values"] != chart["values"]:
            texts = [content for _, content in tell.steps(spoilt, kind, asked, rng)]
            assert not all(claim.right for step in claims.read(chart, texts, item.answer) for claim in step), texts
