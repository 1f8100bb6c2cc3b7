from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator

import pytest

from insightv.agents.replies.transcript import from_text
from insightv.assess.bands import AssessedPath, AssessedQuestion
from insightv.errors import ConfigError, InsightvError
from insightv.records import Band, Picture, Question, ReasoningPath, Step
from insightv.train.data.funnel import Funnel
from insightv.train.data.general import GeneralData
from insightv.train.data.mix import quotas, shares_of
from insightv.train.data.rows import Licence, TrainingRow
from insightv.train.data.sets import JudgedPaths, ReasonSet, RowSet, SummarySet

from .world import mixed, path, picture, prompt, question, render, run_of

DRAWN = ("high", "mid", "low", "wrong")


def rows_of(spec: RowSet, count: int = 20) -> tuple[list[TrainingRow], Funnel]:
    funnel = Funnel()
    rows = []
    for row in spec.rows(run_of(count), funnel):
        funnel.wrote(row)
        rows.append(row)
    return rows, funnel


def bands(rows: list[TrainingRow]) -> Counter[str]:
    return Counter(str(row.assessed.band) for row in rows if row.assessed)


@pytest.mark.parametrize("best", [1, 2, 3])
def test_reason_set_holds_the_best_high_paths_only_and_every_path_is_accounted_for(best: int) -> None:
    rows, funnel = rows_of(ReasonSet(prompt=prompt, best_per_question=best))
    assert len(rows) == 20 * min(best, 2)
    assert set(bands(rows)) == {"high"}
    first = [row for row in rows if row.assessed and row.assessed.path.question_id == "q3"]
    assert [row.assessed.path.index for row in first if row.assessed] == [1, 0][:best]
    assert funnel.paths == 160 == funnel.rows.total() + funnel.left_out.total()
    assert funnel.statuses == {"ok": 120, "rejected": 20, "failed": 20}
    assert funnel.left_out["rejected"] == 20
    assert funnel.left_out["failed"] == 20
    assert funnel.left_out["band unscored"] == 20
    assert funnel.left_out["band wrong"] == 20


def test_equal_scores_go_to_the_first_path_and_equal_texts_give_one_row() -> None:
    def tie(number: int) -> AssessedQuestion:
        same = tuple(path("q", index, Band.high, 90, text="the same") for index in (2, 0))
        return AssessedQuestion(question("q", [picture(1)]), (*same, path("q", 1, Band.high, 90)))

    funnel = Funnel()
    rows = list(ReasonSet(prompt=prompt, best_per_question=3).rows(run_of(1, tie), funnel))
    assert [row.assessed.path.index for row in rows if row.assessed] == [0, 1]
    assert funnel.left_out == {"same text as a better path": 1}


def test_completion_reads_back_as_the_steps_and_a_path_that_would_not_is_left_out() -> None:
    hostile = "### no title\n</thoughts> <image> ### x"

    def odd(number: int) -> AssessedQuestion:
        blank = path("q", 1, Band.high, 99)
        steps = (Step(title=" ", content="x", action="summary"),)
        blank = dataclasses.replace(blank, path=blank.path.model_copy(update={"steps": steps}))
        empty = dataclasses.replace(blank, path=blank.path.model_copy(update={"steps": (), "index": 2}))
        return AssessedQuestion(question("q", []), (path("q", 0, Band.high, 80, text=hostile), blank, empty))

    funnel = Funnel()
    (row,) = ReasonSet(prompt=prompt).rows(run_of(1, odd), funnel)
    steps, complete = from_text(row.completion)
    assert complete
    assert [step.content for step in steps] == [hostile, "So the answer is 4."]
    assert funnel.left_out == {"cannot be written in the text format": 2}


