"""Whether an answer follows a path, as far as their wording can tell."""

from __future__ import annotations

import pytest

from insightv.assess.agreement import agreement, agrees, majority
from insightv.reasoner.answers import joined
from insightv.reasoner.paths import merged
from insightv.records import Answer, Question, ReasoningPath, Step

BARS = Question(id="q", question="Which bar is the tallest?")
COLOUR = Question(id="q", question="Which colour?", choices=("green", "red"))
SHARE = Question(id="q", question="What percentage is it?")
COST = Question(id="q", question="What is the value?")
COUNT = Question(id="q", question="How many bars are there?")


def ending(text: str) -> ReasoningPath:
    steps = (Step(title="Look", content="Four bars.", action="continue"),)
    last = Step(title="Conclude", content=text, action="summary")
    return ReasoningPath(question_id="q", index=0, status="ok", steps=(*steps, last))


@pytest.mark.parametrize(
    ("question", "answer", "said", "expected"),
    [
        (BARS, "B", "So the tallest bar is B.", True),
        (BARS, "D", "So the tallest bar is B.", False),
        (BARS, "The answer is D.", "The answer is B.", False),
        (BARS, "The tallest bar is B.", "I compare them.\nThe answer is B.", True),
        (BARS, "Paris", "The capital is Paris.", True),
        (BARS, "blue", "The tallest one was red.", False),
        (BARS, "London", "The capital is Paris.", None),
        (BARS, "B", "The tallest bar is not B.", None),
        (BARS, "B", "The tallest are A and B.", None),
        (BARS, "B", "It is one of A, B and C.", None),
        (BARS, "D", "A is 6, B is 13, C is 9 and D is 4.", None),
        (COUNT, "13", "A is 6, B is 13, C is 9 and D is 4.", None),
        (COUNT, "There are three bars.", "So the count is 3.", True),
        (COUNT, "There are four bars.", "So the count is 3.", False),
        (COUNT, "8", "3 + 4 = 7", False),
        (COUNT, "5", "", None),
        (COLOUR, "B", "It is red.", True),
        (COLOUR, "A", "red", False),
        (SHARE, "12", "The share is 12%.", True),
        (COST, "5", "So the cost is $5.", True),
        (COST, "12 cm", "12cm", True),
        (COST, "0.5", "The ratio is 1/2.", True),
    ],
)
def test_an_answer_is_held_against_what_the_path_comes_to(
    question: Question, answer: str, said: str, expected: bool | None
) -> None:
    assert agrees(question, answer, ending(said)) is expected


def test_the_agreement_counts_the_paths_of_which_it_can_be_told() -> None:
    paths = [ending("The tallest bar is B."), ending("The tallest bar is D."), ending("Hard to say.")]
    assert agreement(BARS, "B", paths) == 0.5
    assert agreement(BARS, "B", paths[2:]) is None


def cut(text: str) -> ReasoningPath:
    steps = (Step(title="Look", content=text, action="continue"),)
    return ReasoningPath(question_id="q", index=0, status="rejected", code="truncated", steps=steps)


def test_several_paths_come_to_what_most_of_the_whole_ones_do() -> None:
    seven, nine = ending("So the answer is 7."), ending("9")
    assert majority(COUNT, [nine, seven, ending("The answer is seven."), cut("9")]) == "So the answer is 7."
    assert majority(COUNT, [nine, seven, cut("The first bar is 7.")]) == "9"
    assert majority(COUNT, [cut("9")]) is None


@pytest.mark.parametrize("order", [1, -1])
def test_cut_paths_stand_first_and_the_answer_is_marked(order: int) -> None:
    found = [ending("So the answer is 7."), cut("The first bar is 3.")][::order]
    shown = merged(COUNT, found)
    assert (shown.answer, shown.status) == ("So the answer is 7.", "ok")
    assert [step.content for step in shown.steps] == ["The first bar is 3.", "Four bars.", "So the answer is 7."]
    assert joined(COUNT, Answer(text="7"), shown, found).flags == ("path_cut",)
