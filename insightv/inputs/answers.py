"""The answer of a row: a text, a number, a choice's place, or several answers of which any is right."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from insightv.inputs.columns import RowRules
from insightv.inputs.fields import Report, read_answer, same_text
from insightv.inputs.listed import accepted, asks_several, quoted_texts

_WHOLE = re.compile(r"\s*(\d{1,3})(?:\.0)?\s*")
_LETTER = re.compile(r"[A-Z]")


@dataclass(frozen=True, slots=True)
class AnswerCell:
    """What stands for the answer, and what it is read by: the question's text, its choices, a typed column or not."""

    value: object
    question: str
    choices: tuple[str, ...] | None
    typed: bool
    numbers: bool = False
    """Whether the choices are numbers themselves, so that a number is one of them."""


def read_answers(cell: AnswerCell, rules: RowRules, report: Report) -> tuple[str | None, tuple[str, ...]]:
    """The answer, and further ones that are as right."""
    listed = accepted(cell.value)
    if cell.choices is not None:
        return _choice(cell, listed, rules, report), ()
    if isinstance(cell.value, str):
        listed = None if asks_several(cell.question) else quoted_texts(cell.value.strip()) or None
        listed = listed and list(dict.fromkeys(listed))
    elif isinstance(cell.value, list | tuple | Mapping) and not listed:
        report("answer", "wrong_type", "a string is needed, or a list of strings any of which is right")
        return None, ()
    if not listed:
        return read_answer(cell.value, None, cell.typed, rules.require_answer, report), ()
    texts = [read_answer(text, None, cell.typed, rules.require_answer, report) for text in listed]
    said = [text for text in texts if text is not None]
    return (said[0] if said else None), tuple(said[1:])


def _choice(cell: AnswerCell, listed: list[str] | None, rules: RowRules, report: Report) -> str | None:
    value, choices = cell.value, cell.choices or ()
    if listed is not None and len(listed) > 1:
        if not all(_LETTER.fullmatch(text) for text in listed):
            report("answer", "several", "a list of answers beside choices; write the letters of the right ones: A, C")
            return None
        value = ", ".join(sorted(listed))
    elif isinstance(value, list | tuple):
        value = listed[0] if listed else None
    number = _place(value)
    if number is not None and rules.answer_is == "index":
        if number >= len(choices):
            report("answer", "not_a_choice", f"{number} is no place of {len(choices)} choices counted from 0")
            return None
        value = _letter_of(number, choices)
    elif number is not None and rules.answer_is == "auto" and _is_unclear(value, number, cell, rules):
        cure = 'say which: [questions] answer = "index" (counted from 0), or "text"'
        what = f"{number} beside choices may be a place among them, or a choice's text"
        report("answer", "index_or_text", f"{what}; {cure}")
        return None
    return read_answer(value, cell.choices, cell.typed, rules.require_answer, report)


def _place(value: object) -> int | None:
    """The whole number that a value is, as a number or in digits."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    match = _WHOLE.fullmatch(str(value)) if not isinstance(value, int) or abs(value) < 1000 else None
    return int(match[1]) if match else None


def _is_unclear(value: object, number: int, cell: AnswerCell, rules: RowRules) -> bool:
    """Whether a number may be a place: any that is no text, and digits where some row of the file shows them to be."""
    if not isinstance(value, str):
        return not cell.numbers
    names = any(same_text(choice) == same_text(value) for choice in cell.choices or ())
    return rules.digits or (not names and number <= len(cell.choices or ()))


def _letter_of(number: int, choices: tuple[str, ...]) -> str:
    """The letter of a choice, or its text where that letter is the text of another one."""
    letter = chr(ord("A") + number)
    taken = any(same_text(choice) == same_text(letter) for at, choice in enumerate(choices) if at != number)
    return choices[number] if taken else letter