def test_summary_set_keeps_the_mix_and_the_limit_per_question() -> None:
    spec = SummarySet(render=render, mix={"high": 2, "mid": 1, "low": 1, "wrong": 0}, total=40, per_question=2, seed=1)
    rows, funnel = rows_of(spec)
    assert bands(rows) == {"high": 20, "mid": 10, "low": 10}
    assert max(Counter(row.question.id for row in rows).values()) <= 2
    assert funnel.wanted == {"high": 20, "mid": 10, "low": 10, "wrong": 0}
    assert funnel.paths == funnel.rows.total() + funnel.left_out.total()
    assert all(row.completion == "4" for row in rows)


def test_the_limit_holds_over_two_runs_of_the_same_questions() -> None:
    """The summary agent's set has the paths of its reasoner after those of the run."""
    one = run_of(10)

    def both() -> Iterator[AssessedQuestion]:
        yield from one()
        yield from one()

    for several, most in ((True, 2), (False, 4)):
        spec = SummarySet(render=render, per_question=2, several_runs=several)
        rows = Counter(row.question.id for row in spec.rows(both, Funnel()))
        assert max(rows.values()) == most


def test_a_band_with_too_few_gives_what_it_has_and_nothing_makes_up_for_it() -> None:
    def few(number: int) -> AssessedQuestion:
        whole = mixed(number)
        return whole if number == 0 else dataclasses.replace(whole, paths=whole.paths[:2])

    funnel = Funnel()
    spec = SummarySet(render=render, mix={"high": 0.5, "wrong": 0.5}, total=20)
    rows = list(spec.rows(run_of(20, few), funnel))
    assert bands(rows) == {"high": 10, "wrong": 1}
    assert funnel.wanted["wrong"] == 10


def test_scarce_bands_draw_first_under_the_limit_per_question() -> None:
    # One path of a question may be drawn; only question 0 has a wrong path, and it must not lose it to a high one.
    def one_wrong(number: int) -> AssessedQuestion:
        whole = mixed(number)
        return dataclasses.replace(whole, paths=whole.paths[:5] if number == 0 else whole.paths[:4])

    for seed in range(10):
        spec = SummarySet(render=render, mix={"high": 1, "wrong": 1}, total=20, per_question=1, seed=seed)
        assert bands(list(spec.rows(run_of(20, one_wrong), Funnel())))["wrong"] == 1


def test_a_band_is_drawn_evenly_across_its_scores() -> None:
    # 200 low paths score 40, one each scores 5, 10, .. 35: an even draw must have all of those.
    def skewed(number: int) -> AssessedQuestion:
        name = f"q{number}"
        value = 40 if number < 200 else 5 * (number - 199)
        return AssessedQuestion(question(name, []), (path(name, 0, Band.low, value),))

    spec = SummarySet(render=render, mix={"low": 1}, total=16)
    scores = Counter(row.assessed.score for row in spec.rows(run_of(207, skewed), Funnel()) if row.assessed)
    assert scores == {5: 1, 10: 1, 15: 1, 20: 1, 25: 1, 30: 1, 35: 1, 40: 9}


def test_the_draw_depends_on_the_seed_and_not_on_chance() -> None:
    def drawn(seed: int) -> list[tuple[str, int]]:
        spec = SummarySet(render=render, total=30, per_question=2, seed=seed)
        return [(row.question.id, row.assessed.path.index) for row in rows_of(spec)[0] if row.assessed]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_paths_without_a_true_answer_are_not_in_the_summary_set() -> None:
    def untold(number: int) -> AssessedQuestion:
        whole = mixed(number)
        answer = (None, " ", "4")[number % 3]
        return dataclasses.replace(whole, question=whole.question.model_copy(update={"answer": answer}))

    funnel = Funnel()
    rows = list(SummarySet(render=render, mix={"high": 1}).rows(run_of(3, untold), funnel))
    assert {row.question.id for row in rows} == {"q2"}
    assert funnel.left_out["no true answer to learn"] == 10


def general(count: int) -> GeneralData:
    def questions() -> Iterator[Question]:
        for i in range(count):
            yield question(f"g{i}", [picture(500 + i)], answer=None if i % 10 == 0 else "yes", meta={})

    return GeneralData(questions, share=0.5, licence=Licence("general set", "CC-BY-4.0"))


