"""Numbers as people write them, with units, read exactly (as fractions); `comparing` holds two against each other.

A text may be read in more than one way ("5K": kelvin, or thousands).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from insightv.assess.rules.normalise import stem, stems
from insightv.assess.rules.number_words import read_number_words
from insightv.assess.rules.units import CURRENCIES, LETTER_SCALES, SCALES, unit_of, units_of

_LONGEST = 80
_EXPONENT = r"(?:\s?[eE][-+]?\d{1,3}(?!\d)|\s*[\u00d7x*\u00b7]\s*10\s*(?:\^|\*\*)\s*[{(]?\s*[-+]?\d{1,3}(?!\d)\s*[)}]?)"
_NUMBER = (
    r"(?P<mixed>\d{1,9}\s\d{1,9}\s?/\s?\d{1,9})"
    r"|(?P<ratio>\d{1,15}(?:\.\d{1,15})?\s?/\s?\d{1,15}(?:\.\d{1,15})?)"
    r"|(?P<power>10\s*(?:\^|\*\*)\s*[{(]?\s*[-+]?\d{1,3}(?!\d)\s*[)}]?)"
    rf"|(?P<main>(?P<european>\d{{1,3}}(?:\.\d{{3}})+,\d+)|[1-9]\d{{0,2}}(?:,\d{{3}})+(?:\.\d+)?(?!\d)"
    rf"|\d{{1,2}}(?:,\d{{2}})+,\d{{3}}(?:\.\d+)?(?!\d)|[1-9]\d{{0,2}}(?:[ '_]\d{{3}})+(?:\.\d+)?(?!\d)"
    rf"|\d+(?:\.\d*)?|\.\d+)(?P<exponent>{_EXPONENT})?"
)
_MONEY = "|".join(sorted((re.escape(c) for c in CURRENCIES if not c.islower() or c in ("us$",)), key=len, reverse=True))
_CODES = "|".join(c for c in CURRENCIES if len(c) == 3 and c.isalpha() and c != "yen")
_QUANTITY = re.compile(
    rf"(?P<sign>[-+])?\s?(?P<money>(?i:us\$|{_MONEY}|(?:{_CODES}|rs\.?)(?=[\s\d])))?\s?(?P<sign2>[-+])?(?:{_NUMBER})"
    r"(?![\d])(?P<rest>.*)",
    re.DOTALL,
)
_ROUGHLY = re.compile(
    r"(?i)^(?:(?:about|approximately|approx\.?|around|roughly|circa|ca\.?|nearly|almost|close to|some|exactly|"
    r"only|just|a total of|in total)\s+|[~≈]\s*)+"
)
_NAME = re.compile(r"(?i)(?:the\s+)?\d{2,3}0'?s|0\d+")
"""A decade, or a code such as 007."""
_MINUS = re.compile(r"(?i)^(?:minus|negative)\s+(?=[\d.$\u20ac\u00a3])")
_NOT_UNITS = frozenset(
    re.findall(
        r"\w+",
        """a an and any as at but by each either except for from half if in into is are was neither no none nor not of
        on or other out over pair pairs couple per plus minus score gross than then to under until versus vs with
        without more less fewer greater least most above below before after quarter quarters third thirds between bc
        ad bce ce am pm st nd rd th first fourth fifth sixth seventh eighth ninth squared cubed doubled tripled halved
        factorial ago earlier later short higher lower larger smaller bigger too maybe perhaps probably possibly
        wrong incorrect unless only x y z""",
    )
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with what it counts. `value` has `scale` in it already; `dimension` is "" for a bare number.

    `dimension` "word" is a unit that the table does not know: `word` is its last word, `said` are all. `letter` is a
    capital at the number itself, which may be part of a name. `bare_integer` says that a whole number alone was
    written, `exact` that it is a fraction or a power, `printed` that it is money to the cent; `top` is the upper number
    of a fraction.
    """

    value: Fraction
    dimension: str = ""
    factor: Fraction = Fraction(1)
    word: str = ""
    said: frozenset[str] = frozenset()
    scale: int = 1
    bare_integer: bool = False
    exact: bool = False
    top: Fraction | None = None
    parted: bool = False
    printed: bool = False
    suffix: str = ""
    letter: str = ""


def _power(text: str) -> Fraction:
    exponent = int(re.sub(r"[^\d+-]", "", re.split(r"\^|\*\*|[eE]", text)[-1]))
    return Fraction(10) ** exponent


def _value(match: re.Match[str]) -> Fraction | None:
    if mixed := match["mixed"]:
        whole, part = mixed.split(maxsplit=1)
        top, bottom = part.split("/")
        return None if not int(bottom) else int(whole) + Fraction(int(top), int(bottom))
    if ratio := match["ratio"]:
        top_text, bottom_text = ratio.split("/")
        return None if not Fraction(bottom_text) else Fraction(top_text) / Fraction(bottom_text)
    if power := match["power"]:
        return _power(power)
    main = match["main"]
    if match["european"]:
        main = main.replace(".", "").replace(",", ".")
    value = Fraction(re.sub(r"[,' _]", "", main).rstrip("."))
    return value * _power(match["exponent"]) if match["exponent"] else value


