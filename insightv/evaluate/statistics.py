"""How sure a count of right answers is, and a difference of two such counts on the same questions. Pure numbers.

Wilson's interval is for one accuracy. The percentile bootstrap is worked out, not drawn: resampling n questions, of
which r are right, gives a binomial number of right ones, so its percentiles are known exactly and need no seed.
For sums of other numbers than hits it is drawn, from a seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

Interval = tuple[float, float]
LEVEL = 0.95
_REACH = 9.0
"""Standard deviations beyond which a binomial's tail does not count (less than 1e-17 of it)."""
_FEWEST_DRAWS, _MOST_DRAWS, _DRAWN_ROWS = 400, 2000, 1_000_000


def wilson(right: int, total: int) -> Interval | None:
    """Wilson's score interval of an accuracy, on 0..1; None where nothing was counted."""
    if total == 0:
        return None
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    share, spread = right / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return (0.0 if right == 0 else middle - half, 1.0 if right == total else middle + half)


def bootstrap(right: int, total: int) -> Interval | None:
    """The percentile bootstrap's interval of an accuracy, in the limit of endless resamples; None for no questions."""
    if total == 0:
        return None
    low, high = _percentiles(dict(_binomial(total, right / total)))
    return low / total, high / total


def paired_bootstrap(only_first: int, only_second: int, total: int) -> Interval | None:
    """The same for the difference of two accuracies (second less first) on `total` questions that both answered.

    `only_first` questions only the first had right, `only_second` only the second. Questions are resampled as pairs.
    """
    if total == 0:
        return None
    apart = only_first + only_second
    chances: dict[int, float] = {}
    for number, outer in _binomial(total, apart / total):
        for second, inner in _binomial(number, only_second / apart if apart else 0.0):
            difference = 2 * second - number
            chances[difference] = chances.get(difference, 0.0) + outer * inner
    low, high = _percentiles(chances)
    return low / total, high / total


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test: how likely so uneven a split is where both are equally good."""
    apart, fewer = only_first + only_second, min(only_first, only_second)
    term = tail = 1
    for k in range(fewer):
        term = term * (apart - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << apart))


def _binomial(total: int, share: float) -> list[tuple[int, float]]:
    """Numbers of hits in `total` draws with their chances, without those that practically never occur."""
    if share <= 0 or share >= 1:
        return [(0 if share <= 0 else total, 1.0)]
    reach = math.ceil(_REACH * math.sqrt(total * share * (1 - share)) + _REACH)
    middle, odds = math.floor(total * share), share / (1 - share)
    ways = math.lgamma(total + 1) - math.lgamma(middle + 1) - math.lgamma(total - middle + 1)
    chance = top = math.exp(ways + middle * math.log(share) + (total - middle) * math.log1p(-share))
    found = [(middle, top)]
    for hits in range(middle, max(0, middle - reach), -1):
        chance *= hits / ((total - hits + 1) * odds)
        found.append((hits - 1, chance))
    chance = top
    for hits in range(middle, min(total, middle + reach)):
        chance *= (total - hits) * odds / (hits + 1)
        found.append((hits + 1, chance))
    return found


def _percentiles(chances: dict[int, float]) -> tuple[int, int]:
    """The least values that at least (1 - LEVEL) / 2 and (1 + LEVEL) / 2 of the distribution do not exceed."""
    whole, below = math.fsum(chances.values()), 0.0
    low: int | None = None
    value = 0
    for value in sorted(chances):
        below += chances[value] / whole
        if low is None and below >= (1 - LEVEL) / 2:
            low = value
        if below >= (1 + LEVEL) / 2:
            break
    return (value if low is None else low), value


def resampled_means(rows: Sequence[Sequence[float]], seed: int) -> list[list[float]]:
    """The column means of many resamples of whole rows with replacement: the bootstrap of whatever they say."""
    rng, places = random.Random(seed), range(len(rows))
    means = []
    for _ in range(max(_FEWEST_DRAWS, min(_MOST_DRAWS, _DRAWN_ROWS // max(1, len(rows))))):
        drawn = rng.choices(places, k=len(rows))
        means.append([math.fsum(column) / len(rows) for column in zip(*(rows[at] for at in drawn), strict=True)])
    return means


def percentiles(values: Iterable[float]) -> Interval | None:
    """The interval that holds the middle `LEVEL` of some values; None where there are none."""
    ranked = sorted(values)
    if not ranked:
        return None
    last = len(ranked) - 1
    return ranked[math.floor(last * (1 - LEVEL) / 2)], ranked[math.ceil(last * (1 + LEVEL) / 2)]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval, None at both ends where too little was seen to tell one."""

    value: float
    low: float | None = None
    high: float | None = None


def ratio(rows: Sequence[tuple[float, float]], seed: int) -> Estimate | None:
    """The sum of the firsts over that of the seconds, its interval bootstrapped over rows; None where that is 0/0."""
    seen = [row for row in rows if row[1]]
    if not seen:
        return None
    value = math.fsum(row[0] for row in seen) / math.fsum(row[1] for row in seen)
    if len(seen) < 2:
        return Estimate(value)
    found = percentiles(above / below for above, below in resampled_means(seen, seed))
    return Estimate(value, *found) if found else Estimate(value)


def share(rows: Sequence[tuple[int, int]], seed: int) -> Estimate | None:
    """Hits over trials, by row. Where all or none hit, resampling says nothing: Wilson's interval, a row a trial."""
    found = ratio(rows, seed)
    if found is None or 0 < found.value < 1:
        return found
    trials = sum(1 for row in rows if row[1])
    interval = wilson(trials if found.value else 0, trials)
    return Estimate(found.value, *interval) if interval else found
