"""Which paths the summary set is made of: shares of bands, and within a band an even draw across the scores.

A pure function of the candidates, the mix and the seed: knows no question and no file. A candidate is known by its
number in the order of reading: 400,000 of them (100,000 questions) are drawn from within 35 MB.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby, islice, pairwise, zip_longest

from insightv.errors import ConfigError
from insightv.records import Band

DRAWN = (Band.high, Band.mid, Band.low, Band.wrong)
"""The bands that the summary set draws from, the paper's four."""

SCORE_STEP = 5
"""Width in points of score of the strata that a band is drawn from evenly."""


@dataclass(slots=True)
class Candidates:
    """The paths that could be drawn, one entry each in these columns."""

    question: array[int] = field(default_factory=lambda: array("L"))
    band: array[int] = field(default_factory=lambda: array("B"))
    stratum: array[int] = field(default_factory=lambda: array("b"))
    lot: array[int] = field(default_factory=lambda: array("L"))

    def add(self, question: int, band: Band, score: float | None, lot: int) -> None:
        """Add a path of the question with number `question`; `lot` is its random number, drawn from the seed."""
        self.question.append(question)
        self.band.append(DRAWN.index(band))
        self.stratum.append(-1 if score is None else int(score // SCORE_STEP))
        self.lot.append(lot)


def shares_of(mix: Mapping[str, float]) -> dict[Band, float]:
    """The mix as shares that add up to 1.

    Raises:
        ConfigError: a band that is not drawn from, a share below 0, or no share above 0.
    """
    unknown = sorted(set(mix) - {band.value for band in DRAWN})
    if unknown:
        raise ConfigError(f"the summary mix names {unknown[0]!r}; its bands are {', '.join(DRAWN)}")
    whole = sum(mix.values())
    if not 0 < whole < float("inf") or min(mix.values()) < 0:
        raise ConfigError(f"the summary mix {dict(mix)} must have shares of at least 0, and one above 0")
    return {band: mix.get(band.value, 0) / whole for band in DRAWN}


def quotas(shares: Mapping[Band, float], total: int) -> dict[Band, int]:
    """`total` in whole rows by share (largest remainders)."""
    counts = {band: int(total * share) for band, share in shares.items()}
    rest = sorted(shares, key=lambda band: counts[band] - total * shares[band])
    for band in rest[: total - sum(counts.values())]:
        counts[band] += 1
    return counts


def limit(candidates: Candidates, shares: Mapping[Band, float], per_question: int) -> array[int]:
    """The numbers of at most `per_question` candidates of each question, those of bands without a share left out.

    Of a question with more, the band that is furthest behind its share gives first, so that the limit costs plentiful
    bands rather than scarce ones.
    """
    supply = Counter(candidates.band)
    kept = dict.fromkeys(DRAWN, 0)

    def behind(band: Band) -> tuple[float, float]:
        return kept[band] / shares[band], supply[DRAWN.index(band)] / shares[band]

    pool = array("L")
    numbered = candidates.question
    order: Iterable[int] = range(len(numbered))
    if any(before > after for before, after in pairwise(numbered)):  # the paths of a second run have followed
        order = sorted(order, key=numbered.__getitem__)
    for _, numbers in groupby(order, key=candidates.question.__getitem__):
        left: dict[Band, list[int]] = {}
        for number in sorted(numbers, key=lambda number: (candidates.lot[number], number), reverse=True):
            band = DRAWN[candidates.band[number]]
            if shares[band] > 0:
                left.setdefault(band, []).append(number)
        for _ in range(min(per_question, sum(map(len, left.values())))):
            band = min((band for band in DRAWN if left.get(band)), key=behind)
            pool.append(left[band].pop())
            kept[band] += 1
    return pool


def draw(candidates: Candidates, pool: Iterable[int], wanted: Mapping[Band, int]) -> array[int]:
    """The numbers of at most `wanted` candidates of each band of the pool, drawn evenly across its scores; in order.

    A band with too few gives what it has; no other band makes up for it.
    """
    strata: dict[Band, dict[int, array[int]]] = {band: {} for band in DRAWN}
    for number in pool:
        strata[DRAWN[candidates.band[number]]].setdefault(candidates.stratum[number], array("L")).append(number)
    drawn = array("L")
    for band, columns in strata.items():
        # Each column by itself: the keys of all candidates at once would take more memory than all else here.
        by_lot = [array("L", sorted(sorted(column), key=candidates.lot.__getitem__)) for column in columns.values()]
        by_lot.sort(key=lambda column: (candidates.lot[column[0]], column[0]))
        # One from each stratum in turn, until there are enough.
        turns = (number for turn in zip_longest(*by_lot) for number in turn if number is not None)
        drawn.extend(islice(turns, wanted[band]))
    return array("L", sorted(drawn))
