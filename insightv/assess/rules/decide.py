"""Is an answer right? `RULES` is the table of what can be told without a model: the first rule that applies decides.

A rule says right or wrong only where a careful reader of the truth and the answer alone would not hesitate; what is
open is left to the judge. Mathematics stands apart in `mathematics`, since it needs a process of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from insightv.assess.rules import choices as multiple_choice
from insightv.assess.rules import numbers
from insightv.assess.rules.comparison import OPEN, Comparison, Rule, Ruling, first_of, when
from insightv.assess.rules.dates import read_date, same_date
from insightv.assess.rules.letters import case_counts
from insightv.assess.rules.lists import in_order, same_items, unlike
from insightv.assess.rules.normalise import contains, final_part, key
from insightv.assess.rules.number_words import mentions_number
from insightv.assess.rules.question_words import comparison, may_be_no_fraction, order_counts, stated
from insightv.assess.rules.yes_no import yes_or_no
from insightv.inputs.listed import asks_several, quoted_texts

LONGEST = 4_000
"""Characters of an answer beyond which no rule looks at it."""
_BRACKETED = re.compile(r"[\[({][^\[\](){}]*[,;][^\[\](){}]*[\])}]")
_IN_BRACKETS = re.compile(r"\([^\w()]?[\d,.]+%?\)")


@dataclass(frozen=True)
class _Case:
    """A truth and an answer, and what the question says of them."""

    question: str
    truth: str
    answer: str
    choices: Sequence[str]
    tolerance: float
    exact_text: bool

    @cached_property
    def wanted(self) -> str:
        return final_part(self.truth)

    @cached_property
    def given(self) -> str:
        return final_part(self.answer)

    @cached_property
    def keys(self) -> tuple[str, str]:
        return key(self.wanted), key(self.given)

    @cached_property
    def how(self) -> Comparison:
        return comparison(self.question, Fraction(str(self.tolerance)))

    @cached_property
    def by_number(self) -> Ruling | None:
        """What the numbers say; None where the truth is no number."""
        truths = () if may_be_no_fraction(self.question, self.wanted) else numbers.read(self.wanted)
        return self.how.compare(truths, stated(self.given, self.how)) if truths else None

    @cached_property
    def by_items(self) -> bool | None:
        return same_items(self.wanted, self.given, self.how)


def _choice(case: _Case) -> bool | None:
    return multiple_choice.verdict(case.truth, case.answer, case.choices) if case.choices else None


def _label(case: _Case) -> bool | None:
    return multiple_choice.label(case.truth, case.answer, case.question)


def _choice_by_value(case: _Case) -> bool | None:
    """Choices that are all quantities: the answer must equal one of them exactly, without tolerance."""
    if not case.choices:
        return None
    exact = comparison(case.question, Fraction(0))
    readings = [numbers.read(final_part(choice)) for choice in case.choices]
    right = multiple_choice.named(case.truth, case.choices)
    if not all(readings) or right is None or len(right) != 1:
        return None
    given = stated(case.given, exact)
    met = {at for at, reading in enumerate(readings) if exact.compare(reading, given).correct}
    return met == right if len(met) == 1 else None


def _number(case: _Case) -> Ruling | None:
    found = case.by_number
    unread = found and found.correct is None and case.exact_text and not mentions_number(case.given)
    return None if unread else found


def _accepted(case: _Case) -> Ruling | None:
    """What any of the answers says that the truth lists in quotes; None where the question may ask for all of them."""
    answers = quoted_texts(case.truth.strip())
    if not answers or case.choices or asks_several(case.question) or case.by_items:
        return None
    rulings = [first_of(RULES, replace(case, truth=truth)) for truth in dict.fromkeys(answers)]
    return Ruling(any_right(rulings).correct)


def _other_brackets(case: _Case) -> bool:
    """An open and a closed interval, a list and a tuple; (5), which in accounts is below zero."""
    bracketed = _IN_BRACKETS.fullmatch(case.wanted) and case.wanted != case.given
    return bool(bracketed) or _unlike_brackets(case.wanted, case.given)


def _unlike_brackets(truth: str, answer: str) -> bool:
    """Whether both hold things in brackets, and not in the same ones: [a, b) and (a, b], {1, 2} and (1, 2)."""
    kinds = [_brackets(text) for text in (truth, answer)]
    return all(kinds) and kinds[0] != kinds[1]


def _brackets(text: str) -> list[str]:
    """The two brackets of each pair, triple or set, in order; the curved ones of a set of LaTeX as those of any set."""
    found = _BRACKETED.findall(re.sub(r"\\(?:left|right|big[lr]?)\b|\\(?=[{}])", "", text, flags=re.IGNORECASE))
    return [group[0] + group[-1] for group in found]


def _written_apart(case: _Case) -> bool:
    """Whether texts of one key differ in accents that both have, or in the case of letters that stand for something."""
    truth, answer = case.wanted, case.given
    if not _same_text(case):
        return False
    if truth.casefold() == answer.casefold():
        return case_counts(case.question, truth, answer)
    return not (truth.isascii() or answer.isascii()) and re.sub(r"\W", "", truth) != re.sub(r"\W", "", answer)


def _date(case: _Case) -> bool | Ruling | None:
    truth, answer = read_date(case.wanted), read_date(case.given)
    if not truth or not answer:
        return None
    same = same_date(truth, answer)
    return OPEN if same is None else same


def _alternatives(case: _Case) -> bool:
    """Whether the question offers both: "... red or blue?", answered with the other one."""
    truth, answer = case.keys
    pairs = [f"{a} {between} {b}" for a, b in ((truth, answer), (answer, truth)) for between in ("or", "or a")]
    return bool(truth and answer) and any(contains(key(case.question), pair) for pair in pairs)


def _unlike_text(case: _Case) -> bool:
    truth, answer = case.keys
    apart = set(truth.split()) != set(answer.split()) and not contains(answer, truth) and not contains(truth, answer)
    return bool(case.exact_text and truth and answer and apart)


def _comparable(case: _Case) -> bool:
    texts = case.truth, case.answer
    return all(text.strip() and len(text) <= LONGEST for text in texts)


def _same_text(case: _Case) -> bool:
    return bool(case.keys[0]) and case.keys[0] == case.keys[1]


def _out_of_order(case: _Case) -> bool:
    ordered = case.by_items and order_counts(case.question)
    return bool(ordered) and not in_order(case.wanted, case.given, case.how)


RULES: tuple[Rule[_Case], ...] = (
    when(OPEN, "size", "Nothing is compared with nothing, or with a page.", lambda c: not _comparable(c), "text"),
    Rule("choice", "The answer names a choice.", _choice, "choice"),
    Rule("choice_by_value", "The answer is the value of one choice.", _choice_by_value, "choice"),
    when(OPEN, "no_choice", "Only a choice answers a choice question.", lambda c: bool(c.choices), "choice"),
    Rule("accepted", "Any of the answers that are listed in quotes is right.", _accepted, "list"),
    Rule("yes_no", "A yes is no no.", lambda c: yes_or_no(c.question, c.wanted, c.given), "yes_no"),
    Rule("label", "A letter names one thing of the picture.", _label, "label"),
    Rule("number", "Two numbers are compared, in all the ways to read them (`NUMBER_RULES`).", _number),
    when(False, "no_number", "Where labels are fixed, a text is no number.", lambda c: bool(c.by_number), "number"),
    when(OPEN, "brackets", "Brackets may make an interval, a tuple or a number below zero.", _other_brackets, "text"),
    Rule("closed_class", "Red is not blue, and Mon is Monday.", lambda c: unlike(c.wanted, c.given), "text"),
    when(OPEN, "spelling", "Pêche is not péché, and CO is not Co.", _written_apart, "text"),
    when(True, "same_text", "Case, articles and punctuation do not count.", _same_text, "text"),
    Rule("date", "A date may be written in many ways.", _date, "date"),
    when(OPEN, "order", "The question may ask for an order.", _out_of_order, "list"),
    Rule("list", "The items of both lists pair off, or one has no fellow.", lambda c: c.by_items, "list"),
    when(False, "alternatives", "The question offers both, so that one excludes the other.", _alternatives, "text"),
    when(False, "unlike_text", "Where labels are fixed, an unlike one is another.", _unlike_text, "text"),
)


def decide(
    question: str,
    truth: str,
    answer: str,
    *,
    choices: Sequence[str] | None = None,
    tolerance: float = 0.05,
    exact_text: bool = False,
) -> Ruling:
    """What the rules say of an answer.

    Args:
        question: the question's own text, whose words say how a number is to be met (see `comparing.Comparison`).
        truth: the ground truth.
        answer: the answer, however it is worded; only an answer that is plain is decided.
        choices: the choices, where the question has them.
        tolerance: relative tolerance for numbers, 0 for none.
        exact_text: whether a text that is unlike the truth and does not hold it is wrong, as ChartQA has it, and not
            merely undecided; for data whose answers come from a fixed set of labels.
    """
    return first_of(RULES, _Case(question, truth, answer, choices or (), tolerance, exact_text))


def any_right(rulings: Sequence[Ruling]) -> Ruling:
    """The ruling on an answer of which each of several truths says one: right by any, wrong by all."""
    right = [ruling for ruling in rulings if ruling.correct]
    wrong = all(ruling.correct is False for ruling in rulings)
    return right[0] if right else rulings[0] if wrong else OPEN


def formulas(question: str, truth: str, answer: str) -> bool:
    """Whether mathematics may decide what `decide` leaves open: not where both are numbers, or the truth is a date."""
    wanted, given = final_part(truth), final_part(answer)
    if re.fullmatch(r"\d+/\d+/\d+", wanted) or _IN_BRACKETS.fullmatch(wanted) or _unlike_brackets(wanted, given):
        return False
    if case_counts(question, wanted, given):  # math-verify takes X^R for X^r
        return False
    return not may_be_no_fraction(question, wanted) and not (numbers.read(wanted) and numbers.read(given))
