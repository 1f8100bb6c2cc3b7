"""The tables of rules: each row has a name of its own, a reason, and an example that it and no other row decides."""

from __future__ import annotations

import pytest

from insightv.assess.rules.comparison import NUMBER_RULES
from insightv.assess.rules.decide import RULES, decide

VALUE, WHICH, COUNT, RGB = (
    "What is the value of the bar?",
    "Which?",
    "How many bars are there?",
    ("red", "green", "blue"),
)

Example = tuple[str, str, str, bool | None]

NUMBERS: dict[str, Example] = {
    "other_things": (COUNT, "5 apples", "5 oranges", None),
    "letter": (VALUE, "7", "7A", None),
    "points": (VALUE, "25%", "25 percentage points", None),
    "degrees": (VALUE, "20\u00b0C", "20\u00b0", True),
    "heat": (VALUE, "30 \u00b0C", "30 \u00b0F", None),
    "dimension": (VALUE, "5 kg", "5 cm", False),
    "other_unit": ("What is the height in meters?", "5", "5 feet", None),
    "point_or_comma": (VALUE, "1.000", "1000", None),
    "percent_or_share": (VALUE, "0.25", "0.25%", None),
    "share_asked": ("What percentage is red?", "40", "0.4", None),
    "equal": (VALUE, "5 kg", "5000 g", True),
    "scale_unsaid": (VALUE, "1.2", "1.2 million", None),
    "change": ("What is the decrease?", "5", "-5", None),
    "out_of": (VALUE, "85", "85/100", None),
    "unit_unsaid": (VALUE, "5 kg", "5000", None),
    "far": (VALUE, "100", "106", False),
    "count": (COUNT, "30", "31", False),
    "year": ("In which year was it?", "2015", "2016", False),
    "fraction": (VALUE, "2/3", "0.67", True),
    "cents": ("What is the total?", "$12.50", "$12.05", None),
    "result": ("Which page number is shown?", "120", "121", None),
    "near": (VALUE, "100", "105", True),
}

TEXTS: dict[str, Example] = {
    "size": (WHICH, "red", "red" * 4000, None),
    "accepted": (WHICH, "['red', 'orange']", "orange", True),
    "yes_no": ("Is it red?", "yes", "No.", False),
    "label": (WHICH, "B", "(C)", False),
    "number": (VALUE, "100m", "100 million", None),
    "brackets": (WHICH, "[1, 5)", "(1, 5]", None),
    "spelling": (WHICH, "CO", "Co", None),
    "same_text": (WHICH, "the red bar", "Red bar", True),
    "date": (WHICH, "March 5, 2010", "5 March 2010", True),
    "order": ("Rank the months.", "Jan, Feb, Mar", "Mar, Feb, Jan", None),
    "list": (WHICH, "red, blue", "blue and red", True),
    "closed_class": (WHICH, "red", "blue", False),
    "alternatives": ("Is it oak or elm?", "oak", "elm", False),
}

CHOICES: dict[str, tuple[tuple[str, ...], str, str, bool | None]] = {
    "choice": (RGB, "B", "(B) green", True),
    "choice_by_value": (("10 cm", "20 cm"), "20 cm", "0.2 m", True),
    "no_choice": (RGB, "B", "greenish", None),
}

LABELS: dict[str, Example] = {
    "no_number": (VALUE, "5", "I cannot see it", False),
    "unlike_text": (WHICH, "Kim", "Ann", False),
}


@pytest.mark.parametrize("name", [*NUMBERS, *TEXTS, *LABELS])
def test_rule_decides_its_example(name: str) -> None:
    question, truth, answer, expected = (NUMBERS | TEXTS | LABELS)[name]
    ruling = decide(question, truth, answer, exact_text=name in LABELS)
    assert (ruling.rule, ruling.correct) == (name, expected)


@pytest.mark.parametrize("name", CHOICES)
def test_rule_for_choices_decides_its_example(name: str) -> None:
    choices, truth, answer, expected = CHOICES[name]
    ruling = decide(WHICH, truth, answer, choices=choices)
    assert (ruling.rule, ruling.correct) == (name, expected)


def test_every_rule_has_a_name_of_its_own_a_reason_and_an_example() -> None:
    rules = [(rule.name, rule.reason) for rule in RULES] + [(rule.name, rule.reason) for rule in NUMBER_RULES]
    names = [name for name, _ in rules]
    assert len(names) == len(set(names))
    assert set(names) == NUMBERS.keys() | TEXTS.keys() | CHOICES.keys() | LABELS.keys()
    assert all(reason for _, reason in rules)
