"""What a question's words make of an answer: near misses, order, slashes, and what a sentence or a unit may add."""

from __future__ import annotations

import asyncio
import time

import pytest

from insightv.assess.answer import AnswerScorer
from insightv.assess.rules.decide import decide
from insightv.records import Question, ReasoningPath

T, F, N = True, False, None
VALUE, WHICH, RED = "What is the value of the bar?", "Which?", "Is the bar red?"

NEAR_MISSES = [
    ("What is the number on the jersey?", "45", "46", N),  # left to the judge
    ("Which page number is shown?", "120", "121", N),  # left to the judge
    ("What is the zip code?", "10001", "10002", N),  # left to the judge
    ("What is the room number?", "100", "101", N),  # left to the judge
    ("What is the serial number?", "007", "7", N),
    ("Which model of plane is it?", "737", "747", N),  # left to the judge
    ("Which version is shown?", "2.1", "2.2", N),  # left to the judge
    ("What is the date in May?", "25", "26", N),  # left to the judge
    ("How old is the tree?", "40", "41", F),
    ("What are the numbers of dots in both boxes together?", "40", "41", F),
    ("How many people, in millions, live there?", "40", "41", T),
    ("What is the number of people in thousands?", "40", "41", T),
    ("Solve for x: 2x = 130", "65", "66", N),
    ("Find x.", "65", "66", N),
    ("What is the measure of angle B?", "66", "65", N),
    ("What is the measure of angle B?", "66\u00b0", "65\u00b0", N),
    ("What is 60 + 6?", "66", "65", N),
    ("What is the probability?", "1/3", "0.333", T),
    ("What does the menu ask for the soup?", "$20.50", "$20.00", N),
    ("Wie viele Balken gibt es?", "30", "31", N),
    ("Combien de barres y a-t-il ?", "30", "31", N),
    ("\u00bfCu\u00e1ntas barras hay?", "30", "31", N),
    ("\u56fe\u4e2d\u6709\u591a\u5c11\u4e2a\u5706?", "30", "31", N),
    ("Wie viele Balken gibt es?", "30", "40", F),
    ("Wie hoch ist der Balken?", "30.5", "30.7", T),
    ("How many people (in millions)?", "1.5", "1,500,000", N),
    ("How many people (in millions)?", "1.5", "1,600,000,000", F),
    ("In which year was it?", "2015.0", "2014", F),
    ("How many bars are there?", "30.0", "31", F),
    ("How many bars are there?", "30.0", "30", T),
    (VALUE, "30", "31", T),
    ("What is the value in 2010-2015?", "30", "31", T),
    ("Which decade?", "1990s", "1980s", N),
    ("Which decade?", "1990s", "1990", N),
    ("Which decade?", "1990s", "the 1990s", T),
]

SLASHES = [
    ("Which season?", "2020/2021", "1", N),
    ("What date is shown?", "11/12", "0.917", N),
    ("What is the time signature?", "3/4", "6/8", N),
    ("What is the time signature?", "3/4", "3/4", T),
    ("Which share is red?", "3/4", "6/8", T),
]

ORDERS = [
    ("List the numbers in descending order.", "3, 2, 1", "1, 2, 3", N),
    ("List the numbers in descending order.", "3, 2, 1", "3, 2, 1", T),
    ("List the numbers in descending order.", "3, 2, 1", "3, 2, 4", F),
    ("List the bars from left to right.", "red, blue, green", "green, red, blue", N),
    ("Rank the months.", "Jan, Feb, Mar", "Mar, Feb, Jan", N),
    ("What are the values of A and B, respectively?", "3, 5", "5, 3", N),
    ("What are the coordinates of P?", "3, 5", "5, 3", N),
    ("Which bars are above 50?", "A, B", "B, A", T),
]

