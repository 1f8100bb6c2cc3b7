"""Is an answer right? What rules can tell without a model: True, False, or None for "cannot be decided by rule".

A rule says True or False only where a careful reader of the truth and the answer alone would not hesitate. Each has a
name that is kept with the score. Mathematics stands apart in `mathematics`, since it needs a process of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from insightv.assess.rules import choices as multiple_choice
from insightv.assess.rules import numbers
from insightv.assess.rules.comparison import Comparison
from insightv.assess.rules.dates import read_date, same_date
from insightv.assess.rules.normalise import contains, final_part, key
from insightv.assess.rules.number_words import mentions_number
from insightv.assess.rules.question_words import comparison, keeps_to, may_be_no_fraction, order_counts
from insightv.assess.rules.yes_no import yes_or_no

LONGEST = 4_000
"""Characters of an answer beyond which no rule looks at it."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the rules say, and which one said it (for None: which came nearest, or "")."""

    correct: bool | None
    rule: str = ""


_SENTENCE = re.compile(
    r"(?is)^(?P<subject>[^\d\n]{1,160}?)(?:\b(?:is|are|was|were|equals|has|have|had|costs|cost|totals|scored)\b|=|:)\s*"
    r"(?:(?:equal|up|down)?\s*to\s+)?(?P<value>\S.{0,79})$"
)
_SUM = re.compile(r"(?s)^[\d\s.,+\-*/\u00d7\u00f7()%$^]{1,160}=\s*(?P<value>[^=]{1,80})$")
_HEDGE = re.compile(
    r"(?i)\b(?:not|no|never|neither|nor|if|or|either|maybe|perhaps|might|may|could|cannot|can't|isn't|aren't|wasn't|"
    r"between|than|"
    r"least|most|over|under|except|wrong|incorrect|but|however|unless|would|unlike|rather|instead|assuming|suppose)\b"
)
_MOST_ITEMS = 20
_ASIDE = re.compile(r"^(?P<value>[^()]{1,80}?)\s*\((?P<aside>[^()]{1,160})\)$")
_ASIDE_COUNTS = re.compile(_HEDGE.pattern + r"|hundred|thousand|million|billion|dozen|percent|%|\bper\b|unsure")
_IN_YEAR = re.compile(r"(?i)^(?:in\s+)?(?:(?:the\s+)?year\s+)?(?P<value>\d{4})$")
_BRACKETED = re.compile(r"([\[(])[-+\d.,\s/]+([\])])")
_IN_BRACKETS = re.compile(r"\([^\w()]?[\d,.]+%?\)")
"""In accounts a number below zero; elsewhere an aside, or one thing of a tuple."""
_ASSIGNED = re.compile(r"^[A-Za-z]\s*=\s*(?P<value>[^=]+)$")

_CLASSES: tuple[frozenset[str], ...] = tuple(
    frozenset(words.split())
    for words in (
        "red green blue yellow orange purple pink brown black white gray cyan magenta",
        "monday tuesday wednesday thursday friday saturday sunday",
        "january february march april may june july august september october november december",
        "left right",
        "up down",
        "top bottom",
        "north south east west",
        "increase decrease",
        "increasing decreasing",
        "higher lower",
        "first second third fourth fifth",
    )
)
_SPELLINGS = {
    "grey": "gray", "violet": "purple", "jan": "january", "feb": "february", "mar": "march", "apr": "april",
    "jun": "june", "jul": "july", "aug": "august", "sep": "september", "sept": "september", "oct": "october",
    "nov": "november", "dec": "december", "mon": "monday", "tue": "tuesday", "tues": "tuesday", "wed": "wednesday",
    "thu": "thursday", "thur": "thursday", "thurs": "thursday", "fri": "friday", "sat": "saturday", "sun": "sunday",
}  # fmt: skip


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
    if len(answer) > LONGEST or len(truth) > LONGEST or not answer.strip() or not truth.strip():
        return Ruling(None)
    if choices:
        return _with_choices(question, truth, answer, choices)
    how = comparison(question, Fraction(str(tolerance)))
    wanted, given = final_part(truth), final_part(answer)
    if (correct := yes_or_no(question, wanted, given)) is not None:
        return Ruling(correct, "yes_no")
    if (correct := multiple_choice.label(truth, answer, question)) is not None:
        return Ruling(correct, "label")
    if numbers.read(wanted) and not may_be_no_fraction(question, wanted):
        correct = _number(wanted, given, how)
        if correct is None and exact_text and not mentions_number(given):
            correct = False
        return Ruling(correct, "number")
    return _text_or_list(question, wanted, given, how, exact_text)


