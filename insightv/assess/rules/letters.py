"""Whether the case of letters carries meaning: Ff is not ff, CO not Co, mW not MW; "The Red Bar" is "the red bar".

A word is the same in lower case, with a capital, and in capitals. A symbol is not: what the question asks for by name
(an allele, a unit, a formula, an element), or what is too short or too mixed to be a word.
"""

from __future__ import annotations

import re

_ASKS_SYMBOL = re.compile(
    r"\b(?:genotyp\w*|allel\w*|gametes?|genes?|punnett|homozygous|heterozygous|offspring|cross(?:es)?|phenotyp\w*"
    r"|symbols?|formula\w*|elements?|chemical\w*|compounds?|molecul\w*|isotop\w*|ions?|atoms?|units?|notation"
    r"|variables?|prefix\w*|abbreviat\w*|passwords?|codes?|case[- ]sensitive|upper-?case|lower-?case|capital letters?"
    r"|expressions?|quantity|constants?|vectors?|functions?)\b"
)
_SMALL_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the i am and as at be by do for go he if in is it its me mr mrs ms my no of off ok on or so st to up us "
        "vs we yes",
    )
)
_ARTICLE = re.compile(r"(?i)^(?:a|an|the)\s+(?=\S)")
_WORD = re.compile(r"[^\W\d_]+\d*|\d+[^\W\d_]+")
_ALLELES = re.compile(r"(?:([a-z])\1)+")
_FORMULA = re.compile(r"(?:[A-Z][a-z]?\d*){2,}")
_LONG = 5
"""Letters from which a name may be written in mixed case (YouTube, youtube)."""


def asks_symbol(question: str) -> bool:
    """Whether the question asks for something that letters stand for."""
    return bool(_ASKS_SYMBOL.search(question.lower()))


def case_counts(question: str, truth: str, answer: str) -> bool:
    """Whether two texts that differ in the case of letters alone may say different things."""
    wanted, given = (_ARTICLE.sub("", text) for text in (truth, answer))
    if wanted == given or wanted.casefold() != given.casefold():
        return False
    if asks_symbol(question):
        return True
    pairs = zip(_WORD.findall(wanted), _WORD.findall(given), strict=False)
    alone = len(wanted) == 1
    return any(one != other and not alone and not _is_word(one, other) for one, other in pairs)


def _is_word(one: str, other: str) -> bool:
    """Whether both are spellings of one word."""
    low = one.casefold()
    if low in _SMALL_WORDS:
        return "NO" not in (one, other) or low != "no"
    if len(low) < 3 or _ALLELES.fullmatch(low):
        return not low.isalpha() and sum(map(str.isalpha, low)) == 1  # "q3" is "Q3"
    if all(text in (low, low.upper(), low.capitalize()) for text in (one, other)):
        return True
    return len(low) >= _LONG and low.isalpha() and not (_FORMULA.fullmatch(one) and _FORMULA.fullmatch(other))
