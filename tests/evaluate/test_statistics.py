"""Intervals and tests, against published values, sums over whole distributions, and drawing."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest

from insightv.evaluate.statistics import bootstrap, mcnemar, paired_bootstrap, wilson


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [  # Newcombe 1998, table I: the score method without continuity correction
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_values(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == pytest.approx((low, high), abs=6e-5)
    mirrored = wilson(total - right, total)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=6e-5)


def test_nothing_counted_has_no_interval() -> None:
    assert wilson(0, 0) is bootstrap(0, 0) is paired_bootstrap(0, 0, 0) is None


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.72, 0.9])
def test_wilson_covers_the_truth_as_often_as_it_says(share: float) -> None:
    """Over every outcome of 300 questions with its chance, not over a sample of them."""
    covered = 0.0
    for right in range(301):
        low, high = wilson(right, 300) or (0.0, 0.0)
        if low <= share <= high:
            covered += math.comb(300, right) * share**right * (1 - share) ** (300 - right)
    assert 0.935 <= covered <= 0.97


@pytest.mark.parametrize(("right", "total"), [(41, 60), (3, 25), (1, 1), (0, 7), (7, 7)])
def test_the_bootstrap_is_what_drawing_comes_to(right: int, total: int) -> None:
    rng = random.Random(5)
    rows = [1] * right + [0] * (total - right)
    drawn = sorted(sum(rng.choices(rows, k=total)) for _ in range(8000))
    low, high = bootstrap(right, total) or (9.0, 9.0)
    assert low * total == pytest.approx(drawn[200], abs=1)
    assert high * total == pytest.approx(drawn[7799], abs=1)


def test_the_paired_bootstrap_is_what_drawing_pairs_comes_to() -> None:
    rng = random.Random(6)
    rows = [-1] * 9 + [1] * 22 + [0] * 69
    drawn = sorted(sum(rng.choices(rows, k=100)) for _ in range(8000))
    low, high = paired_bootstrap(9, 22, 100) or (9.0, 9.0)
    assert low * 100 == pytest.approx(drawn[200], abs=1)
    assert high * 100 == pytest.approx(drawn[7799], abs=1)
    assert paired_bootstrap(22, 9, 100) == pytest.approx((-high, -low), abs=0.011)


def test_the_paired_interval_covers_a_true_difference() -> None:
    rng = random.Random(7)
    covered = 0
    for _ in range(250):
        draws = [rng.random() for _ in range(200)]
        first, second = sum(draw < 0.10 for draw in draws), sum(0.10 <= draw < 0.25 for draw in draws)
        low, high = paired_bootstrap(first, second, 200) or (9.0, 9.0)
        covered += low <= 0.05 <= high
    assert 0.90 <= covered / 250 <= 0.98


def test_no_difference_is_no_difference() -> None:
    assert paired_bootstrap(0, 0, 40) == (0, 0)
    assert paired_bootstrap(0, 40, 40) == (1, 1)


def test_large_counts_stay_finite_and_agree_with_the_normal_curve() -> None:
    low, high = bootstrap(70_000, 100_000) or (9.0, 9.0)
    half = 1.959964 * math.sqrt(0.7 * 0.3 / 100_000)
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half), abs=3e-5)
    low, high = paired_bootstrap(800, 1000, 10_000) or (9.0, 9.0)
    half = 1.959964 * math.sqrt((0.18 - 0.02**2) / 10_000)
    assert (low, high) == pytest.approx((0.02 - half, 0.02 + half), abs=2e-4)
    assert 0 <= mcnemar(20_000, 24_000) < 1e-70


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (1, 9, 22 / 1024), (9, 1, 22 / 1024), (0, 6, 2 / 64), (3, 4, 1.0), (2, 12, 212 / 2**14)],
)
def test_mcnemar_by_hand(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == pytest.approx(p, rel=1e-12)


def test_mcnemar_counts_every_split_that_is_no_likelier() -> None:
    """By listing all 2**n ways in which n questions can fall, n up to 9."""
    for apart in range(1, 10):
        ways = [sum(way) for way in product((0, 1), repeat=apart)]
        for second in range(apart + 1):
            away = abs(second - apart / 2)
            expected = sum(abs(way - apart / 2) >= away for way in ways) / len(ways)
            assert mcnemar(apart - second, second) == pytest.approx(expected, rel=1e-12)
