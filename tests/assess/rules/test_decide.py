"""The rules against labelled pairs: every family, with the cases that a first-number or substring rule gets wrong."""

from __future__ import annotations

import math
import time

import pytest

from insightv.assess.rules.decide import decide
from insightv.assess.rules.mathematics import MathChecker

T, F, N = True, False, None
COUNT, VALUE, YEAR, WHICH = "How many bars are red?", "What is the value of the bar?", "In which year was it?", "Which?"
RGB = ("red", "green", "blue")

Pair = tuple[str, str, str, bool | None]

NUMBERS: list[Pair] = [
    (VALUE, "5", "5", T),
    (VALUE, "5", "5.0", T),
    (VALUE, "5", " 5. ", T),
    (VALUE, "5", "five", T),
    (VALUE, "5", "Five.", T),
    (VALUE, "5", "６", F),
    (VALUE, "5", "５", T),
    (VALUE, "-5", "\u22125", T),
    (VALUE, "-5", "5", F),
    (VALUE, "5", "-5", F),
    ("What is the difference?", "5", "-5", N),
    (VALUE, "1234", "1,234", T),
    (VALUE, "1,234,567", "1234567", T),
    (VALUE, "1234", "1 234", T),
    (VALUE, "1234", "1\u202f234", T),
    (VALUE, "1234", "1'234", T),
    (VALUE, "1234.5", "1.234,5", T),
    (VALUE, "100000", "1,00,000", T),
    (VALUE, "12.5", "12,5", N),
    (VALUE, "100", "105", T),
    (VALUE, "100", "95", T),
    (VALUE, "100", "105.01", F),
    (VALUE, "100", "94.99", F),
    (VALUE, "0.07", "0.0735", T),
    (VALUE, "0.07", "0.0736", F),
    (VALUE, "0", "0", T),
    (VALUE, "0", "0.0001", F),
    (VALUE, "0", "zero", T),
    (VALUE, "0", "None", N),
    (VALUE, "12", "12.5", T),
    (COUNT, "12", "12.5", F),
    (COUNT, "30", "31", F),
    (COUNT, "30", "30 bars", T),
    (COUNT, "30", "There are thirty bars.", T),
    ("How many people live there?", "1200", "1210", T),
    ("How many million barrels?", "40", "41", T),
    (YEAR, "2015", "2015", T),
    (YEAR, "2015", "2016", F),
    (WHICH, "2015", "2016", N),
    (VALUE, "2015", "2016", T),
    (VALUE, "2015", "3000", F),
    (VALUE, "$5", "5", T),
    (VALUE, "$5", "5 dollars", T),
    (VALUE, "$5", "US$5", T),
    (VALUE, "$5", "5 USD", T),
    (VALUE, "$5", "€5", F),
    (VALUE, "$1.2 million", "$1,200,000", T),
    (VALUE, "$1.2 million", "$1.2M", T),
    (VALUE, "$1.2 million", "$1.2 billion", F),
    (VALUE, "1.2 million", "1.2", N),
    (VALUE, "1.2", "1.2 million", N),
    (VALUE, "5 thousand", "5K", T),
    (VALUE, "5M", "5 million", T),
    (VALUE, "300 K", "300 K", T),
    (VALUE, "2 dozen", "24", T),
    (VALUE, "25%", "25 %", T),
    (VALUE, "25%", "25 percent", T),
    (VALUE, "25%", "25", T),
    (VALUE, "25", "25%", T),
    (VALUE, "25%", "0.25", T),
    ("What percentage is red?", "25%", "0.25", N),
    (VALUE, "25%", "0.5", F),
    (VALUE, "25%", "25 percentage points", N),
    (VALUE, "25%", "25 kg", F),
    (VALUE, "25%", "25% of the respondents", T),
    (VALUE, "1e5", "100000", T),
    (VALUE, "1.2 × 10^5", "120000", T),
    (VALUE, "10⁵", "100000", T),
    (VALUE, "10⁵", "105", F),
    (VALUE, "1.2e-3", "0.0012", T),
    (VALUE, "3/4", "0.75", T),
    (VALUE, "3/4", "¾", T),
    (VALUE, "3/4", "5/7", F),
    (VALUE, "1/3", "0.33", T),
    (VALUE, "1/3", "0.3", F),
    (VALUE, "3½", "3.5", T),
    (VALUE, "3½", "3 1/2", T),
    (VALUE, "\\frac{3}{4}", "0.75", T),
    (VALUE, "1/0", "5", N),
    (VALUE, "85", "85/100", N),
    (VALUE, "3/5", "3", N),
    (VALUE, "3/5", "4", F),
    (VALUE, "5 kg", "5 kg", T),
    (VALUE, "5 kg", "5kg", T),
    (VALUE, "5 kg", "5000 g", T),
    (VALUE, "5 kg", "5 g", F),
    (VALUE, "5 kg", "5 cm", F),
    (VALUE, "5 kg", "5", T),
    (VALUE, "5", "5 kg", T),
    (VALUE, "5 kg", "5000", N),
    (VALUE, "5 kg", "7", F),
    (VALUE, "5 kg", "5 kilograms", T),
    (VALUE, "5 km", "3.1 miles", T),
    (VALUE, "5 mW", "5 MW", F),
    (VALUE, "5 m²", "5 square meters", T),
    (VALUE, "5 m^2", "5 m", F),
    (VALUE, "30 °C", "30 degrees Celsius", T),
    (VALUE, "30 °C", "30 °F", N),
    (VALUE, "30°", "30 degrees", T),
    (VALUE, "90 minutes", "1.5 hours", T),
    (VALUE, "2 years", "24 months", T),
    (COUNT, "5 apples", "5 apple", T),
    (COUNT, "5 apples", "5 oranges", N),
    (COUNT, "5 apples", "5", T),
    (VALUE, "12", "The answer is 12.", T),
    (VALUE, "12", "**12**", T),
    (VALUE, "12", "$12$", T),
    (VALUE, "12", "\\boxed{12}", T),
    (VALUE, "12", "\\boxed{12} or \\boxed{13}", N),
    (VALUE, "12", "<answer>12</answer>", T),
    (VALUE, "12", "7 + 5 = 12", T),
    (VALUE, "12", "7 + 5 = 13", F),
    (VALUE, "12", "x = 12", T),
    ("What do the red bars add up to?", "12", "The total of the red bars is about 12.", T),
    (VALUE, "12", "The total of the red dots is about 12.", N),
    (VALUE, "12", "The total is not 12.", N),
    (VALUE, "12", "It is either 12 or 13.", N),
    (VALUE, "12", "12 or 13", N),
    (VALUE, "12", "10-14", N),
    (VALUE, "12", "more than 12", N),
    (VALUE, "12", "at least 12", N),
    (VALUE, "12", "12 out of 20", N),
    (VALUE, "12", "I see 12 red bars and 3 blue ones, so 15.", N),
    (VALUE, "12", "First 3, then 12, hence:\nFinal answer: 12", T),
    (VALUE, "12", "Answer: 12\nAnswer: 13", N),
    (VALUE, "12", "12!", N),
    (VALUE, "5!", "120", N),
    (VALUE, "21", "twenty-first", N),
    (VALUE, "£5", "5 pounds", T),
    (VALUE, "5 lb", "5 pounds", T),
    (VALUE, "5 pounds", "£5", T),
    (VALUE, "5!", "5", N),
    (VALUE, "1000", "1k", T),
    (VALUE, "1,234", "1.234", N),
    (VALUE, "60 mph", "60 miles per hour", T),
    (VALUE, "3 m/s", "10.8 km/h", T),
    (VALUE, "3 m/s", "3 km/h", F),
    (COUNT, "3", "3 bars (A, B and D)", N),  # left to the judge
    (COUNT, "3", "3 (not sure)", N),
    (COUNT, "3", "3 (or 4)", N),
    (YEAR, "1998", "In 1998.", T),
    (YEAR, "1998", "the year 1999", F),
    (VALUE, "12", "1e999", F),
    (VALUE, "12", "nan", N),
    (VALUE, "12", "\u200b12\u200e", T),
    (VALUE, "twenty-five", "25", T),
    (VALUE, "two hundred and five", "205", T),
    (VALUE, "minus three", "-3", T),
    (VALUE, "half", "0.5", T),
    (VALUE, "-5", "minus 5", T),
    (VALUE, "-5", "negative 5", T),
    (VALUE, "5", "minus 5", F),
    ("What percentage voted yes?", "40", "0.4", N),
    ("What percentage voted yes?", "40", "4", F),
    ("What percentage voted yes?", "0.4", "0.5", F),
    (VALUE, "1,000", "1.000", N),
    (VALUE, "1.000", "1000", N),
    (VALUE, "12500", "12.5", F),
]

