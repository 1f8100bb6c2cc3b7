"""Whether length alone would tell the better reply of a pair from the worse one, and which pairs to drop so that not.

Pairs are counted in strata by how much the two lengths differ, so that neither "the longer one is better" nor "the
much longer one is better" beats a coin by more than chance. Knows lengths (in characters), no path and no text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import pi, sqrt
from statistics import fmean, median

EDGES = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Upper edges of the strata: the difference of the two lengths as a share of the longer one; the last is open."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """The lengths of a pair's replies, in characters."""

    chosen: int
    rejected: int

    @property
    def side(self) -> int:
        """1 where the chosen reply is longer, -1 where it is shorter, 0 where they are equally long."""
        return (self.chosen > self.rejected) - (self.chosen < self.rejected)

    @property
    def stratum(self) -> int:
        """The stratum of the difference, from 0."""
        return bisect_left(EDGES, abs(self.chosen - self.rejected) / max(self.chosen, self.rejected, 1))


@dataclass(slots=True)
class Balance:
    """How many pairs of each stratum have the longer reply chosen, and how many the shorter one."""

    counts: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, lengths: Lengths) -> None:
        """Count a pair."""
        self.counts[lengths.stratum, lengths.side] += 1

    def tips(self, lengths: Lengths) -> bool:
        """Whether a pair with these lengths would add to the side that its stratum has too many of already."""
        stratum, side = lengths.stratum, lengths.side
        return side != 0 and self.counts[stratum, side] > self.counts[stratum, -side]


def to_drop(pairs: Sequence[Lengths], ranks: Sequence[tuple[float, int]], slack: float) -> set[int]:
    """The numbers of the pairs to drop, so that the sides are even in each stratum and in all.

    Even means that they differ by at most `slack` (a share of the pairs) or by what a fair coin gives (the square root
    of their number), whichever is more. Of the side with too many those with the lowest ranks go first.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for number in sorted(range(len(pairs)), key=lambda number: ranks[number], reverse=True):
        groups.setdefault((pairs[number].stratum, pairs[number].side), []).append(number)
    dropped: set[int] = set()
    strata = range(len(EDGES) + 1)
    for stratum in strata:
        for side in (1, -1):
            ours, others = groups.get((stratum, side), []), groups.get((stratum, -side), [])
            while _uneven(len(ours), len(others), slack):
                dropped.add(ours.pop())
    for side in (1, -1):
        ours_of = {stratum: groups.get((stratum, side), []) for stratum in strata}
        others_of = {stratum: len(groups.get((stratum, -side), [])) for stratum in strata}
        while _uneven(sum(map(len, ours_of.values())), sum(others_of.values()), slack):
            fullest = max(strata, key=lambda stratum: len(ours_of[stratum]) - others_of[stratum])
            dropped.add(ours_of[fullest].pop())
    return dropped


def _uneven(ours: int, others: int, slack: float) -> bool:
    return ours - others > max(2 * slack * (ours + others), sqrt(ours + others))


def statistics(pairs: Sequence[Lengths]) -> dict[str, object]:
    """How long the replies are, and how well the best rule by length alone would tell chosen from rejected.

    `guess by length` is the share of pairs that a rule gets right which knows for each stratum whether the longer or
    the shorter reply is more often the better one; `the same by chance` is what it would get on average if lengths
    said nothing. Both are None without pairs.
    """
    balance = Balance()
    for lengths in pairs:
        balance.add(lengths)
    facts: dict[str, object] = {"pairs": len(pairs)}
    for name in ("chosen", "rejected"):
        found = [getattr(lengths, name) for lengths in pairs]
        facts |= {f"{name}, mean": round(fmean(found), 1) if found else None}
        facts |= {f"{name}, median": median(found) if found else None}
    sides = Counter(lengths.side for lengths in pairs)
    facts |= {"chosen is longer": sides[1], "chosen is shorter": sides[-1], "equally long": sides[0]}
    guessed = by_chance = sides[0] / 2
    for stratum, edge in enumerate((*EDGES, 1)):
        longer, shorter = balance.counts[stratum, 1], balance.counts[stratum, -1]
        facts[f"difference up to {edge:.0%}: longer / shorter"] = f"{longer} / {shorter}"
        guessed += max(longer, shorter)
        by_chance += (longer + shorter) / 2 + sqrt((longer + shorter) / (2 * pi))
    facts["guess by length"] = round(guessed / len(pairs), 4) if pairs else None
    facts["the same by chance"] = round(min(by_chance / len(pairs), 1), 4) if pairs else None
    return facts
