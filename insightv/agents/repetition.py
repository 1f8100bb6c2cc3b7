"""Does a text say again what another said? For steps of one path: steps of one form about other things do not count."""

from __future__ import annotations

import re
from functools import cached_property

_WORD = re.compile(r"\w+|[^\w\s]")
_ALIKE = 0.9  # Jaccard likeness of word triples: one word of fifty changed gives 0.88
_LONG = 20  # words from which likeness counts; shorter texts must be the same


class Said:
    """A text taken apart once, to be held against many others."""

    def __init__(self, text: str) -> None:
        self._words = _WORD.findall(text.casefold())
        while self._words and self._words[-1] == ".":
            self._words.pop()
        self._numbers = [word for word in self._words if not word.isalpha() and any(map(str.isdigit, word))]

    def again(self, earlier: Said) -> bool:
        """True for the same text but for case, white space and a closing period, and for long texts alike in most.

        Texts with other numbers, or numbers in another order, never say the same.
        """
        if self._words == earlier._words:
            return True
        if self._numbers != earlier._numbers or min(len(self._words), len(earlier._words)) < _LONG:
            return False
        ours, theirs = self._triples, earlier._triples
        shared = len(ours & theirs)
        return shared / (len(ours) + len(theirs) - shared) >= _ALIKE

    @cached_property
    def _triples(self) -> set[tuple[str, ...]]:
        return set(zip(self._words, self._words[1:], self._words[2:], strict=False))