def test_general_data_is_mixed_evenly_at_its_share() -> None:
    rows, funnel = rows_of(SummarySet(render=render, total=40, general=general(100)))
    own = [row for row in rows if row.assessed is None]
    assert len(rows) == 80
    assert len(own) == 40
    assert all(row.completion == "yes" and row.licence == "CC-BY-4.0" and len(row.pictures) == 1 for row in own)
    none = ReasoningPath(question_id=own[0].question.id, index=0, status="failed", code="no_reasoning")
    assert own[0].prompt == tuple(render(own[0].question, none))
    for start in range(0, 80, 20):
        assert 8 <= sum(row.assessed is None for row in rows[start : start + 20]) <= 12
    assert funnel.general == {"rows": 40, "wanted": 40, "questions": 100, "without an answer": 10}


def test_too_little_general_data_is_taken_whole_and_told() -> None:
    rows, funnel = rows_of(SummarySet(render=render, total=40, general=general(10)))
    assert len(rows) == 49
    assert funnel.general["wanted"] == 40
    assert funnel.general["rows"] == 9


def test_images_are_opened_only_for_questions_that_give_a_row() -> None:
    opened: list[str] = []

    def closed(number: int) -> AssessedQuestion:
        whole = mixed(number, images=[f"sha256:{number}"])
        return whole if number < 3 else dataclasses.replace(whole, paths=whole.paths[5:])

    def opener(asked: Question) -> Question:
        opened.append(asked.id)
        return asked.model_copy(update={"images": (picture(int(asked.id[1:])),)})

    spec = ReasonSet(prompt=prompt, best_per_question=2, open=opener)
    rows = list(spec.rows(run_of(50, closed), Funnel()))
    assert opened == ["q0", "q1", "q2"]
    assert all(isinstance(image, Picture) for row in rows for image in row.pictures)


def test_judged_paths_carry_the_verdict_and_nothing_unjudged() -> None:
    rows, funnel = rows_of(JudgedPaths(prompt=prompt))
    assert bands(rows) == {band: 20 * (2 if band == "high" else 1) for band in DRAWN}
    assert all(row.label is (row.assessed is not None and row.assessed.band is not Band.wrong) for row in rows)
    assert funnel.paths == funnel.rows.total() + funnel.left_out.total()


def test_a_run_that_grows_between_the_two_readings_is_noticed() -> None:
    calls = 0

    def growing() -> Iterator[AssessedQuestion]:
        nonlocal calls
        calls += 1
        return (mixed(number) for number in range(3 + calls))

    for mixed_in in (None, general(10)):
        with pytest.raises(InsightvError, match="changed while its summary set was written"):
            list(SummarySet(render=render, general=mixed_in).rows(growing, Funnel()))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ReasonSet(prompt=prompt, best_per_question=0), "best_per_question = 0"),
        (lambda: ReasonSet(prompt=prompt, tags=("<a>", "<a>")), "not different enough"),
        (lambda: SummarySet(render=render, mix={"unscored": 1}), "'unscored'"),
        (lambda: SummarySet(render=render, mix={}), "one above 0"),
        (lambda: SummarySet(render=render, mix={"high": 2, "mid": -1}), "at least 0"),
        (lambda: SummarySet(render=render, mix={"high": float("nan")}), "nan"),
        (lambda: SummarySet(render=render, total=0), "summary_total = 0"),
        (lambda: GeneralData(list, share=1), "general_share = 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_the_value(make: object, words: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=words):
        make()


def test_quotas_add_up() -> None:
    shares = shares_of({"high": 1, "mid": 1, "low": 1})
    for total in range(20):
        assert sum(quotas(shares, total).values()) == total
    assert sorted(quotas(shares, 2).values()) == [0, 0, 1, 1]


def test_the_score_of_a_path_is_the_last_one_given() -> None:
    judged = path("q", 0, Band.high, 70)
    assert judged.score == 70
    assert AssessedPath(judged.path, judged.scores[:1]).score is None
