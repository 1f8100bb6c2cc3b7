"""Does a text say again what another said? For steps of one path: steps of one form about other things do not count."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+|[^\w\s]")
_ALIKE = 0.9  # Jaccard likeness of word triples: one word of fifty changed gives 0.88
_LONG = 20  # words from which likeness counts; shorter texts must be the same


def says_again(text: str, earlier: str) -> bool:
    """True for the same text but for case, white space and a closing period, and for long texts that differ in little.

    Texts with other numbers, or numbers in another order, never say the same.
    """
    words, before = _words(text), _words(earlier)
    if words == before:
        return True
    if [word for word in words if _number(word)] != [word for word in before if _number(word)]:
        return False
    if min(len(words), len(before)) < _LONG:
        return False
    ours, theirs = _triples(words), _triples(before)
    return len(ours & theirs) / len(ours | theirs) >= _ALIKE


def _words(text: str) -> list[str]:
    words = _WORD.findall(text.casefold())
    while words and words[-1] == ".":
        words.pop()
    return words


def _number(word: str) -> bool:
    return any(character.isdigit() for character in word)


def _triples(words: list[str]) -> set[tuple[str, ...]]:
    return set(zip(words, words[1:], words[2:], strict=False))
