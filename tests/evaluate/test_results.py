"""Counting and comparing the rows of evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from insightv.cli.results_table import comparison_tables, result_tables
from insightv.errors import InputError
from insightv.evaluate.results import OUTCOMES, VERDICTS, Graded, Outcome, Result, compare, read_result, summary
from insightv.records import Usage


def row(number: int, outcome: Outcome, **rest: Any) -> Graded:
    return Graded(id=f"q{number}", digest=f"d{number}", outcome=outcome, truth="1", **rest)


def result(rows: list[Graded], name: str = "one", **rest: Any) -> Result:
    head: dict[str, Any] = {"system": "direct", "data": "heldout.jsonl", "seed": 0, "models": {}, "grading": {}}
    return Result(name=name, rows=tuple(rows), **head | rest)


def rows_of(outcomes: str, **rest: Any) -> list[Graded]:
    """A row per letter: r right, w wrong, j rejected, u ungraded, f failed."""
    names: dict[str, Outcome] = {"r": "right", "w": "wrong", "j": "rejected", "u": "ungraded", "f": "failed"}
    return [row(number, names[letter], **rest) for number, letter in enumerate(outcomes)]


def test_what_was_not_graded_is_never_wrong_and_never_left_unsaid() -> None:
    counts = summary(rows_of("rrrrwwjuuf"))["questions"]
    assert {name: counts[name] for name in OUTCOMES} == {
        "right": 4, "wrong": 2, "rejected": 1, "ungraded": 2, "failed": 1,
    }  # fmt: skip
    assert counts["total"] == sum(counts[name] for name in OUTCOMES) == 10
    assert counts["accuracy"] == pytest.approx(4 / 7, abs=1e-6)
    assert counts["bounds"] == pytest.approx([0.4, 0.7])


def test_nothing_graded_has_no_accuracy() -> None:
    counts = summary(rows_of("uf"))["questions"]
    assert counts["accuracy"] is counts["interval"] is counts["bootstrap"] is None
    assert counts["bounds"] == [0, 1]
    assert summary([])["questions"]["bounds"] is None


def test_families_and_the_matrix_add_up_to_the_whole() -> None:
    rows = [
        row(i, outcome, family="ab"[i % 2], reasoning=VERDICTS[i % 3], followed=(True, False, None)[i % 3])
        for i, outcome in enumerate(OUTCOMES * 7)
    ]
    found = summary(rows)
    for outcome in OUTCOMES:
        assert sum(found["families"][family][outcome] for family in "ab") == 7
        assert sum(found["reasoning"]["matrix"][verdict][outcome] for verdict in VERDICTS) == 7
        assert sum(found["followed"][case][outcome] for case in found["followed"]) == 7
    for case in found["followed"].values():
        assert sum(sum(counts.values()) for counts in case["by_reasoning"].values()) == case["total"]


def test_kept_and_recovered_are_read_off_the_matrix() -> None:
    rows = [row(i, "right", reasoning="right") for i in range(6)] + [row(6, "wrong", reasoning="right")]
    rows += [row(7, "right", reasoning="wrong")] + [row(8 + i, "wrong", reasoning="wrong") for i in range(3)]
    rows += [row(20, "right", reasoning="unknown")]
    found = summary(rows)["reasoning"]
    assert (found["right"], found["wrong"], found["unknown"]) == (7, 4, 1)
    assert found["kept"]["accuracy"] == pytest.approx(6 / 7, abs=1e-6)
    assert found["recovered"]["accuracy"] == 0.25


def test_a_system_without_reasoning_has_no_matrix() -> None:
    found = summary(rows_of("rw"))
    assert found["reasoning"] is found["followed"] is None


def test_seconds_are_of_the_questions_that_were_measured() -> None:
    rows = [row(i, "right", seconds=seconds) for i, seconds in enumerate((1.0, 2.0, 9.0, None))]
    assert summary(rows)["seconds"] == {"measured": 3, "mean": 4.0, "median": 2.0, "p90": 7.6}
    assert summary(rows[:1])["seconds"]["p90"] == 1.0
    assert summary(rows[3:])["seconds"] == {"measured": 0, "mean": None, "median": None, "p90": None}


def test_tokens_are_per_question() -> None:
    usage = Usage(prompt_tokens=100, cached_tokens=40, completion_tokens=10, requests=2)
    found = summary([row(0, "right", usage=usage), row(1, "failed")])["tokens"]
    assert found["per_question"] == {"prompt": 50, "cached": 20, "completion": 5, "requests": 1}


def test_a_comparison_by_hand() -> None:
    #      A r B r   only A  only B      neither  not gradable
    first = rows_of("rrrrr" + "r" + "wwwwwj" + "ww" + "ufr")
    second = rows_of("rrrrr" + "w" + "rrrrrr" + "wj" + "rru")
    found = compare(result(first, "one"), result(second, "two"))
    assert [found[name] for name in ("both_right", "only_first", "only_second", "both_wrong")] == [5, 1, 6, 2]
    assert (found["pairs"], found["not_graded"]) == (14, 3)
    assert found["difference"] == pytest.approx(5 / 14, abs=1e-6)
    assert found["p"] == pytest.approx(2 * (1 + 7) / 2**7)
    low, high = found["interval"]
    assert low <= 5 / 14 <= high
    assert found["bounds"] == pytest.approx([(5 + 0 + 0 - 1) / 17, (5 + 1 + 1 + 0) / 17], abs=1e-6)


def test_only_the_same_questions_are_paired() -> None:
    first = [row(0, "right"), row(1, "right"), row(2, "right")]
    second = [row(0, "wrong"), row(1, "right").model_copy(update={"digest": "other"}), row(9, "right")]
    found = compare(result(first), result(second))
    assert found["left_out"] == {"only_in_first": 1, "only_in_second": 1, "content_differs": 1}
    assert found["pairs"] == found["first"]["questions"]["total"] == 1
    with pytest.raises(InputError, match="no question in common"):
        compare(result(first), result(second[1:]))


def test_another_grading_is_noted() -> None:
    rows = rows_of("rw")
    assert compare(result(rows), result(rows))["notes"] == []
    assert "graded" in compare(result(rows), result(rows, grading={"tolerance": 0}))["notes"][0]


def test_a_result_comes_back_from_its_file(tmp_path: Path) -> None:
    made = result(rows_of("rwjuf", family="[b]reading[/b]", reasoning="right", seconds=1.5))
    file = tmp_path / "result.json"
    file.write_text(json.dumps(made.as_json()), encoding="utf-8")
    assert read_result(file) == read_result(tmp_path) == made


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', "not JSON", '{"rows": [{"id": 1}]}'])
def test_what_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.json"):
        read_result(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_result(tmp_path / "gone.json")


def test_the_tables_say_what_was_left_out() -> None:
    made = result(rows_of("rrwjuf", family="[b]", reasoning="wrong", followed=False, seconds=0.25))
    text = result_tables(made)
    assert "1 ungraded, 1 failed; accuracy of all 6 lies between 33.3% and 66.7%" in text
    assert "[b]" in text  # a family is a text, not markup
    assert "0.25 s median" in text
    shown = comparison_tables(compare(made, made))
    assert "2 pairs could not be graded" in shown
    assert all(len(line) <= 110 for line in text.splitlines() if "│" in line)