YES_NO: list[Pair] = [
    (WHICH, "Yes", "yes", T),
    (WHICH, "yes", "Yes.", T),
    (WHICH, "Yes", "Yes, it is taller.", T),
    (WHICH, "Yes", "No, it is not.", F),
    (WHICH, "No", "no", T),
    (WHICH, "No", "No - the red one is.", T),
    (WHICH, "True", "yes", T),
    (WHICH, "False", "Yes", F),
    (WHICH, "Yes", "Yes and no", N),
    (WHICH, "Yes", "Yes, but no", N),
    (WHICH, "Yes", "Yes, although it is unclear", N),
    (WHICH, "No", "No red bar is visible", N),
    (WHICH, "No", "Not really", N),
    (WHICH, "Yes", "yesterday", N),
    (WHICH, "Yes", "The answer is yes.", T),
    (WHICH, "Yes", "It is not.", N),
    (WHICH, "No", "none", N),
]

TEXTS: list[Pair] = [
    (WHICH, "red", "Red", T),
    (WHICH, "red", "RED.", T),
    (WHICH, "the red bar", "Red bar", T),
    (WHICH, "gray", "grey", T),
    (WHICH, "red", "blue", F),
    (WHICH, "red", "dark red", N),
    (WHICH, "red", "not red", N),
    (WHICH, "red", "It is not red", N),
    (WHICH, "Monday", "Mon", T),
    (WHICH, "Monday", "Tuesday", F),
    (WHICH, "left", "right", F),
    (WHICH, "USA", "U.S.A.", T),
    (WHICH, "USA", "United States", N),
    (WHICH, "São Paulo", "Sao Paulo", T),
    (WHICH, "が", "か", N),
    (WHICH, "C++", "C", N),
    (WHICH, "C#", "C", N),
    (WHICH, "version 3.5", "version 35", N),
    (WHICH, "Vitamin A", "Vitamin", N),
    (WHICH, "ﬁne art", "fine art", T),
    (WHICH, "St. Louis", "st louis", T),
    (WHICH, "rock & roll", "rock and roll", T),
    (WHICH, "don't know", "dont know", T),
    (WHICH, "well-known", "well known", T),
    (WHICH, "The Who", "who", T),
    (WHICH, "cat", "concatenate", N),
    (WHICH, "cat", "The picture shows a dog and not a cat.", N),
    ("Which is taller, the oak or the elm?", "oak", "elm", F),
    ("Is it oak or elm?", "oak", "elm", F),
    ("Is it oak or elm?", "oak", "beech", N),
    ("Is it oak or elm?", "oak", "oak or elm", N),
    (WHICH, "Bosnia and Herzegovina", "Bosnia & Herzegovina", T),
    (WHICH, "N/A", "0", N),
    (WHICH, "!", "?", N),
    (WHICH, "3:4", "6:8", N),
    (WHICH, "12:30", "12:31", N),
    (WHICH, "oak", "cannot be determined", N),
    (WHICH, "March 5, 2010", "5 March 2010", T),
    (WHICH, "March 5, 2010", "Friday, 5th of March 2010", T),
    (WHICH, "March 5, 2010", "2010-03-05", T),
    (WHICH, "2010-03-05", "2010-03-06", F),
    (WHICH, "2010-03-05", "03/05/2010", N),
    (WHICH, "25/12/2010", "Dec. 25, 2010", T),
    (WHICH, "Jan 2010", "January 2010", T),
    (WHICH, "Jan 2010", "January 2011", F),
    (WHICH, "Jan 2010", "January 5, 2010", N),
    (WHICH, "February 30, 2010", "March 2, 2010", N),
    (WHICH, "Sept 2010", "Aug 2010", F),
]