ADDITIONS = [
    (VALUE, "12,50 \u20ac", "12,5 \u20ac", N),
    (VALUE, "12,50", "50,12", N),
    (VALUE, "5", "5 squared", N),
    (VALUE, "5", "5 Millionen", N),
    (VALUE, "5", "5\u4e07", N),
    (VALUE, "50000", "5\u4e07", N),
    (VALUE, "5", "5 tenths", N),
    (VALUE, "5", "5ish", N),
    (VALUE, "5", "5 max", N),
    (VALUE, "5", "5 (in thousands)", N),
    (VALUE, "5000", "5 (in thousands)", N),
    (VALUE, "5", "5 (the blue bar)", N),  # left to the judge
    (VALUE, "5", "5\u03c0", N),
    (VALUE, "5", "5 bars", T),
    (VALUE, "5 apples", "5", T),
    (VALUE, "3", "three point five", N),
    (VALUE, "3.5", "three point five", N),
    (VALUE, "7", "7A", N),
    (VALUE, "7A", "7", N),
    (VALUE, "7A", "7B", N),
    (VALUE, "7A", "7A", T),
    (VALUE, "50000", "50 K", T),
    (VALUE, "$1.000", "$1", N),
    (VALUE, "5", "The upper limit is 5", N),
    (VALUE, "5", "Nothing is 5", N),
    (VALUE, "5", "Double that is 5", N),
    (VALUE, "5", "The value of the other bar is 5", N),
    (VALUE, "5", "The value of the bar is 5", T),
    (WHICH, "6'2\"", "62", N),
    (WHICH, "|x|", "x", N),
    (WHICH, "p\u00eache", "p\u00e9ch\u00e9", N),
    (WHICH, "CO", "Co", N),
    (WHICH, "cyan", "blue", F),
]

YES_NO = [
    (RED, "no", "No. 5", N),
    (RED, "no", "No, it is red.", N),
    (RED, "no", "No, it is blue.", T),
    (RED, "yes", "Yes, it is not red.", N),
    (RED, "no", "No, I can't determine that.", N),
    (RED, "yes", "Yes, I cannot see it", N),
    (RED, "no", "No, there is no doubt about it", N),
    ("Ist der Balken rot?", "ja", "nein", F),
    ("Ist der Balken rot?", "yes", "Ja.", T),
    ("Le b\u00e2ton est-il rouge ?", "oui", "Non", F),
    ("\u00bfEs rojo?", "s\u00ed", "no", F),
    ("?", "\u662f", "\u4e0d\u662f", F),
    ("?", "\u662f", "\u662f\u7684", T),
    ("?", "\u0434\u0430", "\u043d\u0435\u0442", F),
]


@pytest.mark.parametrize(
    ("question", "truth", "answer", "expected"), NEAR_MISSES + SLASHES + ORDERS + ADDITIONS + YES_NO
)
def test_answer_is_ruled_as_the_question_asks(question: str, truth: str, answer: str, expected: bool | None) -> None:
    assert decide(question, truth, answer).correct is expected


@pytest.mark.parametrize(
    ("truth", "answer"),
    [
        ("A", "Answer: A\nWait, actually B"),
        ("A", "\\boxed{A} no, it is B"),
        ("A", "<answer>A</answer> or B"),
        ("A", "Answer: red\n(but green is possible as well)"),
        ("B", "B. It cannot be green"),
        ("B", "B. Maybe green"),
    ],
)
def test_answer_that_is_taken_back_names_no_choice(truth: str, answer: str) -> None:
    assert decide(WHICH, truth, answer, choices=("red", "green", "blue")).correct is None


def test_a_choice_is_not_taken_for_a_tenth_of_it() -> None:
    assert decide(WHICH, "B", ".5", choices=("5", "0.5")).correct is True
    assert decide(WHICH, "A", ".5", choices=("5", "0.5")).correct is False


def test_what_follows_an_announced_answer_without_taking_it_back_is_passed_over() -> None:
    assert decide(WHICH, "A", "Answer: A\nConfidence: high", choices=("red", "green")).correct is True


@pytest.mark.parametrize(
    ("question", "truth", "answer"),
    [
        ("When was it?", "1/2", "0.5"),
        ("Which decade?", "1990s", "1990"),
        (VALUE, "4.5/5", "4.5"),
        (VALUE, "\\frac{\\pi}{3}", "60^\\circ"),
        (VALUE, "\\sin(30^\\circ)", "0.5"),
    ],
)
def test_mathematics_decides_nothing_that_is_no_formula(question: str, truth: str, answer: str) -> None:
    asked = Question(id="q", question=question, answer=truth)
    path = ReasoningPath(question_id="q", index=0, status="ok", answer=answer)
    (score,) = asyncio.run(AnswerScorer().score(asked, [path]))
    assert score.accepted is None


def test_hostile_questions_are_read_quickly() -> None:
    pieces = (
        "value of ",
        "number ",
        "what is the ",
        "1 ",
        "1+",
        "how many ",
        "in ",
        "first ",
        "a=",
        "no ",
        "1/",
        "\u56fe",
    )
    for piece in pieces:
        question = piece * (100_000 // len(piece))
        began = time.thread_time()
        for truth, answer in (("12", "13"), ("red, blue", "blue, red"), ("yes", "no, it is"), ("1/2", "0.5")):
            decide(question, truth, answer)
        assert time.thread_time() - began < 2, piece
