"""Two quantities held against each other: `NUMBER_RULES`, a table of which the first rule that says anything decides.

A text may be read in more than one way. Readings of the same kind are compared, or all where a letter may be a unit
instead ("100m" against "100 million"); where they do not lead to one verdict, the pair is left to the judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Generic, TypeVar

from insightv.assess.rules.numbers import Quantity
from insightv.assess.rules.units import SCALES_ABROAD, TEMPERATURES, UNITS

Case = TypeVar("Case")


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the rules say (None: left to the judge), the name of the one that said it, and the family of that one."""

    correct: bool | None
    rule: str = ""
    family: str = ""


OPEN = Ruling(None)
"""What a rule decides that leaves a pair to the judge."""


@dataclass(frozen=True, slots=True)
class Rule(Generic[Case]):
    """A row of a table. `decide` gives None where the rule does not apply, a ruling where another table decides."""

    name: str
    reason: str
    decide: Callable[[Case], bool | Ruling | None]
    family: str = "number"


def when(
    then: bool | Ruling, name: str, reason: str, holds: Callable[[Case], bool], family: str = "number"
) -> Rule[Case]:
    """A rule that decides the same wherever it applies."""
    return Rule(name, reason, lambda case: then if holds(case) else None, family)


def first_of(rules: Iterable[Rule[Case]], case: Case) -> Ruling:
    """What the first of the rules that applies decides."""
    for rule in rules:
        found = rule.decide(case)
        ruling = Ruling(found) if isinstance(found, bool) else found
        if ruling is not None:
            return ruling if ruling.rule else replace(ruling, rule=rule.name, family=rule.family)
    return OPEN


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the question's words say of a number.

    `tolerance` is relative to the truth (0.05: ChartQA's relaxed accuracy), the bound included; 0 asks for the same
    number. `counting` and `year` say whether the number counts things or is a year; None, it may. `exact`: it names a
    thing (a page, a code), is worked out or printed, rather than read off a scale. `percent`, `scale` and
    `units` are what the answer is asked for in. `falling`: the question speaks of a change; `heat`: it may ask for a
    temperature, so that K may be kelvin. `words` are the stems of its words.
    """

    tolerance: Fraction = Fraction(1, 20)
    counting: bool | None = False
    exact: bool = False
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
            return OPEN
        if truths[0].suffix == answers[0].suffix:
            truths, answers = truths[:1], answers[:1]
        pairs = [(truth, answer) for truth in truths for answer in answers]
        alike = [(truth, answer) for truth, answer in pairs if truth.dimension == answer.dimension]
        if not any(truth.dimension for truth, _ in alike):  # both may be bare numbers, and yet one a number of metres
            alike = pairs
        found = [first_of(NUMBER_RULES, _Pair.of(truth, answer, self)) for truth, answer in alike]
        return found[0] if len({ruling.correct for ruling in found}) == 1 else OPEN

    def _sensible(self, readings: tuple[Quantity, ...]) -> tuple[Quantity, ...]:
        if self.heat or len(readings) < 2:
            return readings
        return tuple(reading for reading in readings if reading.dimension != "kelvin")


@dataclass(frozen=True, slots=True)
class _Pair:
    """One reading of the truth and one of the answer, with their values in one unit as far as there is one."""

    truth: Quantity
    answer: Quantity
    how: Comparison
    wanted: Fraction
    given: Fraction

    @classmethod
    def of(cls, truth: Quantity, answer: Quantity, how: Comparison) -> _Pair:
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
    def of_two_kinds(self) -> bool:
        return self.truth.dimension != self.answer.dimension

    @property
    def hot(self) -> bool:
        return self.of_two_kinds and self.kinds <= TEMPERATURES

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


def _other_things(pair: _Pair) -> bool:
    if pair.kinds == {"word"}:
        return pair.truth.word != pair.answer.word
    name = pair.truth.suffix[:1].isupper() or any(map(SCALES_ABROAD.match, pair.truth.said))  # 10 Downing Street
    counted = pair.answer.said <= pair.how.words | pair.truth.said and not name
    return "word" in pair.kinds and not (pair.kinds == {"", "word"} and counted)


def _other_unit(pair: _Pair) -> bool:
    """Whether the answer does not convert to the unit asked for, or is right only if its unit is passed over."""
    if pair.truth.dimension or pair.kinds <= {"", "word", "percent"} or not pair.how.units:
        return False
    return len(pair.factors_asked) != 1 or (pair.within(pair.truth.value, pair.answer.value) and not pair.near)


def _unit_unsaid(pair: _Pair) -> bool:
    truth, answer = pair.truth, pair.answer
    if pair.near or "" not in pair.kinds or (pair.how.units and not truth.dimension):
        return False
    known, bare = (truth, answer) if truth.dimension else (answer, truth)
    factors = {factor for dimension, factor in UNITS.values() if dimension == known.dimension}
    return any(pair.within(known.value * known.factor, bare.value * factor) for factor in factors)


def _scale_unsaid(pair: _Pair) -> bool:
    truth, answer = pair.truth, pair.answer
    if truth.scale != answer.scale and 1 in (truth.scale, answer.scale):
        return pair.within(truth.value * answer.scale, answer.value * truth.scale)
    return pair.how.scale != 1 and pair.within(pair.wanted * pair.how.scale, pair.given)


def _point_or_comma(pair: _Pair) -> bool:
    truth, answer = pair.truth, pair.answer
    ends = truth.dimension.startswith("money") or pair.wanted.denominator == pair.given.denominator == 1
    return (truth.parted != answer.parted and ends) or ((truth.parted or answer.parted) and pair.times(1000))


def _out_of(pair: _Pair) -> bool:
    truth, answer = pair.truth, pair.answer
    return (answer.top == pair.wanted and not truth.exact) or (truth.top == pair.given and not answer.exact)


def _percent_or_share(pair: _Pair) -> bool:
    small = pair.kinds == {"", "percent"} and not pair.how.percent and 0 < abs(pair.wanted) <= 1
    return small and pair.within(pair.truth.value, pair.answer.value)


def _share(pair: _Pair) -> bool:
    return pair.kinds <= {"", "percent"} and pair.times(100)


def _if_so(asked: bool | None, applies: bool) -> bool | Ruling | None:
    """A near miss where the question may ask for what is met exactly: wrong where it does, open where it may."""
    return None if asked is False or not applies else False if asked else OPEN


NUMBER_RULES: tuple[Rule[_Pair], ...] = (
    when(OPEN, "other_things", "Apples are no oranges; a word may multiply the number or change it.", _other_things),
    when(OPEN, "letter", "7A may be a door.", lambda p: p.truth.letter != p.answer.letter and p.of_two_kinds),
    when(OPEN, "points", "Percentage points are often called percent.", lambda p: p.kinds == {"percent", "points"}),
    when(True, "degrees", "20° may be 20 °C.", lambda p: p.equal and p.hot and p.answer.dimension == "angle"),
    when(OPEN, "heat", "Scales of heat convert by no factor.", lambda p: p.hot),
    when(False, "dimension", "A length is no mass.", lambda p: p.of_two_kinds and "" not in p.kinds),
    when(OPEN, "other_unit", "The question asks for another unit than the answer's.", _other_unit),
    when(OPEN, "point_or_comma", "1.000 is one, or a thousand.", _point_or_comma),
    when(OPEN, "percent_or_share", "0.25 and 0.25 % are easily mixed up.", _percent_or_share),
    when(OPEN, "share_asked", "0.4 is 40 %, but a percentage is asked for.", lambda p: p.how.percent and _share(p)),
    when(True, "equal", "It is the same number.", lambda p: p.equal),
    when(OPEN, "scale_unsaid", "The axis or the question may be in millions.", _scale_unsaid),
    when(OPEN, "change", "A fall of 5 is a change of -5.", lambda p: p.how.falling and p.given == -p.wanted),
    when(OPEN, "out_of", "85 may be said as 85/100.", _out_of),
    when(OPEN, "unit_unsaid", "A bare number may be in another unit than the other.", _unit_unsaid),
    when(False, "far", "It is not within the tolerance.", lambda p: not p.near),
    Rule("count", "30 bars are not 31.", lambda p: _if_so(p.how.counting, p.whole and abs(p.wanted) <= 100)),
    Rule("year", "A year is met exactly.", lambda p: _if_so(p.how.year, p.whole and 1500 <= p.wanted <= 2100)),
    when(True, "fraction", "0.67 is 2/3, rounded.", lambda p: p.truth.exact),
    when(OPEN, "cents", "A sum to the cent is printed, and not read off a scale.", lambda p: p.truth.printed),
    when(OPEN, "result", "A number near a computed or printed one, or a page's, may be a slip.", lambda p: p.how.exact),
    when(True, "near", "A value read off a chart is met within the tolerance.", lambda p: True),
)