LISTS: list[Pair] = [
    (WHICH, "red, blue", "blue, red", T),
    (WHICH, "red, blue", "blue and red", T),
    (WHICH, "red and blue", "Blue, red.", T),
    (WHICH, '["red", "blue"]', "blue, red", T),
    (WHICH, "[2015, 2017]", "2017 and 2015", T),
    (YEAR, "[2015, 2017]", "2017 and 2016", F),
    (WHICH, "red, blue", "blue, red, red", T),
    (WHICH, "red, red, blue", "blue, red", N),
    (WHICH, "red, blue", "red, green", F),
    (WHICH, "red, blue", "red", N),
    (WHICH, "red, blue, green", "red, blue", F),
    (WHICH, "red; blue", "1. red\n2. blue", T),
    (WHICH, "red; blue", "- blue\n- red", T),
    (WHICH, "oak, elm", "elm, beech", N),
    (VALUE, "[100, 104]", "[100, 100]", N),
    (VALUE, "[100, 50]", "[51, 99]", T),
    (WHICH, "(1, 2)", "(2, 1)", N),
    (WHICH, "(1, 2)", "1, 2", T),
    (WHICH, "[1, 5)", "(1, 5]", N),
    (WHICH, "[1, 5]", "(1, 5)", N),
    (WHICH, "[" * 1500, "red", N),
    (WHICH, r"\{1, 2\}", r"\{2, 1\}", T),
    (WHICH, r"\{1, 2\}", "{1, 3}", F),
]

