"""Which paths become pairs, and that length does not tell the better one from the worse one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from insightv.assess.bands import AssessedPath, AssessedQuestion
from insightv.errors import ConfigError, InputError
from insightv.inputs.images import ImageStore
from insightv.records import Band, Message, PreferencePair
from insightv.train.data.length_balance import Lengths, statistics, to_drop
from insightv.train.data.pair_rows import from_json, rows_of_pairs, to_json
from insightv.train.data.pairs import PairRule, select_pairs

from .world import mixed, path, picture, prompt, question, run_of


def pairs_of(item: AssessedQuestion, rule: PairRule) -> list[PreferencePair]:
    """The pairs of one question alone."""
    return select_pairs(lambda: [item], rule).pairs


def asked(*paths: AssessedPath) -> AssessedQuestion:
    return AssessedQuestion(question("q", [picture(1)]), paths)


def places(pairs: list[PreferencePair]) -> list[tuple[int, int]]:
    return [(pair.chosen.index, pair.rejected.index) for pair in pairs]


EVERY = PairRule(per_question=99, length_slack=None)


def test_chosen_is_high_and_rejected_is_wrong_or_lower_by_the_margin() -> None:
    item = asked(
        path("q", 0, Band.high, 85),
        path("q", 1, Band.mid, 66),
        path("q", 2, Band.mid, 65),
        path("q", 3, Band.low, 10),
        path("q", 4, Band.wrong),
        path("q", 5, Band.unscored),
        path("q", 6, None, code="malformed"),
        path("q", 7, None, code="timeout"),
    )
    pairs = pairs_of(item, EVERY)
    assert sorted(places(pairs)) == [(0, 2), (0, 3), (0, 4)]
    assert {pair.rejected.index: pair.margin for pair in pairs} == {2: 20, 3: 75, 4: 85}


def test_a_wrong_path_counts_as_zero_points_whatever_its_steps_scored() -> None:
    item = asked(path("q", 0, Band.high, 85), path("q", 1, Band.wrong, 84), path("q", 2, Band.wrong, 99))
    assert [pair.margin for pair in pairs_of(item, EVERY)] == [85, 85]


def test_high_paths_are_never_rejected() -> None:
    assert not pairs_of(asked(path("q", 0, Band.high, 100), path("q", 1, Band.high, 80)), EVERY)


def test_a_score_that_is_missing_makes_no_pair() -> None:
    assert not pairs_of(asked(path("q", 0, Band.high), path("q", 1, Band.wrong)), EVERY)
    assert not pairs_of(asked(path("q", 0, Band.high, 90), path("q", 1, Band.low)), EVERY)


def test_paths_of_two_policies_never_meet() -> None:
    other = path("q", 1, Band.wrong)
    other = AssessedPath(other.path.model_copy(update={"model": "hf/round-1"}), other.scores, other.band)
    item = asked(path("q", 0, Band.high, 90), other, path("q", 2, Band.wrong))
    assert places(pairs_of(item, EVERY)) == [(0, 2)]
    assert not pairs_of(item, PairRule(policy="hf/round-1"))
    assert select_pairs(lambda: [item], PairRule(policy="openai/teacher")).left_out["of another policy"] == 1


def test_replies_that_differ_in_white_space_only_make_no_pair() -> None:
    item = asked(path("q", 0, Band.high, 90, text="It is 4."), path("q", 1, Band.wrong, text="It  is\n4."))
    assert not pairs_of(item, EVERY)


def test_up_to_k_pairs_of_paths_not_used_before_and_the_widest_first() -> None:
    item = asked(
        path("q", 0, Band.high, 90),
        path("q", 1, Band.high, 85),
        path("q", 2, Band.wrong),
        path("q", 3, Band.low, 30),
    )
    assert places(pairs_of(item, PairRule(per_question=1, length_slack=None))) == [(0, 2)]
    assert places(pairs_of(item, PairRule(per_question=2, length_slack=None))) == [(0, 2), (1, 3)]


def test_the_same_seed_gives_the_same_pairs_and_another_seed_others() -> None:
    def even(number: int) -> AssessedQuestion:
        paths = [path(f"q{number}", i, Band.high if i < 4 else Band.wrong, 90 if i < 4 else None) for i in range(8)]
        return AssessedQuestion(question(f"q{number}", []), tuple(paths))

    def made(seed: int) -> list[tuple[int, int]]:
        return places(select_pairs(run_of(20, even), PairRule(seed=seed)).pairs)

    assert made(1) == made(1)
    assert made(1) != made(2)


def test_a_pair_leads_back_to_paths_scores_and_calls() -> None:
    meta = pairs_of(mixed(3), PairRule(per_question=1))[0].meta
    assert meta["policy"] == "openai/teacher"
    assert meta["paths"] == {"chosen": 1, "rejected": 4}
    assert meta["scores"] == {"chosen": 93, "rejected": None}
    assert meta["because"] == "wrong"
    assert meta["calls"] == {"chosen": ["q3-1-a", "q3-1-b"], "rejected": ["q3-4-a", "q3-4-b"]}
    assert meta["seeds"] == {"chosen": 101, "rejected": 104}


def test_every_path_is_in_a_pair_or_left_out_for_a_reason() -> None:
    chosen = select_pairs(run_of(10), PairRule(per_question=2, length_slack=None))
    used = {(pair.question_id, path.index) for pair in chosen.pairs for path in (pair.chosen, pair.rejected)}
    assert len(used) + chosen.left_out.total() == 80
    assert chosen.left_out["rejected"] == chosen.left_out["failed"] == chosen.left_out["band unscored"] == 10


def biased(number: int) -> AssessedQuestion:
    """A question whose right paths are mostly far longer than its wrong ones."""
    name, long, short = f"q{number}", "x" * 400, "y" * 40
    right, wrong = (long, short) if number % 4 else (short, long)
    return AssessedQuestion(
        question(name, []),
        (
            path(name, 0, Band.high, 90, text=f"{right} {number}"),
            path(name, 1, Band.wrong, text=f"{wrong} {number}"),
        ),
    )


def test_length_alone_does_not_tell_chosen_from_rejected() -> None:
    plain = select_pairs(run_of(400, biased), PairRule(length_slack=None))
    even = select_pairs(run_of(400, biased), PairRule(length_slack=0.0))
    assert plain.lengths["guess by length"] == 0.75
    longer, shorter = even.lengths["chosen is longer"], even.lengths["chosen is shorter"]
    assert isinstance(longer, int)
    assert isinstance(shorter, int)
    assert shorter == 100
    assert 0 < longer - shorter <= (longer + shorter) ** 0.5
    assert even.left_out["in no pair"] == 2 * (300 - longer)


def test_a_longer_and_a_shorter_alternative_are_taken_in_turn_before_any_pair_is_dropped() -> None:
    def both(number: int) -> AssessedQuestion:
        name = f"q{number}"
        wrong = [path(name, i, Band.wrong, text="w" * (300 if i == 1 else 100) + str(number)) for i in (1, 2)]
        return AssessedQuestion(
            question(name, []), (path(name, 0, Band.high, 90, text="r" * 200 + str(number)), *wrong)
        )

    chosen = select_pairs(run_of(50, both), PairRule(per_question=1, length_slack=0.0))
    assert len(chosen.pairs) == 50
    assert abs(statistics_of(chosen.pairs)) <= 2


def statistics_of(pairs: list[PreferencePair]) -> int:
    sides = [pair.meta["characters"]["chosen"] - pair.meta["characters"]["rejected"] for pair in pairs]
    return sum(1 if side > 0 else -1 for side in sides)


def test_even_counts_with_uneven_differences_are_told_apart_too() -> None:
    # Half and half in all, but: much longer is always better, a little longer always worse.
    pairs = [Lengths(1000, 100)] * 200 + [Lengths(100, 103)] * 200
    kept = [pair for i, pair in enumerate(pairs) if i not in to_drop(pairs, [(0.0, i) for i in range(400)], 0.0)]
    assert statistics(pairs)["guess by length"] == 1.0
    assert len(kept) <= 2


def test_no_pairs_are_told_as_none() -> None:
    none = select_pairs(lambda: [], PairRule())
    assert none.pairs == []
    assert none.lengths["guess by length"] is None


@pytest.mark.parametrize(
    "wrong", [{"margin": 0}, {"margin": 101}, {"per_question": 0}, {"length_slack": 0.6}, {"tags": ("<a>",)}]
)
def test_a_rule_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        PairRule(**wrong)  # type: ignore[arg-type] # wrong on purpose


def test_a_prompt_goes_to_json_and_back(tmp_path: object) -> None:
    store = ImageStore(__import__("pathlib").Path(str(tmp_path)) / "images")
    messages = tuple(prompt(question("q", [picture(1), picture(2)])))
    back = from_json(to_json(messages, store))
    assert [message.role for message in back] == ["system", "user"]
    for one, other in zip(messages, back, strict=True):
        assert one.parts == other.parts


def test_a_prompt_that_cannot_be_read_is_refused() -> None:
    for bad in (
        None,
        "text",
        [{"role": "user"}],
        [{"role": "nobody", "content": []}],
        [{"role": "user", "content": 3}],
    ):
        with pytest.raises(InputError):
            from_json(bad)


def test_a_pair_without_a_prompt_or_with_equal_replies_is_no_row() -> None:
    pair = pairs_of(mixed(0), PairRule())[0]
    with pytest.raises(InputError, match="no prompt"):
        list(rows_of_pairs([pair]))
    same = pair.model_copy(update={"rejected": pair.chosen, "meta": {"prompt": []}})
    with pytest.raises(InputError, match="equal"):
        list(rows_of_pairs([same]))


def test_lengths_fall_into_strata_by_their_share() -> None:
    found = {(a, b): Lengths(a, b).stratum for a, b in product((100, 101, 150, 1000), repeat=2)}
    assert found[100, 100] == 0
    assert found[100, 101] == found[101, 100] == 0
    assert found[100, 150] == found[150, 100] == 4
    assert found[1000, 100] == 5


def test_the_set_reads_the_run_again_and_says_where_it_changed() -> None:
    from insightv.errors import InsightvError
    from insightv.train.data.funnel import Funnel
    from insightv.train.data.pair_rows import PreferenceSet

    reads = iter([5, 2])

    def shrinking() -> Iterator[AssessedQuestion]:
        return iter([mixed(number) for number in range(next(reads))])

    with pytest.raises(InsightvError, match="changed"):
        list(PreferenceSet(prompt=lambda q: [Message(role="user", content="?")]).rows(shrinking, Funnel()))
