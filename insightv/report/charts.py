"""Counts as inline SVG, coloured by class: the style sheet owns the colours, so that dark screens and print fit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from insightv.report.markup import Html, el, join
from insightv.report.tally import OUTCOMES

_WIDTH, _HEIGHT = 400, 190
_LEFT, _BOTTOM, _TOP = 46, 34, 14
_MOST_BINS = 26


@dataclass(frozen=True, slots=True)
class Bin:
    """Values from `low` to below `low + width` (`open`: and all above), counted by outcome."""

    low: int
    width: int
    counts: Mapping[str, int]
    open: bool = False

    @property
    def total(self) -> int:
        """All outcomes together."""
        return sum(self.counts.values())

    @property
    def label(self) -> str:
        """The bin's range, for people."""
        if self.open:
            return f"{self.low:,} and more"
        return f"{self.low:,}" if self.width == 1 else f"{self.low:,} to {self.low + self.width - 1:,}"


def bins_of(counts: Counter[tuple[int, str]], *, low: int = 0, high: int | None = None, width: int = 0) -> list[Bin]:
    """The counts in at most 26 bins of a round width; outliers above the 99th percentile share the last one."""
    if not counts:
        return []
    top = _percentile(counts, 0.99) if high is None else high
    width = width or _round_up((top - low + 1) / _MOST_BINS)
    number = max(1, min(_MOST_BINS, (top - low) // width + 1))
    found = [Counter[str]() for _ in range(number)]
    beyond = False
    for (value, outcome), count in counts.items():
        at = (value - low) // width
        beyond |= at >= number
        found[max(0, min(at, number - 1))][outcome] += count
    return [Bin(low + at * width, width, one, beyond and at == number - 1) for at, one in enumerate(found)]


def _percentile(counts: Counter[tuple[int, str]], share: float) -> int:
    left = share * counts.total()
    for (value, _), count in sorted(counts.items()):
        left -= count
        if left <= 0:
            return value
    return max(value for value, _ in counts)


def _round_up(width: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    if width <= 1:
        return 1
    power = 10 ** math.floor(math.log10(width))
    return int(next(step * power for step in (1, 2, 5, 10) if step * power >= width))


def median(counts: Counter[tuple[int, str]]) -> int:
    """The middle value."""
    return _percentile(counts, 0.5)


def histogram(bins: Sequence[Bin], label: str, axis: str, marks: Mapping[int, str] | None = None) -> Html:
    """Bars stacked by outcome; `marks` are named lines at values of the axis."""
    most = _ceiling(max(one.total for one in bins))
    wide, tall = _WIDTH - _LEFT - 8, _HEIGHT - _TOP - _BOTTOM
    each = wide / len(bins)
    parts = [_levels(most, tall, wide)]
    for at, one in enumerate(bins):
        parts.append(_bar(one, _LEFT + at * each, each, tall / most))
        if at % math.ceil(len(bins) / 11) == 0:
            centre = _LEFT + at * each + (each / 2 if one.width == 1 else 0)
            name = f"{one.low:,}" + ("+" if one.open else "")
            parts.append(el("text", name, x=_n(centre), y=_HEIGHT - _BOTTOM + 14, text_anchor="middle"))
    for value, name in (marks or {}).items():
        x = _n(_LEFT + (value - bins[0].low) / bins[0].width * each)
        parts.append(el("line", x1=x, x2=x, y1=_TOP, y2=_TOP + tall, klass="limit"))
        parts.append(el("text", name, x=x, y=_TOP - 4, text_anchor="middle"))
    parts.append(el("text", axis, x=_LEFT + wide / 2, y=_HEIGHT - 3, text_anchor="middle"))
    return el("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=label, klass="chart")


def _levels(most: int, tall: float, wide: float) -> Html:
    parts = []
    for level in (0, most // 2, most) if most > 1 else (0, most):
        y = _n(_TOP + tall * (1 - level / most))
        parts.append(el("line", x1=_LEFT, x2=_n(_LEFT + wide), y1=y, y2=y, klass="level"))
        parts.append(el("text", f"{level:,}", x=_LEFT - 6, y=float(y) + 4, text_anchor="end"))
    return join(parts)


def _bar(one: Bin, x: float, each: float, scale: float) -> Html:
    y, parts = float(_HEIGHT - _BOTTOM), []
    for outcome in OUTCOMES:
        if count := one.counts.get(outcome, 0):
            y -= count * scale
            parts.append(
                el("rect", x=_n(x + 1), y=_n(y), width=_n(each - 2), height=_n(count * scale), klass=f"o-{outcome}")
            )
    told = ", ".join(f"{name} {one.counts[name]:,}" for name in OUTCOMES if one.counts.get(name))
    return el("g", el("title", f"{one.label}: {told}"), *parts) if parts else Html("")


def _ceiling(most: int) -> int:
    """The top of an axis: even and round."""
    power = 10 ** math.floor(math.log10(max(most, 1)))
    top = next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= most)
    return max(2, int(top))


def shares(counts: Mapping[str, int]) -> Html:
    """One bar of all paths by outcome, and its legend."""
    total, x, parts, legend = sum(counts.values()), 0.0, [], []
    for outcome in OUTCOMES:
        count = counts.get(outcome, 0)
        wide = 1000 * count / total if total else 0
        told = f"{outcome} {count:,}" + (f" ({count / total:.1%})" if total else "")
        if count:
            parts.append(el("rect", el("title", told), x=_n(x), y=0, width=_n(wide), height=28, klass=f"o-{outcome}"))
        x += wide
        legend.append(el("li", el("i", klass=f"swatch o-{outcome}"), told))
    bar = el(
        "svg",
        *parts,
        viewBox="0 0 1000 28",
        preserveAspectRatio="none",
        klass="shares",
        role="img",
        aria_label="paths by outcome",
    )
    return join([bar, el("ul", *legend, klass="legend")])


def bar(share: float) -> Html:
    """A horizontal bar of `share` (0..1) of its width."""
    rect = el("rect", x=0, y=0, width=_n(100 * min(max(share, 0), 1)), height=10, klass="plain")
    back = el("rect", x=0, y=0, width=100, height=10, klass="rail")
    return el("svg", back, rect, viewBox="0 0 100 10", preserveAspectRatio="none", klass="bar", aria_hidden="true")


def whisker(value: float, ends: Sequence[float] | None) -> Html:
    """A share (0..1) as a point with its interval."""
    parts = [el("rect", x=0, y=4.5, width=200, height=1, klass="rail")]
    if ends is not None:
        low, high = (200 * end for end in ends)
        parts.append(el("rect", x=_n(low), y=3, width=_n(max(high - low, 1)), height=4, klass="span"))
    parts.append(el("circle", cx=_n(200 * value), cy=5, r=4, klass="point"))
    return el("svg", *parts, viewBox="-5 0 210 10", klass="whisker", aria_hidden="true")


def _n(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")
