"""Units that a question asks for, letters that are a unit or a number, percentages, money, other languages' numbers."""

from __future__ import annotations

import pytest

from insightv.assess.rules.decide import decide

T, F, N = True, False, None
VALUE = "What is the value of the bar?"

UNITS_ASKED = [
    ("What is the height in meters?", "5", "5 m", T),
    ("What is the height in meters?", "5", "500 cm", T),
    ("What is the height in meters?", "5", "16.4 feet", T),
    ("What is the height in meters?", "5", "5 feet", N),
    ("What is the height in meters?", "5", "9 feet", F),
    ("What is the distance (km)?", "12.4", "12.4 m", N),
    ("What is the speed in miles per hour?", "60", "60 mph", T),
    ("What is the speed in km/h?", "60", "60 mph", N),
    ("What is the area in square meters?", "25", "25 m", N),
    ("What is the temperature in Celsius?", "20", "68\u00b0F", N),
    ("What is the price in dollars?", "20", "20 euros", N),
    ("How many minutes does it take?", "90", "90 hours", N),
    ("How many minutes does it take?", "90", "1.5 hours", T),
    ("How many days are there?", "30", "30 days", T),
    ("How many days are there?", "30", "31 days", F),
    ("How many days are there?", "30", "40 days", F),
    ("What is the number of grams?", "5", "5 kg", N),
    ("How heavy is it?", "5", "5 kg", T),
    ("Which? (A) 5 kg (B) 6 kg", "5", "5 kg", T),
    ("How many in total?", "5", "5 kg", T),
    ("How many pounds does it weigh?", "20", "20 pounds", T),
    ("What does it cost in pounds?", "20", "\u00a320", T),
    ("What is the acceleration?", "9.8 m/s\u00b2", "9.81 m/s^2", T),
    ("What is the resistance?", "4 \\Omega", "4 ohms", T),
]

LETTERS = [
    (VALUE, "100m", "100 million", N),
    (VALUE, "100m", "100000000", N),
    (VALUE, "100m", "200 million", F),
    (VALUE, "100m", "100 meters", T),
    (VALUE, "$100m", "100 million", T),
    (VALUE, "5M", "5 million", T),
    ("How many followers are there?", "1.5K", "1,500", T),
    ("How many followers are there?", "1.5K", "1.5 kelvin", N),
    ("What is the temperature?", "300 K", "300000", N),
    ("What is the temperature?", "300 K", "300 K", T),
    ("\u6e29\u5ea6\u662f\u591a\u5c11?", "300 K", "300000", N),
    (VALUE, "20\u00b0", "20\u00b0F", N),
    (VALUE, "20\u00b0C", "20\u00b0", T),
    (VALUE, "36\u03c0", "36", N),
    (VALUE, "4b", "4", N),
]

SHARES_AND_MONEY = [
    ("What is the share?", "0.25", "0.25%", N),
    ("What is the share?", "0.25", "25%", T),
    ("What percentage is it?", "0.5%", "0.5", T),
    ("What is the growth rate?", "3.5%", "3.5", T),
    ("What is the total?", "$12.50", "$12.05", N),
    ("What is the total?", "$12.50", "12.5", T),
    ("What is the total?", "$12.50", "$15.20", F),
    ("What is the total?", "$12", "$12.30", T),
    ("What is the share?", "3/8", "0,375", N),
    ("What is the share?", "0,375", "375", N),
    ("What is the total?", "$1.500", "$1.5", N),
    ("What is the net income?", "(1,234)", "-1,234", N),
    ("What is the net income?", "(1,234)", "1,234", N),
    ("What is the net income?", "(1,234)", "(1,234)", T),
]

NAMES = [
    ("What is the address?", "10 Downing Street", "10", N),
    ("Which drink?", "7 Up", "7", N),
    ("\u54ea\u4e00\u5e74?", "2015\u5e74", "2016\u5e74", N),
    ("\u54ea\u4e00\u5e74?", "2015\u5e74", "2015", T),
    ("What does the sign say?", "55", "56", N),
]

ABROAD = [
    (VALUE, "5 Millionen", "5", N),
    (VALUE, "5 Millionen", "5000000", N),
    (VALUE, "5 millones", "5", N),
    (VALUE, "3\u4e07", "30000", N),
    (VALUE, "3\u4e07", "3", N),
    (VALUE, "5 apples", "5", T),
    (VALUE, "5 apples", "6", F),
]


@pytest.mark.parametrize(
    ("question", "truth", "answer", "expected"), UNITS_ASKED + LETTERS + SHARES_AND_MONEY + NAMES + ABROAD
)
def test_quantity_is_ruled_as_labelled(question: str, truth: str, answer: str, expected: bool | None) -> None:
    assert decide(question, truth, answer).correct is expected


@pytest.mark.parametrize(
    ("truth", "answer", "choices", "expected"),
    [
        ("C", "A and B", ("red", "blue", "Both A and B"), N),
        ("D", "A, B, C", ("red", "blue", "green", "All of the above"), N),
        ("C", "A, B", ("\u7ea2", "\u84dd", "\u4ee5\u4e0a\u90fd\u662f"), N),
        ("C", "A, B", ("red", "blue", "green"), N),  # left to the judge
    ],
)
def test_several_letters_may_say_what_one_choice_says(
    truth: str, answer: str, choices: tuple[str, ...], expected: bool | None
) -> None:
    assert decide("Which?", truth, answer, choices=choices).correct is expected
