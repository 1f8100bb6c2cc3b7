from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from insightv.records import Band
from insightv.train.data.mix import DRAWN, Candidates, draw, limit, quotas, shares_of

BANDS = st.sampled_from(DRAWN)
QUESTIONS = st.lists(st.lists(st.tuples(BANDS, st.none() | st.floats(1, 100)), max_size=8), max_size=30)
MIXES = st.fixed_dictionaries({band.value: st.integers(0, 5) for band in DRAWN}).filter(lambda mix: any(mix.values()))


def candidates_of(questions: list[list[tuple[Band, float | None]]]) -> Candidates:
    candidates = Candidates()
    for number, paths in enumerate(questions):
        for index, (band, score) in enumerate(paths):
            candidates.add(number, band, score, (number * 7919 + index * 104729) % 1000)
    return candidates


@settings(max_examples=200, deadline=None)
@given(QUESTIONS, MIXES, st.integers(1, 100), st.integers(1, 9))
def test_a_draw_keeps_every_limit_and_leaves_nothing_that_it_could_take(
    questions: list[list[tuple[Band, float | None]]], mix: dict[str, int], total: int, per_question: int
) -> None:
    candidates, shares = candidates_of(questions), shares_of(mix)
    pool = limit(candidates, shares, per_question)
    asked = quotas(shares, total)
    drawn = draw(candidates, pool, asked)
    assert sum(asked.values()) == total
    assert len(pool) == len(set(pool))
    assert max(Counter(candidates.question[number] for number in pool).values(), default=0) <= per_question
    supply = Counter(DRAWN[candidates.band[number]] for number in pool)
    assert Counter(DRAWN[candidates.band[number]] for number in drawn) == Counter(
        {band: min(asked[band], supply[band]) for band in DRAWN if min(asked[band], supply[band])}
    )


@settings(max_examples=50, deadline=None)
@given(QUESTIONS, MIXES)
def test_without_a_limit_in_the_way_every_path_of_a_wanted_band_can_be_drawn(
    questions: list[list[tuple[Band, float | None]]], mix: dict[str, int]
) -> None:
    candidates, shares = candidates_of(questions), shares_of(mix)
    wanted = [band for band, _ in (path for paths in questions for path in paths) if shares[band] > 0]
    assert len(limit(candidates, shares, 8)) == len(wanted)


def test_the_limit_per_question_keeps_the_mix_where_it_can() -> None:
    # Every question has two paths of each band and may give four: a mix of 2 : 1 : 1 : 0 fits exactly.
    candidates = candidates_of([[(band, 50.0) for band in DRAWN for _ in range(2)] for _ in range(50)])
    shares = shares_of({"high": 2, "mid": 1, "low": 1})
    pool = limit(candidates, shares, 4)
    assert Counter(DRAWN[candidates.band[number]] for number in pool) == {Band.high: 100, Band.mid: 50, Band.low: 50}