LABELS: list[Pair] = [
    ("Which bar is tallest?", "B", "b", T),
    ("Which bar is tallest?", "B", "(B)", T),
    ("Which bar is tallest?", "B", "B.", T),
    ("Which bar is tallest?", "B", "C", F),
    ("Which bar is tallest?", "B", "Bar B", N),  # left to the judge
    ("Which bar is tallest?", "B", "bar C", N),  # left to the judge
    ("Which bar is tallest?", "B", "not B", N),
    ("Which bar is tallest?", "B", "B and C", N),
    ("Which?\n(A) red\n(B) blue", "B", "B. blue", T),
    ("Which?\n(A) red\n(B) blue", "B", "(A) red", F),
    ("Which?\n(A) red\n(B) blue", "B", "(A) blue", N),
]

CHOICES: list[tuple[str, str, tuple[str, ...], bool | None]] = [
    ("B", "B", RGB, T),
    ("B", "b", RGB, T),
    ("B", "(B)", RGB, T),
    ("B", "B.", RGB, T),
    ("B", "B)", RGB, T),
    ("B", "[B]", RGB, T),
    ("B", "**B**", RGB, T),
    ("B", "B. green", RGB, T),
    ("B", "(B) green", RGB, T),
    ("B", "B: green", RGB, T),
    ("B", "green", RGB, T),
    ("B", "Green.", RGB, T),
    ("green", "B", RGB, T),
    ("(B) green", "B", RGB, T),
    ("green", "the green", RGB, T),
    ("B", "A", RGB, F),
    ("B", "red", RGB, F),
    ("B", "(C) blue", RGB, F),
    ("B", "B. blue", RGB, N),
    ("B", "Answer: B", RGB, T),
    ("B", "The answer is B.", RGB, T),
    ("B", "The correct option is (B) green.", RGB, T),
    ("B", "Option B", RGB, T),
    ("B", "Option C", RGB, F),
    ("B", "The bar is tall, so the answer is (B).", RGB, N),  # left to the judge
    ("B", "The bar is tall, so the answer is (C).", RGB, N),  # left to the judge
    ("B", "A looks right, but the answer is B.", RGB, N),
    ("B", "The answer is not B.", RGB, N),
    ("B", "The answer is a green bar", RGB, N),
    ("A", "The answer is a green bar", RGB, N),
    ("B", "A or B", RGB, N),
    ("B", "A and C", RGB, N),  # left to the judge
    ("B", "A and B", RGB, N),
    ("B", "D", RGB, N),
    ("B", "E. something", RGB, N),
    ("B", "greenish", RGB, N),
    ("B", "red or green", RGB, N),
    ("A, C", "C and A", RGB, T),
    ("AC", "A, C", RGB, T),
    ("AC", "CA", RGB, T),
    ("AC", "A", RGB, F),
    ("A", "A", ("B", "A"), N),
    ("A", "first", ("first", "first"), N),
    ("pink", "B", RGB, N),
    ("B", "", RGB, N),
    ("2", "2", ("1", "2", "3"), T),
    ("2", "B", ("1", "2", "3"), T),
    ("2", "two", ("1", "2", "3"), T),
    ("20 cm", "0.2 m", ("10 cm", "20 cm", "30 cm"), T),
    ("100", "104", ("100", "104"), F),
    ("100", "103", ("100", "104"), N),
    ("A", "I", ("I", "II", "III"), T),
    ("I", "A", ("I", "II", "III"), T),
    ("B", "(A) green", RGB, N),
    ("B", "A. green", RGB, N),
    ("B", "a) green", RGB, N),
    ("A", "(A) red", RGB, T),
    ("A", "A. dog", ("A dog", "A cat"), T),
    ("B", "(A) a cat", ("A dog", "A cat"), N),
    ("B", "A cat", ("A dog", "A cat"), T),
    ("A. red", "A. red", ("A. red", "B. green"), T),
]