def _from_latex(text: str) -> str:
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}", r" \1/\2", text)
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?|\\degree", "°", text)
    text = text.replace("{,}", ",").replace("\\times", "*").replace("\\cdot", "*").replace("\\approx", "~")
    text = text.replace("\\Omega", "Ω")
    text = re.sub(r"\\([%$])", r"\1", text)
    return re.sub(r"\\[,;: !]|~(?!\s*\d)", " ", text).strip()


def read(text: str) -> tuple[Quantity, ...]:
    """Every way to read the whole text as one quantity; empty where it is not one. Never reads a part of a text."""
    if len(text) > _LONGEST:
        return ()
    text = _MINUS.sub("-", _ROUGHLY.sub("", _from_latex(text)).strip())
    match = None if _NAME.fullmatch(text) else _QUANTITY.fullmatch(text)
    if match is None:
        words = read_number_words(text)
        return () if words is None else _with_rest(words[0], words[1], "", digits=False)
    value = _value(match)
    if value is None or (match["sign"] and match["sign2"]):
        return ()
    if "-" in (match["sign"], match["sign2"]):
        value = -value
    # "2015.0" too: a table's column of numbers with a gap holds its years and counts as floats.
    digits = re.fullmatch(r"\d+(?:\.0)?", match["main"] or "") is not None and not match["exponent"]
    readings = _with_rest(value, match["rest"], match["money"] or "", digits=digits)
    if re.fullmatch(r"[1-9]\d{0,2}\.\d{3}", match["main"] or ""):
        readings = tuple(replace(reading, parted=True) for reading in readings)
    if re.search(r"\.\d\d$", match["main"] or ""):
        readings = tuple(replace(reading, printed=reading.dimension.startswith("money")) for reading in readings)
    if re.fullmatch(r"\d+[A-Z]", text) and text[-1] not in LETTER_SCALES:
        readings = tuple(replace(reading, letter=text[-1]) for reading in readings)
    top = Fraction(match["ratio"].split("/")[0].strip()) if match["ratio"] else None
    return readings if match["main"] else tuple(replace(reading, exact=True, top=top) for reading in readings)


def _with_rest(value: Fraction, rest: str, money: str, *, digits: bool) -> tuple[Quantity, ...]:
    """The readings of a number followed by `rest` (scale words and a unit), with a currency sign before it or not."""
    glued = bool(rest) and not rest[0].isspace() and rest[0] != "-"
    rest = rest.strip().removeprefix("-").strip() if re.match(r"\s*-[A-Za-z]", rest) else rest.strip()
    if not rest:
        return _unit(value, "", money, 1, digits, "")
    first, _, after = rest.partition(" ")
    word = first.lower().rstrip(".")
    if word.removesuffix("s") in SCALES or word in SCALES:
        scale = SCALES.get(word) or SCALES[word.removesuffix("s")]
        return _unit(value * scale, after, money, scale, False, rest)
    scale = (LETTER_SCALES | {"m": 10**6}).get(first, 1)
    if scale == 1 or not (money or glued or first in "MBK"):
        return _unit(value, rest, money, 1, digits, rest)
    readings = _unit(value * scale, after, money, scale, False, rest)
    return readings if readings and (money or first in "kMB") else readings + _unit(value, rest, money, 1, digits, rest)


def _unit(value: Fraction, unit: str, money: str, scale: int, digits: bool, suffix: str) -> tuple[Quantity, ...]:
    sign = unit_of(money.rstrip(".")) if money else None
    if not unit:
        if sign:
            return (Quantity(value, sign[0], scale=scale, suffix=money + suffix),)
        return (Quantity(value, scale=scale, bare_integer=digits and scale == 1, suffix=suffix),)
    share = re.fullmatch(r"(%|percent|per cent)(?: of .{1,40})?", unit, re.IGNORECASE)
    senses = [("percent", Fraction(1))] if share and not re.search(r"\d", unit) else units_of(unit)
    if senses:
        return tuple(Quantity(value, *sense, scale=scale, suffix=suffix) for sense in senses if sign in (None, sense))
    words = unit.lower().rstrip(".").split()
    if re.fullmatch(r"[a-z\u00df-\u03ff]", "".join(words)):
        return ()  # 36 pi, 4b: a factor
    if sign or len(words) > 4 or not all(re.fullmatch(r"[^\W\d_][^\W\d_/'-]*", word) for word in words):
        return ()
    if _NOT_UNITS.intersection(words):
        return ()
    said = stems(unit)
    return (Quantity(value, "word", word=stem(words[-1]), said=said, scale=scale, bare_integer=digits, suffix=suffix),)