def _with_choices(question: str, truth: str, answer: str, choices: Sequence[str]) -> Ruling:
    correct = multiple_choice.verdict(truth, answer, choices)
    if correct is None:
        correct = _number_among(question, truth, answer, choices)
    return Ruling(correct, "choice")


def _number_among(question: str, truth: str, answer: str, choices: Sequence[str]) -> bool | None:
    """Choices that are all quantities: the answer must equal one of them exactly, without tolerance."""
    exact = replace(comparison(question, Fraction(0)), year=False)
    readings = [numbers.read(final_part(choice)) for choice in choices]
    right = multiple_choice.named(truth, choices)
    if not all(readings) or right is None or len(right) != 1:
        return None
    given = _quantities(final_part(answer), exact)
    met = {i for i, reading in enumerate(readings) if exact.verdict(reading, given)}
    return met == right if len(met) == 1 else None


def _quantities(text: str, how: Comparison) -> tuple[numbers.Quantity, ...]:
    """The text as a quantity, alone or at the end of a plain sentence or a sum ("The total is 5 kg", "2 + 3 = 5")."""
    if found := numbers.read(text):
        return found
    match = _ASIDE.match(text)
    if match and not mentions_number(match["aside"]) and not _ASIDE_COUNTS.search(match["aside"]):
        return _quantities(match["value"], how)
    if match := _SUM.match(text) or _ASSIGNED.match(text) or _IN_YEAR.match(text):
        return numbers.read(match["value"].strip())
    match = _SENTENCE.match(text)
    if match is None or _HEDGE.search(match["subject"]) or not keeps_to(match["subject"], how):
        return ()
    return numbers.read(match["value"].strip())


def _number(truth: str, answer: str, how: Comparison) -> bool | None:
    wanted = numbers.read(truth)
    if how.exact and truth != answer and truth.startswith("0") and truth.isdigit() and answer.isdigit():
        return None  # 007 against 7
    return how.verdict(wanted, _quantities(answer, how)) if wanted else None


def formulas(question: str, truth: str, answer: str) -> bool:
    """Whether mathematics may decide what `decide` leaves open: not where both are numbers, or the truth is a date."""
    wanted, given = final_part(truth), final_part(answer)
    if re.fullmatch(r"\d+/\d+/\d+", wanted) or _IN_BRACKETS.fullmatch(wanted):
        return False
    return not may_be_no_fraction(question, wanted) and not (numbers.read(wanted) and numbers.read(given))


def split_list(text: str) -> tuple[list[str], bool]:
    """The items of a list, and whether the text is a list beyond doubt (brackets, semicolons, two commas or more)."""
    if text.startswith("[") and text.endswith("]"):
        try:
            items = json.loads(text)
        except (ValueError, RecursionError):
            items = [item.strip(" '\"") for item in re.split(r"[,;]\s*", text[1:-1])]
        if isinstance(items, list) and items and all(isinstance(item, str | int | float) for item in items):
            return [str(item) for item in items], True
        return [text], False
    if match := re.fullmatch(r"\\?\{(.*?)\\?\}", text, re.DOTALL):
        text = match[1]
    separator = r"\s*;\s*|\n+" if re.search(r"[;\n]", text) else r"\s*,\s*(?!\d{3}\b)(?:and\s+)?|\s+and\s+|\s+&\s+"
    items = [re.sub(r"^(?:[-*•]\s+|\d+[.)]\s+)", "", item).strip() for item in re.split(separator, text)]
    items = [item for item in items if item]
    return items, len(items) > 2 or bool(re.search(r";|\n", text))


def _item(truth: str, answer: str, how: Comparison) -> bool | None:
    if key(truth) and key(truth) == key(answer):
        wanted = numbers.read(truth)
        return how.verdict(wanted, numbers.read(answer)) if wanted else True
    correct = _number(truth, answer, how)
    return _unlike(truth, answer) if correct is None else correct


