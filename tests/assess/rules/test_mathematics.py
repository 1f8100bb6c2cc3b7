"""What math-verify may decide alone: a difference of value between two formulas of one kind."""

from __future__ import annotations

import asyncio

import pytest

from insightv.assess.answer import AnswerScorer
from insightv.records import Question, ReasoningPath

T, F, N = True, False, None

SAME: list[tuple[str, str, bool | None]] = [
    ("x = 12", "12 = x", T),
    ("12 = x", "12", T),
    ("12 = x", "13", F),
    ("x = 12", "13", F),
    ("y = 2x + 1", "2x + 1", T),
    ("16\\pi", "16 pi", T),
    ("36\\pi", "pi*36", T),
    ("36\u03c0", "36pi", T),
    ("36\u03c0", "36", F),
    ("5\\sqrt{2}", "sqrt(50)", T),
    ("2\\sin x", "2 sin(x)", T),
    ("1 < x < 5", "1 < x < 6", F),
]

OTHER_KIND: list[tuple[str, str, bool | None]] = [
    ("y = 2x + 1", "f(x) = 2x + 1", N),
    ("x = 12", "y = 12", N),
    ("16\\pi", "16\u03c0 cm^2", N),
    ("\\frac{1}{2}bh", "\\frac12 b h", N),
    ("\\frac{1}{2}", "B", N),
    ("\\frac{1}{2}", "0,5", N),
    ("H2O", "H_2O", N),
    ("\\sin 30^\\circ", "\\cos 60^\\circ", N),
    ("1 < x < 5", "5 > x > 1", N),
    ("f(2) = 5", "f(2) = 6", N),
    ("\\{1, 2\\}", "(1, 2)", N),
    ("3 x 4", "4 x 3", N),
    ("3 \\times 4", "12", N),
    ("03/04/2021", "3/4/21", N),
]


@pytest.fixture(scope="module")
def scorer() -> AnswerScorer:
    return AnswerScorer()


@pytest.mark.parametrize(("truth", "answer", "expected"), SAME + OTHER_KIND)
def test_formula_is_ruled_as_labelled(scorer: AnswerScorer, truth: str, answer: str, expected: bool | None) -> None:
    asked = Question(id="q", question="What is it?", answer=truth)
    path = ReasoningPath(question_id="q", index=0, status="ok", answer=answer)
    (score,) = asyncio.run(scorer.score(asked, [path]))
    assert score.accepted is expected
