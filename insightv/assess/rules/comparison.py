"""Two quantities held against each other: with a tolerance, three-valued.

Readings of the same kind are compared, or all where none are, or where a letter may be a unit instead ("100m" against
"100 million"); where they do not lead to one verdict the verdict is None. Decisions that are not plain arithmetic are
listed at `Comparison`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from insightv.assess.rules.numbers import Quantity
from insightv.assess.rules.units import SCALES_ABROAD, TEMPERATURES, UNITS


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
    - A truth that is money to the cent is printed, so that a near miss is undecided.
    - `percent`: the question asks for a percentage, so that 0.25 for 25 or 25 % is undecided. Where it does not, 0.25
      for 0.25 % is.
    - `scale`: the question asks for the number in thousands, millions, ...: one that is written out is undecided.
    - `falling`: the question speaks of a change, so that a wrong sign is undecided instead of wrong.
    - `heat`: the question may ask for a temperature, so that K may be kelvin; elsewhere it is a thousand.
    - `units`: the units that the question asks for. A bare truth is in these; an answer in one of another kind is
      undecided.
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
    heat: bool = False
    units: frozenset[tuple[str, Fraction]] = frozenset()
    words: frozenset[str] = frozenset()

    def verdict(self, truths: tuple[Quantity, ...], answers: tuple[Quantity, ...]) -> bool | None:
        """True or False where all readings of both agree on it."""
        truths, answers = self._sensible(truths), self._sensible(answers)
        if not truths or not answers:
            return None
        if truths[0].suffix == answers[0].suffix:
            truths, answers = truths[:1], answers[:1]
        pairs = [(truth, answer) for truth in truths for answer in answers]
        alike = [(truth, answer) for truth, answer in pairs if truth.dimension == answer.dimension]
        if not any(truth.dimension for truth, _ in alike):  # both may be bare numbers, and yet one a number of metres
            alike = [pair for pair in pairs if not alike or "label" not in (pair[0].dimension, pair[1].dimension)]
        found = {self._under(truth, answer)._exactly(truth, answer) for truth, answer in alike}
        return found.pop() if len(found) == 1 else None

    def _sensible(self, readings: tuple[Quantity, ...]) -> tuple[Quantity, ...]:
        if self.heat or len(readings) < 2:
            return readings
        return tuple(reading for reading in readings if reading.dimension != "kelvin")

    def _under(self, truth: Quantity, answer: Quantity) -> Comparison:
        if not truth.exact:
            return self
        return replace(self, tolerance=Fraction(0) if answer.exact else min(self.tolerance, Fraction(1, 100)))

    def _exactly(self, truth: Quantity, answer: Quantity) -> bool | None:
        """The verdict on one pair of readings, unless it rests on a tolerance for which the question has no use."""
        verdict = self._pair(truth, answer)
        exact = None if truth.printed and not self.exact else self.exact
        if exact is False or not verdict or truth.exact or (answer.exact and exact is None):
            return verdict
        return True if replace(self, tolerance=Fraction(0))._pair(truth, answer) else False if exact else None

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
            name = truth.suffix[:1].isupper() or any(map(SCALES_ABROAD.match, truth.said))  # 10 Downing Street
            counted = answer.said <= self.words | truth.said and not name
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
            return True if answer.dimension == "angle" and self._near(truth.value, answer.value) else None
        return None if dimensions == {"percent", "points"} else False

    def _numbers(self, truth: Quantity, answer: Quantity, wanted: Fraction, given: Fraction) -> bool | None:
        whole = wanted.denominator == given.denominator == 1
        if truth.parted != answer.parted and (whole or truth.dimension.startswith("money")):
            return None  # 1.000 against 1, $1.500 against $1.5
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
            if near and self.year is not False and truth.dimension in ("", "word") and 1500 <= wanted <= 2100:
                return False if self.year else None
        return near

    def _scales_fit(self, truth: Quantity, answer: Quantity) -> bool:
        """5 against 5 million: the axis may be in millions."""
        if truth.scale == 1:
            return self._near(truth.value * answer.scale, answer.value)
        return answer.scale == 1 and self._near(truth.value, answer.value * truth.scale)

    def _percent(self, truth: Quantity, answer: Quantity) -> bool | None:
        if self._near(truth.value, answer.value):
            return True if self.percent or abs(truth.value) > 1 or not truth.value else None
        hundred = 100 if answer.dimension == "" else Fraction(1, 100)
        if self._near(truth.value, answer.value * hundred):
            return None if self.percent else True
        return None if self.falling and truth.value == -answer.value else False

    def _one_without_unit(self, truth: Quantity, answer: Quantity) -> bool | None:
        if self.units and not truth.dimension:
            return self._in_unit_asked(truth, answer)
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

    def _in_unit_asked(self, truth: Quantity, answer: Quantity) -> bool | None:
        """5 against 5 feet, where metres are asked for."""
        given = answer.value * answer.factor
        factors = [factor for dimension, factor in self.units if dimension == answer.dimension]
        found = {
            self._numbers(truth, answer, truth.value, given / factor)
            if factor == answer.factor
            else self._near(truth.value, given / factor)
            for factor in factors
        }
        if found == {False} and self._near(truth.value, answer.value):
            return None
        return True if True in found else found.pop() if len(found) == 1 else None