MATHS: list[tuple[str, str, bool | None]] = [
    ("2\\sqrt{3}", "\\sqrt{12}", T),
    ("$2\\sqrt{3}$", "\\boxed{2\\sqrt{3}}", T),
    ("2\\sqrt{3}", "3\\sqrt{2}", F),
    ("25\\pi", "25π", T),
    ("x^2+2x+1", "(x+1)^2", T),
    ("x^2+2x+1", "(x-1)^2", F),
    ("x=5", "5", T),
    ("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}", T),
    ("(1, 2)", "(1,2)", T),
    ("(1, 2)", "(2, 1)", F),
    ("[1, 5)", "(1, 5]", F),
    ("[1, 5]", "(1, 5)", N),
    ("2\\pi", "6.28", N),
    ("2\\pi", "7.5", F),
    ("2^{10}", "1024", T),
    ("x > 5", "x < 5", F),
    ("2\\sqrt{3}", "the side is two roots", N),
    ("the side of a square", "2\\sqrt{3}", N),
    ("\\sqrt{", "2", N),
    ("AC/DC", "A*C/D*C", N),
]


def ruling(pair: Pair) -> bool | None:
    return decide(pair[0], pair[1], pair[2]).correct


@pytest.mark.parametrize(
    "pair", NUMBERS + YES_NO + TEXTS + LISTS + LABELS, ids=lambda p: f"{p[1][:20]}|{p[2][:30]}|{p[0][:9]}"
)
def test_pair_is_ruled_as_labelled(pair: Pair) -> None:
    assert ruling(pair) is pair[3]


@pytest.mark.parametrize(("truth", "answer", "choices", "expected"), CHOICES)
def test_choice_is_ruled_as_labelled(truth: str, answer: str, choices: tuple[str, ...], expected: bool | None) -> None:
    assert decide("Which?", truth, answer, choices=choices).correct is expected


@pytest.fixture(scope="module")
def checker() -> MathChecker:
    return MathChecker()


@pytest.mark.parametrize(("truth", "answer", "expected"), MATHS)
def test_formulas_are_ruled_as_labelled(checker: MathChecker, truth: str, answer: str, expected: bool | None) -> None:
    import asyncio

    assert asyncio.run(checker.equal(truth, answer)) is expected


def test_tolerance_of_zero_is_exact() -> None:
    assert decide(VALUE, "100", "100", tolerance=0).correct is True
    assert decide(VALUE, "100", "100.0", tolerance=0).correct is True
    assert decide(VALUE, "100", "101", tolerance=0).correct is False
    assert decide(VALUE, "100", "101", tolerance=0.01).correct is True
    assert decide(VALUE, "1/3", "0.33", tolerance=0).correct is False


def test_exact_text_makes_unlike_texts_wrong_and_leaves_the_rest_open() -> None:
    assert decide(WHICH, "Kim", "Ann", exact_text=True).correct is False
    assert decide(WHICH, "Kim", "kim", exact_text=True).correct is True
    assert decide(WHICH, "Kim", "Kim or Ann", exact_text=True).correct is None
    assert decide(VALUE, "5", "I cannot see it", exact_text=True).correct is False
    assert decide(VALUE, "5", "five or six", exact_text=True).correct is None


def test_the_text_of_a_truth_inside_an_answer_decides_nothing() -> None:
    for answer in (
        "It was not Paris but Rome",
        "Paris? No, Rome",
        "Rome, the Paris of Italy",
        "I doubt that it is Paris",
    ):
        assert decide(WHICH, "Paris", answer).correct is None


def test_hostile_length_is_left_alone_quickly() -> None:
    pieces = (
        "1",
        "<answer>",
        "<answer> ",
        "\\boxed{",
        "\\text{",
        "(",
        "[",
        "{",
        "a,",
        "**",
        "1 ",
        "$",
        "`",
        "- ",
        "a.b.",
    )
    words = ("answer:", "= ", "is ", "the ", "yes,", "\n", "1,", "A, ", "(A) ", "answer is A ", "1/", "10^")
    for piece in (*pieces, *words):
        text = piece * (3990 // len(piece))
        for truth in ("12", "red, blue", "B"):
            began = time.thread_time()
            assert decide(VALUE, truth, text).correct is not True
            assert time.thread_time() - began < 0.5, text[:20]
    assert decide(VALUE, "12", "12" + " " * 4000).correct is None


def test_a_number_equals_itself_in_every_spelling() -> None:
    for value in (1, 7, 12, 20, 100, 999, 1000, 12345, 1234567):
        spellings = [str(value), f"{value:,}", f"{value}.0", f"{value:e}", f"**{value}**", f"The answer is {value}."]
        for spelling in spellings:
            assert decide(WHICH, str(value), spelling, tolerance=0).correct is True, spelling
            assert decide(WHICH, str(value + math.ceil(value / 10)), spelling).correct is not True, spelling