def _list(truth: str, answer: str, how: Comparison) -> bool | None:
    """Order does not count, and an item said twice counts once, unless the truth itself says it twice.

    True where the items can be paired off. False where an item of either is, beyond doubt, none of the other's. A tuple
    of numbers in round brackets is no list: (1, 2) is not (2, 1). Nor is 12,50, which may be a price.
    """
    if re.fullmatch(r"\([-+\d.,\s/]+\)|\D{0,4}\d+,\d+\D{0,4}", truth):
        return None
    (wanted, sure), (given, _) = split_list(truth), split_list(answer)
    if len(wanted) < 2 or not given or max(len(wanted), len(given)) > _MOST_ITEMS:
        return None
    distinct = list({key(item): item for item in wanted}.values())
    if len(distinct) == len(wanted):
        given = list({key(item): item for item in given}.values())
    table = [[_item(w, g, how) for g in given] for w in wanted]
    if len(wanted) == len(given) and _pairs_off(table):
        return True
    if not sure and len(given) < 2:
        return None
    columns = [list(column) for column in zip(*table, strict=True)]
    return False if any(set(line) == {False} for line in table + columns) else None


def _in_order(truth: str, answer: str, how: Comparison) -> bool:
    """Whether two lists hold the same items one by one."""
    (wanted, _), (given, _) = split_list(truth), split_list(answer)
    return len(wanted) == len(given) and all(_item(*pair, how) for pair in zip(wanted, given, strict=True))


def _pairs_off(table: list[list[bool | None]]) -> bool:
    """Whether each row can have a column of its own where it is True (augmenting paths)."""
    owner: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, fits in enumerate(table[row]):
            if fits and column not in tried:
                tried.add(column)
                if column not in owner or place(owner[column], tried):
                    owner[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(table)))


def _unlike(truth: str, answer: str) -> bool | None:
    """False for two different members of one closed class (colours, weekdays, months, directions, ...)."""
    wanted, given = (_SPELLINGS.get(key(text), key(text)) for text in (truth, answer))
    if any(wanted in members and given in members for members in _CLASSES):
        return wanted == given
    return None


def _text_or_list(question: str, truth: str, answer: str, how: Comparison, exact_text: bool) -> Ruling:
    wanted, given = key(truth), key(answer)
    brackets = [found.groups() for text in (truth, answer) if (found := _BRACKETED.fullmatch(text))]
    if len(brackets) == 2 and brackets[0] != brackets[1]:
        return Ruling(None, "text")  # an open and a closed interval, or a list and a tuple
    if truth != answer and _IN_BRACKETS.fullmatch(truth):
        return Ruling(None, "text")
    if wanted and wanted == given:
        return Ruling(None if _written_apart(truth, answer) else True, "text")
    dates = read_date(truth), read_date(answer)
    if dates[0] and dates[1]:
        return Ruling(same_date(dates[0], dates[1]), "date")
    listed = _list(truth, answer, how)
    if listed and order_counts(question) and not _in_order(truth, answer, how):
        return Ruling(None, "list")
    if listed is not None:
        return Ruling(listed, "list")
    alike = _unlike(truth, answer)
    if alike is not None:
        return Ruling(alike, "text")
    asked = key(question)
    if wanted and given and _named_as_alternatives(asked, wanted, given):
        return Ruling(False, "text")
    apart = set(wanted.split()) != set(given.split()) and not contains(given, wanted) and not contains(wanted, given)
    if exact_text and wanted and given and apart:
        return Ruling(False, "text")
    return Ruling(None, "text")


def _written_apart(truth: str, answer: str) -> bool:
    """Whether texts of one key differ in accents that both have (año, año), or in the case of a symbol (CO, Co)."""
    if truth.casefold() == answer.casefold():
        return len(truth) == 2 and truth != answer and not (truth.islower() or answer.islower())
    return not (truth.isascii() or answer.isascii()) and re.sub(r"\W", "", truth) != re.sub(r"\W", "", answer)


def _named_as_alternatives(question: str, truth: str, answer: str) -> bool:
    """Whether the question offers both: "... red or blue?", answered with the other one."""
    either = (f"{truth} or {answer}", f"{answer} or {truth}")
    return any(contains(question, pair) or contains(question, pair.replace(" or ", " or a ")) for pair in either)
