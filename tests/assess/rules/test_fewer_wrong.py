"""Pairs that look alike and are not: letters that stand for something, years, brackets, tiny numbers, alternatives."""

from __future__ import annotations

import pytest

from insightv.assess.rules.decide import decide, formulas
from insightv.assess.rules.math_child import compare

T, F, N = True, False, None
GENOTYPE, WHICH = "What is the genotype of the offspring?", "Which?"

LETTERS = [
    (GENOTYPE, "Bb x bb", "Bb x Bb", N),
    (GENOTYPE, "Ff", "ff", N),
    (GENOTYPE, "AABBCC", "aabbcc", N),
    (GENOTYPE, "Ff", "Ff", T),
    (WHICH, "X^R X^r", "X^R X^R", N),
    (WHICH, "AaBb", "AABB", N),
    (WHICH, "CO", "Co", N),
    (WHICH, "NaCl", "NACL", N),
    ("Which unit is it?", "MPa", "mPa", N),
    ("What element is it?", "NO", "No", N),
    ("What element is it?", "Si", "yes", N),
    ("What element is it?", "Silicon", "carbon", N),
    (WHICH, "Lord Of The Rings", "Lord of the rings", T),
    (WHICH, "YouTube", "Youtube", T),
    (WHICH, "A Dog", "a dog", T),
    (WHICH, "Q3 2020", "q3 2020", T),
    (WHICH, "STOP", "stop", T),
]
YEARS = [
    ("What's the year with the highest value?", F),
    ("Find the year with the lowest number of births.", F),
    ("Name the year in which the total was largest.", F),
    ("Which of the years has the highest value?", F),
    ("Give the year of the maximum difference.", F),
    ("What was the best year by total sales?", F),
    ("What is the most recent year with a value above 40?", F),
    ("Look at the chart. When was the value highest?", F),
    ("During which of these years was the total lowest?", F),
    ("At what time was the total highest?", N),
    ("What is the x value of the leftmost bar?", N),
    ("What is the label of the bar with the largest amount?", N),
    ("What was the value in the year 2010?", N),
    ("En quelle ann\u00e9e le total \u00e9tait-il le plus \u00e9lev\u00e9?", N),
    ("\u00bfEn qu\u00e9 a\u00f1o fue mayor el total?", N),
    ("What is the value of the bar?", T),
]
BRACKETS = [
    ("[a,b)", "(a,b]"),
    ("[a, b]", "(a, b)"),
    ("{a, b}", "[a, b]"),
    ("(0,1) \\cup (2,3)", "[0,1) \\cup (2,3)"),
    ("x \\in [0, a]", "x \\in (0, a)"),
    ("\\left[0, \\infty\\right)", "\\left(0, \\infty\\right)"),
]
TINY = [
    ("\\frac{1}{2004!}", "\\frac{1}{2006!}", N),
    ("\\frac{1}{2^{99}}", "\\frac{1}{2^{98}}", N),
    ("\\frac{1}{2^{99}}", "2^{-99}", T),
    ("\\frac{1}{12}", "0.0833333333", T),
    ("\\frac{x}{1000}", "0.001x", T),
]
ALTERNATIVES = [
    ("What colour is the sign?", "['red', 'orange', 'red']", "red", T),
    ("What colour is the sign?", "['red', 'orange', 'red']", "orange", T),
    ("What colour is the sign?", '["red", "orange"]', "blue", F),
    ("What colour is the sign?", "['black' 'black']", "black", T),
    ("What is it?", "['2.83', '2.8']", "2.8", T),
    ("What is it?", "['ramp', 'skate ramp']", "a wall", N),
    ("What is it?", "red || orange", "orange", T),
    ("Which two colours are shown?", "['red', 'blue']", "red", F),
    ("Which two colours are shown?", "['red', 'blue']", "blue and red", T),
    ("List the values.", "[1, 2, 3]", "1, 2, 3", T),
]
CHOICES = [
    (("FF", "ff", "Ff"), "B", "ff", T),
    (("FF", "ff", "Ff"), "B", "Ff", F),
    (("FF", "ff", "Ff"), "Ff", "C", T),
    (("x\u00b2", "x2", "2x"), "A", "x^2", T),
    (("x\u00b2", "x2", "2x"), "A", "x2", F),
    (("MW", "mW", "kW"), "A", "mW", F),
    (("MW", "mW", "kW"), "A", "mw", N),
    (("H\u2082O", "H2O"), "A", "H\u2082O", T),
    (("H\u2082O", "H2O"), "A", "H2O", F),
]


@pytest.mark.parametrize(("choices", "truth", "answer", "expected"), CHOICES)
def test_choices_that_differ_by_case_or_power_are_told_apart(
    choices: tuple[str, ...], truth: str, answer: str, expected: bool | None
) -> None:
    assert decide("Which?", truth, answer, choices=choices).correct is expected


@pytest.mark.parametrize(("question", "truth", "answer", "expected"), LETTERS + ALTERNATIVES)
def test_pair_is_ruled(question: str, truth: str, answer: str, expected: bool | None) -> None:
    assert decide(question, truth, answer).correct is expected


@pytest.mark.parametrize(("question", "expected"), YEARS)
def test_another_year_is_right_only_as_a_value(question: str, expected: bool | None) -> None:
    assert decide(question, "2015", "2016").correct is expected
    assert decide(question, "2015", "2015").correct is True


@pytest.mark.parametrize(("truth", "answer"), BRACKETS)
def test_other_brackets_are_left_to_the_judge(truth: str, answer: str) -> None:
    assert decide("What is the interval?", truth, answer).correct is None
    assert not formulas("What is the interval?", truth, answer)
    assert decide("What is the interval?", truth, truth).correct is True


def test_letters_that_stand_for_something_are_no_formula() -> None:
    assert not formulas(GENOTYPE, "X^R X^r", "X^R X^R")
    assert formulas(WHICH, "2x + 1", "1 + 2x")


@pytest.mark.parametrize(("truth", "answer", "expected"), TINY)
def test_tiny_numbers_are_compared_as_they_are(truth: str, answer: str, expected: bool | None) -> None:
    assert compare(truth, answer) is expected
