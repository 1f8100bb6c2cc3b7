"""Two quantities held against each other: `NUMBER_RULES`, a table of which the first rule that says anything decides.

A text may be read in more than one way. Readings of the same kind are compared, or all where a letter may be a unit
instead ("100m" against "100 million"); where they do not lead to one verdict, the pair is left to the judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from typing import Generic, TypeVar

from insightv.assess.numbers import Quantity
from insightv.assess.units import SCALES_ABROAD, TEMPERATURES, UNITS

Case = TypeVar("Case")


class Open(Enum):
    """The third thing that a rule can decide, beside right and wrong: that the judge decides."""

    OPEN = "open"


OPEN = Open.OPEN


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the rules say (None: left to the judge), the name of the one that said it, and the family of that one."""

    correct: bool | None
    rule: str = ""
    family: str = ""


@dataclass(frozen=True, slots=True)
class Rule(Generic[Case]):
    """A row of a table of rules. `decide` gives None where the rule does not apply, a ruling where another table does."""

    name: str
    reason: str
    decide: Callable[[Case], bool | Open | Ruling | None]
    family: str = "number"


def first_of(rules: Iterable[Rule[Case]], case: Case) -> Ruling:
    """What the first of the rules that applies decides."""
    for rule in rules:
        found = rule.decide(case)
        if isinstance(found, Ruling):
            return found if found.rule else replace(found, rule=rule.name, family=rule.family)
        if found is not None:
            return Ruling(None if found is OPEN else found is True, rule.name, rule.family)
    return Ruling(None)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the question's words say of a number.

    `tolerance` is relative to the truth (0.05: ChartQA's relaxed accuracy), the bound included; 0 asks for the same
    number. `counting`, `exact` and `year` say whether the number counts things, names one (a page, a code) or is a
    year; None, it may (for `exact`: it is worked out or printed rather than read off a scale). `percent`, `scale` and
    `units` are what the answer is asked for in. `falling`: the question speaks of a change; `heat`: it may ask for a
    temperature, so that K may be kelvin. `words` are the stems of its words.
    """

    tolerance: Fraction = Fraction(1, 20)
    counting: bool | None = False
    exact: bool | None = False
    year: bool | None = None
    percent: bool = False
    falling: bool = False
    scale: int = 1
    heat: bool = False
    units: frozenset[tuple[str, Fraction]] = frozenset()
    words: frozenset[str] = frozenset()

    def compare(self, truths: tuple[Quantity, ...], answers: tuple[Quantity, ...]) -> Ruling:
        """The ruling on which all readings of both agree."""
        truths, answers = self._sensible(truths), self._sensible(answers)
        if not truths or not answers:
            return Ruling(None)
        if truths[0].suffix == answers[0].suffix:
            truths, answers = truths[:1], answers[:1]
        pairs = [(truth, answer) for truth in truths for answer in answers]
        alike = [(truth, answer) for truth, answer in pairs if truth.dimension == answer.dimension]
        if not any(truth.dimension for truth, _ in alike):  # both may be bare numbers, and yet one a number of metres
            alike = pairs
        found = [first_of(NUMBER_RULES, Pair.of(truth, answer, self)) for truth, answer in alike]
        return found[0] if len({ruling.correct for ruling in found}) == 1 else Ruling(None)

    def _sensible(self, readings: tuple[Quantity, ...]) -> tuple[Quantity, ...]:
        if self.heat or len(readings) < 2:
            return readings
        return tuple(reading for reading in readings if reading.dimension != "kelvin")


@dataclass(frozen=True, slots=True)
class Pair:
    """One reading of the truth and one of the answer, with their values in one unit as far as there is one."""

    truth: Quantity
    answer: Quantity
    how: Comparison
    wanted: Fraction
    given: Fraction

    @classmethod
    def of(cls, truth: Quantity, answer: Quantity, how: Comparison) -> Pair:
        """The pair, the answer in the unit of the truth, or in the one asked for; 0.25 as 25 %."""
        raw = cls(truth, answer, how, truth.value, answer.value)
        if raw.kinds == {"", "percent"}:
            share = answer.value * (100 if truth.dimension else Fraction(1, 100))
            return replace(raw, given=share) if raw.within(truth.value, share) and not raw.near else raw
        factors = [truth.factor] if truth.dimension == answer.dimension else raw.factors_asked
        return replace(raw, given=answer.value * answer.factor / factors[0]) if len(factors) == 1 else raw

    @property
    def factors_asked(self) -> list[Fraction]:
        """The units asked for that the answer's converts to, where the truth is a bare number."""
        return [factor for kind, factor in self.how.units if kind == self.answer.dimension and not self.truth.dimension]

    @property
    def kinds(self) -> set[str]:
        return {self.truth.dimension, self.answer.dimension}

    @property
    def equal(self) -> bool:
        return self.wanted == self.given

    @property
    def near(self) -> bool:
        return self.within(self.wanted, self.given)

    @property
    def whole(self) -> bool:
        return self.truth.bare_integer and self.truth.scale == 1

    def within(self, wanted: Fraction, given: Fraction) -> bool:
        """Within the tolerance; a truth of zero is met by zero alone, a fraction within 1 % or by an equal fraction."""
        tolerance = self.how.tolerance
        if self.truth.exact:
            tolerance = Fraction(0) if self.answer.exact else min(tolerance, Fraction(1, 100))
        return wanted == given or (wanted != 0 and abs(given - wanted) <= tolerance * abs(wanted))

    def times(self, factor: int) -> bool:
        """Whether one number as written is so many times the other."""
        wanted, given = self.truth.value, self.answer.value
        return wanted != given and (self.within(wanted * factor, given) or self.within(wanted, given * factor))


def _other_things(pair: Pair) -> bool:
    if pair.kinds == {"word"}:
        return pair.truth.word != pair.answer.word
    name = pair.truth.suffix[:1].isupper() or any(map(SCALES_ABROAD.match, pair.truth.said))  # 10 Downing Street
    counted = pair.answer.said <= pair.how.words | pair.truth.said and not name
    return "word" in pair.kinds and not (pair.kinds == {"", "word"} and counted)


def _other_unit(pair: Pair) -> bool:
    """Whether the answer does not convert to the unit asked for, or is right only if its unit is passed over."""
    if pair.truth.dimension or pair.kinds <= {"", "word", "percent"} or not pair.how.units:
        return False
    return len(pair.factors_asked) != 1 or (pair.within(pair.truth.value, pair.answer.value) and not pair.near)


def _unit_unsaid(pair: Pair) -> bool:
    truth, answer = pair.truth, pair.answer
    if pair.near or "" not in pair.kinds or (pair.how.units and not truth.dimension):
        return False
    known, bare = (truth, answer) if truth.dimension else (answer, truth)
    factors = {factor for dimension, factor in UNITS.values() if dimension == known.dimension}
    return any(pair.within(known.value * known.factor, bare.value * factor) for factor in factors)


def _scale_unsaid(pair: Pair) -> bool:
    truth, answer = pair.truth, pair.answer
    if truth.scale != answer.scale and 1 in (truth.scale, answer.scale):
        return pair.within(truth.value * answer.scale, answer.value * truth.scale)
    return pair.how.scale != 1 and pair.within(pair.wanted * pair.how.scale, pair.given)


def _point_or_comma(pair: Pair) -> bool:
    truth, answer = pair.truth, pair.answer
    ends = truth.dimension.startswith("money") or pair.wanted.denominator == pair.given.denominator == 1
    return (truth.parted != answer.parted and ends) or ((truth.parted or answer.parted) and pair.times(1000))


def _out_of(pair: Pair) -> bool:
    truth, answer = pair.truth, pair.answer
    return (answer.top == pair.wanted and not truth.exact) or (truth.top == pair.given and not answer.exact)


def _if_so(asked: bool | None, applies: bool) -> bool | Open | None:
    """A near miss where the question may ask for what is met exactly: wrong where it does, open where it may."""
    return None if asked is False or not applies else False if asked else OPEN


def _left(name: str, reason: str, holds: Callable[[Pair], bool]) -> Rule[Pair]:
    return Rule(name, reason, lambda pair: OPEN if holds(pair) else None)


def _says(correct: bool, name: str, reason: str, holds: Callable[[Pair], bool]) -> Rule[Pair]:
    return Rule(name, reason, lambda pair: correct if holds(pair) else None)


NUMBER_RULES: tuple[Rule[Pair], ...] = (
    _left("other_things", "Apples are no oranges; a word may multiply the number or change it.", _other_things),
    _left("letter", "7A may be a door.", lambda p: p.truth.letter != p.answer.letter and len(p.kinds) > 1),
    _left("points", "Percentage points are often called percent.", lambda p: p.kinds == {"percent", "points"}),
    _says(True, "degrees", "20° may be 20 °C.", lambda p: p.equal and p.kinds < TEMPERATURES and p.answer.dimension == "angle"),
    _left("heat", "Scales of heat convert by no factor.", lambda p: len(p.kinds) > 1 and p.kinds <= TEMPERATURES),
    _says(False, "dimension", "A length is no mass.", lambda p: len(p.kinds) > 1 and "" not in p.kinds and "word" not in p.kinds),
    _left("other_unit", "The question asks for another unit than the answer's.", _other_unit),
    _left("point_or_comma", "1.000 is one, or a thousand.", _point_or_comma),
    _left("percent_or_share", "0.25 and 0.25 % are easily mixed up.", lambda p: p.kinds == {"", "percent"} and not p.how.percent and 0 < abs(p.wanted) <= 1 and p.within(p.truth.value, p.answer.value)),
    _left("share_of_percent", "0.4 is 40 %, but was not asked for.", lambda p: p.how.percent and p.kinds <= {"", "percent"} and p.times(100)),
    _says(True, "equal", "It is the same number.", lambda p: p.equal),
    _left("scale_unsaid", "The axis or the question may be in millions.", _scale_unsaid),
    _left("change", "A fall of 5 is a change of -5.", lambda p: p.how.falling and p.given == -p.wanted),
    _left("out_of", "85 may be said as 85/100.", _out_of),
    _left("unit_unsaid", "A bare number may be in another unit than the other.", _unit_unsaid),
    _says(False, "far", "It is not within the tolerance.", lambda p: not p.near),
    Rule("count", "30 bars are not 31.", lambda p: _if_so(p.how.counting, p.whole and abs(p.wanted) <= 100)),
    Rule("year", "A year is met exactly.", lambda p: _if_so(p.how.year, p.whole and 1500 <= p.wanted <= 2100)),
    _says(True, "fraction", "0.67 is 2/3, rounded.", lambda p: p.truth.exact),
    _says(False, "name", "Page 120 is not page 121.", lambda p: p.how.exact is True),
    _says(True, "rounded", "0.33 is 1/3, rounded.", lambda p: p.answer.exact),
    _left("cents", "A sum to the cent is printed, and not read off a scale.", lambda p: p.truth.printed),
    _left("result", "A number near a computed or printed one may be a slip.", lambda p: p.how.exact is None),
    _says(True, "near", "A value read off a chart is met within the tolerance.", lambda p: True),
)
