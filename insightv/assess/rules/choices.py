"""Multiple choice: which of the choices an answer names, by letter, by text, or by both.

An answer that names a letter and the text of another choice, or several choices, names none for sure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from insightv.assess.rules.normalise import contains, final_part, key, plain

_NOUN = r"(?:option|choice|answer|letter)"
_ALONE = re.compile(rf"(?i)^{_NOUN}?\s*[(\[{{]?\s*([a-z])\s*[)\]}}]?\s*[.:]?$")
_WITH_TEXT = re.compile(
    rf"^(?:(?i:{_NOUN})\s+)?(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Za-z])\s*[).:,-])\s*[.:,-]?\s*(\S.*)$", re.DOTALL
)
_LABEL_A = re.compile(r"(?i)^(?:[(\[]\s*a\s*[)\]]|a\s*[).:])")
_SEVERAL = re.compile(r"^[(\[]?[A-Z][)\]]?(?:\s*(?:,|;|&|/|\band\b|,\s*and\b)\s*[(\[]?[A-Z][)\]]?)+\.?$")
_COMPACT = re.compile(r"[A-Z]{2,8}")
_NEGATION = re.compile(
    r"(?i)\b(?:not?|cannot|neither|nor|never|except|incorrect|wrong|instead|rather than|or|but|unless|however|maybe|"
    r"perhaps|possibly|might|could|unsure)\b|n't\b"
)


def _by_text(text: str, choices: Sequence[str]) -> set[int]:
    if _LABEL_A.match(text):  # a label, which a key would leave out as an article: "(A) green" is not "green"
        return {i for i, choice in enumerate(choices) if plain(choice).casefold() == text.casefold()}
    same = {i for i, choice in enumerate(choices) if final_part(choice) == text}
    if len(same) == 1:  # choices may differ by case or by a power alone: Ff and ff, 10^2 and 102
        return same
    wanted = key(text)
    return {i for i, choice in enumerate(choices) if wanted and key(choice) == wanted}


def _index(letter: str, count: int) -> int | None:
    at = ord(letter.upper()) - ord("A")
    return at if 0 <= at < count else None


def named(text: str, choices: Sequence[str]) -> frozenset[int] | None:
    """The choices that the text names, or None where that is not plain.

    A letter that is also the text of another choice is not plain, nor are choices that read the same.
    """
    exact = {i for i, choice in enumerate(choices) if choice.strip() == text.strip()}
    text = final_part(text)
    by_text = exact if len(exact) == 1 else _by_text(text, choices)
    if match := _ALONE.match(text):
        at = _index(match.group(1), len(choices))
        found = by_text | ({at} if at is not None else set())
        return frozenset(found) if len(found) == 1 else None
    if len(by_text) == 1:
        return frozenset(by_text)
    if by_text:
        return None
    if _SEVERAL.match(text):
        marks = {_index(letter, len(choices)) for letter in re.findall(r"\b[A-Z]\b", text)}
        return None if None in marks else frozenset(at for at in marks if at is not None)
    if match := _WITH_TEXT.match(text):
        return _letter_and_text(match.group(1) or match.group(2), match.group(3), choices)
    return None


def _letter_and_text(letter: str, rest: str, choices: Sequence[str]) -> frozenset[int] | None:
    at = _index(letter, len(choices))
    if at is None:
        return None
    if _by_text(rest, choices) == {at}:
        return frozenset({at})
    rest_key = key(rest)
    mentioned = {i for i, choice in enumerate(choices) if key(choice) and contains(rest_key, key(choice))}
    others = set(re.findall(r"\b[B-HJ-Z]\b", rest)) - {letter.upper()}
    return frozenset({at}) if mentioned == {at} and not others and not _NEGATION.search(rest) else None


def _compact(text: str, choices: Sequence[str]) -> frozenset[int] | None:
    """The choices of several letters in a row ("AC")."""
    marks = [_index(letter, len(choices)) for letter in text.strip()] if _COMPACT.fullmatch(text.strip()) else []
    found = frozenset(at for at in marks if at is not None)
    return found if found and len(found) == len(marks) else None


def verdict(truth: str, answer: str, choices: Sequence[str]) -> bool | None:
    """Whether the answer names the true choices, all of them and no other; None where either is not plain.

    Several where one is right are undecided: a hedge, a remark, or what one choice says of others ("both A and B").
    """
    right = named(truth, choices) or _compact(truth, choices)
    given = named(answer, choices) or (_compact(answer, choices) if right and len(right) > 1 else None)
    if not right or not given:
        return None
    if right == given:
        return True
    return None if len(right) == 1 < len(given) else False


_LABEL = re.compile(r"^[(\[]?\s*([A-Ha-h])\s*[)\].:]?$")


def label(truth: str, answer: str, question: str) -> bool | None:
    """For a truth that is one letter while the choices, if any, stand in the question's own text.

    "B", "(B)", "b." name it. "B. red" or "(B) red" does where the question lists "B" in that way.
    """
    wanted = _LABEL.match(truth.strip())
    if wanted is None:
        return None
    text = final_part(answer)
    if given := _LABEL.match(text):
        return given.group(1).upper() == wanted.group(1).upper()
    if match := _WITH_TEXT.match(text):
        letter = (match.group(1) or match.group(2)).upper()
        listed = re.search(rf"(?:^|[\s(\[]){letter}\s*[).:\]]\s*(\S[^\n]*)", question)
        rest = key(match.group(3))
        if listed and rest and f"{key(listed.group(1))} ".startswith(f"{rest} "):
            return letter == wanted.group(1).upper()
    return None
