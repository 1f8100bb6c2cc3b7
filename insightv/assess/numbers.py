"""Numbers as people write them, with units: read exactly (as fractions), compared with a tolerance, three-valued.

A text may be read in more than one way ("5K": kelvin, or thousands). Readings of the same kind are compared, or all
where none are; where they do not lead to one verdict the verdict is None. Decisions that are not plain arithmetic are
listed at `Comparison`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from insightv.assess.number_words import read_number_words
from insightv.assess.text import stem, stems
from insightv.assess.units import CURRENCIES, LETTER_SCALES, SCALES, TEMPERATURES, UNITS, unit_of

_LONGEST = 80
_EXPONENT = r"(?:\s?[eE][-+]?\d{1,3}(?!\d)|\s*[\u00d7x*\u00b7]\s*10\s*(?:\^|\*\*)\s*[{(]?\s*[-+]?\d{1,3}(?!\d)\s*[)}]?)"
_NUMBER = (
    r"(?P<mixed>\d{1,9}\s\d{1,9}\s?/\s?\d{1,9})"
    r"|(?P<ratio>\d{1,15}(?:\.\d{1,15})?\s?/\s?\d{1,15}(?:\.\d{1,15})?)"
    r"|(?P<power>10\s*(?:\^|\*\*)\s*[{(]?\s*[-+]?\d{1,3}(?!\d)\s*[)}]?)"
    rf"|(?P<main>(?P<european>\d{{1,3}}(?:\.\d{{3}})+,\d+)|\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?(?!\d)"
    rf"|\d{{1,2}}(?:,\d{{2}})+,\d{{3}}(?:\.\d+)?(?!\d)|\d{{1,3}}(?:[ '_]\d{{3}})+(?:\.\d+)?(?!\d)"
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
_DECADE = re.compile(r"(?:the\s+)?\d{2,3}0'?s", re.IGNORECASE)
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

    `dimension` "word" is a unit that the table does not know: `word` is its last word, `said` are all. "label" is no
    quantity at all. `bare_integer` says that a whole number alone was written, `exact` that it is a fraction or a
    power; `top` is the upper number of a fraction.
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
    suffix: str = ""


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
    text = re.sub(r"\\([%$])", r"\1", text)
    return re.sub(r"\\[,;: !]|~(?!\s*\d)", " ", text).strip()


def read(text: str) -> tuple[Quantity, ...]:
    """Every way to read the whole text as one quantity; empty where it is not one. Never reads a part of a text."""
    if len(text) > _LONGEST:
        return ()
    text = _MINUS.sub("-", _ROUGHLY.sub("", _from_latex(text)).strip())
    match = None if _DECADE.fullmatch(text) else _QUANTITY.fullmatch(text)
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
    if re.fullmatch(r"\d+[A-JL-Z]", text):  # 7A may be seven amperes, or a door
        readings += (Quantity(value, "label", suffix=text[-1]),)
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
    readings: tuple[Quantity, ...] = ()
    if first in LETTER_SCALES and (money or glued or first in "MBK"):
        scale = LETTER_SCALES[first]
        readings = _unit(value * scale, after, money, scale, False, rest)
    elif first == "m" and (money or glued):
        readings = _unit(value * 10**6, after, money, 10**6, False, rest)
    if readings and (money or first in "kMB"):
        return readings
    return readings + _unit(value, rest, money, 1, digits, rest)


def _unit(value: Fraction, unit: str, money: str, scale: int, digits: bool, suffix: str) -> tuple[Quantity, ...]:
    sign = unit_of(money.rstrip(".")) if money else None
    if not unit:
        if sign:
            return (Quantity(value, sign[0], scale=scale, suffix=money + suffix),)
        return (Quantity(value, scale=scale, bare_integer=digits and scale == 1, suffix=suffix),)
    share = re.fullmatch(r"(%|percent|per cent)(?: of .{1,40})?", unit, re.IGNORECASE)
    known = ("percent", Fraction(1)) if share and not re.search(r"\d", unit) else unit_of(unit)
    if known is not None:
        if sign and known != sign:
            return ()
        reading = Quantity(value, known[0], known[1], scale=scale, suffix=suffix)
        if unit.lower() in ("pound", "pounds") and not sign:
            return reading, replace(reading, dimension="money: pound sterling", factor=Fraction(1))
        return (reading,)
    words = unit.lower().rstrip(".").split()
    if sign or len(words) > 4 or not all(re.fullmatch(r"[^\W\d_][^\W\d_/'-]*", word) for word in words):
        return ()
    if _NOT_UNITS.intersection(words):
        return ()
    said = stems(unit)
    return (Quantity(value, "word", word=stem(words[-1]), said=said, scale=scale, bare_integer=digits, suffix=suffix),)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two quantities are held against each other.

    - `tolerance` is relative to the truth (0.05: ChartQA's relaxed accuracy), the bound included; a truth of zero is
      met by zero alone; 0 asks for the same number.
    - `counting`: a whole number of things up to 100 must be met exactly (30 bars are not 31); None, it may be a count,
      so that a near miss is undecided.
    - `exact`: True, the number names a thing (a page, a jersey, a code) and must be met exactly; None, it is worked out
      or printed rather than read off a scale, so that a near miss is undecided.
    - `year`: True, a whole number from 1500 to 2100 is a year and must be met exactly; None, it may be one, so that a
      near miss is undecided.
    - A truth written as a fraction or a power is met within 1 % (2/3 by 0.67, not by 0.7), by another such exactly.
    - `percent`: the question asks for a percentage, so that 0.25 for 25 or 25 % is undecided.
    - `scale`: the question asks for the number in thousands, millions, ...: one that is written out is undecided.
    - `falling`: the question speaks of a change, so that a wrong sign is undecided instead of wrong.
    - `words`: the stems of the question's words. An unknown word after a bare number is what it counts where the
      question has it ("5 bars"); otherwise it may be anything ("5 squared", "5 Millionen"), and the pair is undecided.
    """

    tolerance: Fraction = Fraction(1, 20)
    counting: bool | None = False
    exact: bool | None = False
    year: bool | None = None
    percent: bool = False
    falling: bool = False
    scale: int = 1
    words: frozenset[str] = frozenset()

    def verdict(self, truths: tuple[Quantity, ...], answers: tuple[Quantity, ...]) -> bool | None:
        """True or False where all readings of both agree on it."""
        if not truths or not answers:
            return None
        if truths[0].suffix == answers[0].suffix:
            truths, answers = truths[:1], answers[:1]
        pairs = [(truth, answer) for truth in truths for answer in answers]
        alike = [(truth, answer) for truth, answer in pairs if truth.dimension == answer.dimension]
        found = {self._under(truth, answer)._exactly(truth, answer) for truth, answer in alike or pairs}
        return found.pop() if len(found) == 1 else None

    def _under(self, truth: Quantity, answer: Quantity) -> Comparison:
        if not truth.exact:
            return self
        return replace(self, tolerance=Fraction(0) if answer.exact else min(self.tolerance, Fraction(1, 100)))

    def _exactly(self, truth: Quantity, answer: Quantity) -> bool | None:
        """The verdict on one pair of readings, unless it rests on a tolerance for which the question has no use."""
        verdict = self._pair(truth, answer)
        if self.exact is False or not verdict or truth.exact or (answer.exact and self.exact is None):
            return verdict
        return True if replace(self, tolerance=Fraction(0))._pair(truth, answer) else False if self.exact else None

    def _near(self, truth: Fraction, answer: Fraction) -> bool:
        return truth == answer or (truth != 0 and abs(answer - truth) <= self.tolerance * abs(truth))

    def _pair(self, truth: Quantity, answer: Quantity) -> bool | None:
        if truth.dimension == answer.dimension == "label":
            return None
        if truth.dimension == answer.dimension:
            if truth.dimension == "word" and truth.word != answer.word:
                return None
            return self._numbers(truth, answer, truth.value * truth.factor, answer.value * answer.factor)
        dimensions = {truth.dimension, answer.dimension}
        if dimensions <= {"", "word"}:
            counted = answer.said <= self.words | truth.said
            return self._numbers(truth, answer, truth.value, answer.value) if counted else None
        if dimensions == {"", "percent"}:
            return self._percent(truth, answer)
        if "label" in dimensions:
            return None
        if "" in dimensions:
            return self._one_without_unit(truth, answer)
        if "word" in dimensions:
            return None
        if dimensions <= TEMPERATURES:
            return True if "angle" in dimensions and self._near(truth.value, answer.value) else None
        return None if dimensions == {"percent", "points"} else False

    def _numbers(self, truth: Quantity, answer: Quantity, wanted: Fraction, given: Fraction) -> bool | None:
        if truth.parted != answer.parted and wanted.denominator == given.denominator == 1:
            return None  # 1.000 against 1
        if wanted == given:
            return True
        if truth.scale != answer.scale and self._scales_fit(truth, answer):
            return None
        if given == -wanted and self.falling:
            return None
        if (answer.top == wanted and not truth.exact) or (truth.top == given and not answer.exact):
            return None  # 85 against 85/100: it may be said as "out of"
        bare = truth.dimension == answer.dimension == ""
        if self.percent and bare and abs(given) <= 1 < abs(wanted) and self._near(wanted, 100 * given):
            return None  # 40 against 0.4, where a percentage is asked for
        thousandfold = wanted == 1000 * given or given == 1000 * wanted
        if thousandfold and (truth.parted or answer.parted):
            return None  # 1.234 against 1,234
        if self.scale != 1 and self._near(wanted * self.scale, given):
            return None  # 1.5 against 1,500,000, where millions are asked for
        near = self._near(wanted, given)
        if truth.bare_integer and truth.scale == 1:
            if self.counting is not False and abs(wanted) <= 100:
                return False if self.counting or not near else None
            if near and self.year is not False and truth.dimension == "" and 1500 <= wanted <= 2100:
                return False if self.year else None
        return near

    def _scales_fit(self, truth: Quantity, answer: Quantity) -> bool:
        """5 against 5 million: the axis may be in millions."""
        if truth.scale == 1:
            return self._near(truth.value * answer.scale, answer.value)
        return answer.scale == 1 and self._near(truth.value, answer.value * truth.scale)

    def _percent(self, truth: Quantity, answer: Quantity) -> bool | None:
        if self._near(truth.value, answer.value):
            return True
        hundred = 100 if answer.dimension == "" else Fraction(1, 100)
        if self._near(truth.value, answer.value * hundred):
            return None if self.percent else True
        return None if self.falling and truth.value == -answer.value else False

    def _one_without_unit(self, truth: Quantity, answer: Quantity) -> bool | None:
        if self._near(truth.value, answer.value):
            return True
        known, bare = (truth, answer) if truth.dimension else (answer, truth)
        in_unit = known.value * known.factor
        for dimension, factor in UNITS.values():
            if dimension == known.dimension and self._near(in_unit, bare.value * factor):
                return None
        if truth.scale != answer.scale and self._scales_fit(truth, answer):
            return None
        return None if self.falling and truth.value == -answer.value else False
