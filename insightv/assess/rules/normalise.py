"""The text of an answer, freed of its wrapping and put into a form that can be compared.

Knows nothing of numbers, choices or mathematics; `final_part` and `plain` come before every rule, `key` is the form in
which two texts are held against each other.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_DASHES = str.maketrans({c: "-" for c in "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"} | {"\u2014": " - "})
_QUOTES = str.maketrans(
    {c: '"' for c in "\u201c\u201d\u201e\u201f\u00ab\u00bb"} | {c: "'" for c in "\u2018\u2019\u201a\u201b\u2032"}
)

_CONTROLS = {code: None for code in (*range(32), 127) if chr(code) not in "\n\t\r"}

_MARKER = re.compile(
    r"(?im)^\W{0,6}(?:(?:the|my)\s+)?(?:(?:final|correct)\s+)?answer\W{0,4}?(?:\s+is)?\s*:[\s*_]*(\S.*)$"
)
_MOST_BOXES = 16
_TAKES_BACK = re.compile(
    r"(?i)\b(?:no|not|wait|actually|but|however|although|instead|or|correction|sorry|mistake|wrong|incorrect|unless|hmm|"
    r"alternatively|might|may|could|unsure|uncertain|nicht|sondern|oder|pas|mais|ou|pero|ma)\b|n't\b"
    r"|[\u4e0d\u6216\u4f46]|\b(?:\u043d\u0435|\u0438\u043b\u0438)\b"
)
_TAGGED = re.compile(r"(?i)<answer>([^<]*)</answer>")
_LEAD = re.compile(
    r"(?i)^(?:(?:so|thus|therefore|hence)\s*,?\s+(?=\S)|(?:overall|okay|ok|well|in conclusion|in summary)\s*,\s+(?=\S)"
    r"|(?:and\s+)?(?:the|my)?\s*(?:(?:final|correct|right|best)\s+)?(?:answer|choice|option|result|solution)"
    r"(?:\s+(?:is|are|was|would\s+be|should\s+be|must\s+be)\b|\s*[:=])\s*:?\s*"
    r"|(?:it|this|that|they)(?:\s+(?:is|are|was|were)|'s)\s+(?!not\b))"
)
_WRAPS = re.compile(
    r"(?s)(?P<sign>\*\*|__|`{1,3}|\$\$|[*\"'$])(?P<signed>(?:(?!(?P=sign)).)+)(?P=sign)"
    r"|\\\((?P<formula>(?:(?!\\\)).)+)\\\)|\\\[(?P<display>(?:(?!\\\]).)+)\\\]"
    r"|\\(?:text|textbf|mathrm|mathbf|textit)\{(?P<command>[^{}]+)\}"
)


def plain(text: str) -> str:
    """The text under NFKC, after powers and fractions are spelled out: NFKC alone turns 10⁵ into 105, and 3½ into 31/2.

    Invisible characters go, dashes and quotes become ASCII, spaces are collapsed; lines and case stay.
    """
    if text.isascii():
        text = text.translate(_CONTROLS)
    else:
        text = _to_ascii_signs(text)
        text = "".join(c for c in text if c in "\n\t\r" or unicodedata.category(c) not in ("Cf", "Cc", "Cs"))
    return "\n".join(" ".join(line.split()) for line in text.splitlines()).strip()


def _to_ascii_signs(text: str) -> str:
    text = re.sub(r"[⁰¹²³⁴-⁹⁺⁻]+", lambda m: "^" + m.group().translate(_SUPERSCRIPTS), text)
    text = re.sub(r"[¼-¾⅐-⅞]", lambda m: " " + unicodedata.normalize("NFKC", m.group()).replace("\u2044", "/"), text)
    return unicodedata.normalize("NFKC", text.translate(_DASHES).translate(_QUOTES)).translate(_DASHES)


def unwrapped(text: str) -> str:
    """A plain text without quotes, emphasis, formula marks, lead-in words ("the answer is") and closing full stop."""
    for _ in range(8):
        before = text
        text = text.strip()
        if match := _WRAPS.fullmatch(text):
            text = match[match.lastgroup or 0].strip()
        lead = _LEAD.match(text)
        if lead and lead.end() < len(text) and text[lead.end() :].strip(" .!"):
            text = text[lead.end() :].strip()
        # "5!" may be a factorial, and "..." is an omission.
        if len(text) > 1 and text[-1] in ".!;," and text[-2:] != ".." and not re.search(r"\d!$", text):
            text = text[:-1].strip()
        if text == before:
            break
    return text


def _boxed(text: str) -> list[tuple[str, int]]:
    r"""What stands in each `\boxed{...}`, braces balanced, and where that ends; too many boxes are no answer."""
    found: list[tuple[str, int]] = []
    for match in re.finditer(r"\\f?boxed\s*\{", text):
        if len(found) == _MOST_BOXES:
            return [("", len(text)), (text, len(text))]
        depth = 1
        for at in range(match.end(), len(text)):
            depth += (text[at] == "{") - (text[at] == "}")
            if depth == 0:
                found.append((text[match.end() : at].strip(), at + 1))
                break
        else:
            break
    return found


def _marked(pattern: re.Pattern[str], text: str) -> list[tuple[str, int]]:
    return [(match[1], match.end()) for match in pattern.finditer(text)]


@lru_cache(maxsize=256)  # a truth is held against several answers
def final_part(text: str) -> str:
    """The answer proper: what is boxed, tagged or announced by "Answer:", where that is one thing; else the whole text.

    An answer that announces two different things, or then takes back the one, stays whole, and so no rule will
    match it.
    """
    text = plain(text)
    for found in (_boxed(text), _marked(_TAGGED, text), _marked(_MARKER, text)):
        distinct = {unwrapped(part) for part, _ in found}
        if len(distinct) > 1 or (found and _TAKES_BACK.search(text[found[-1][1] :])):
            return text
        if len(distinct) == 1:
            text = distinct.pop()
    return unwrapped(text)


def _without_accents(text: str) -> str:
    """Accents of Latin letters dropped; in other scripts marks are letters of their own."""
    marks = r"(?<=[a-z])[\u0300-\u036f]+"
    return (
        text if text.isascii() else unicodedata.normalize("NFC", re.sub(marks, "", unicodedata.normalize("NFD", text)))
    )


@lru_cache(maxsize=256)
def key(text: str) -> str:
    """The form in which texts are compared: no case, accents, articles, punctuation; signs that carry meaning stay.

    "+", "-" before a digit, "<", "=", "%", "#" and a point between digits are kept: C++ is not C, and 3.5 is not 35.
    Empty where nothing comparable is left.
    """
    text = _without_accents(plain(text).casefold())
    text = re.sub(r"(?<![^\W\d_])([^\W\d_])\.(?=[^\W\d_](?:\.|\b))", r"\1", text)  # u.s.a. -> usa.
    text = re.sub(r"(?<![\w.])\.(?=\d)", "0.", text)  # .5 -> 0.5
    text = re.sub(r"(?<!\d)'", "", text).replace("&", " and ")
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"(?<=[^\W\d_])-(?=\w)|(?<=\w)-(?=[^\W\d_])", " ", text)
    text = re.sub(r"(?<!\d)\.|\.(?!\d)|[,;:?()\[\]{}`*_]|(?<!\d)[!\"]|(?<=\s)\||\|(?=\s)", " ", text)
    words = [word for word in text.split() if word != "the"] or text.split()
    if len(words) > 1 and words[0] in ("a", "an") and len(words[1]) > 1:
        words = words[1:]
    return " ".join(words)


def contains(text: str, part: str) -> bool:
    """Whether `part` occurs in `text` as whole words; both are keys."""
    return f" {part} " in f" {text} "


def stems(text: str) -> frozenset[str]:
    """The words of a text as they are compared: no case, no plural; each sign of a script without spaces by itself."""
    return frozenset(
        stem(word) for word in re.findall(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+", text.lower())
    )


def stem(word: str) -> str:
    """A word as it is compared: singular, in lower case already."""
    word = _IRREGULAR.get(word, word)
    return word if len(word) < 4 else re.sub(r"(?<=[^s])s$", "", re.sub(r"(?<=[sxh])es$|(?<=i)es$", "", word))


_IRREGULAR = {"persons": "people", "person": "people", "men": "man", "women": "woman", "children": "child"}
