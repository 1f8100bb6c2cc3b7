"""Rows for one model alone: the reason set's paths, each with its answer, in one reply or in two turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from insightv.agents.replies.transcript import read_answered
from insightv.assess.bands import AssessedQuestion
from insightv.records import Band, Message
from insightv.train.data.baseline_sets import DirectSet, MultiTurnSet
from insightv.train.data.card import Origin
from insightv.train.data.export import export_set
from insightv.train.data.funnel import Funnel
from insightv.train.data.rows import TrainingRow
from insightv.train.data.sets import ReasonSet, RowSet

from .world import mixed, path, picture, prompt, question, run_of

REASON = ReasonSet(prompt=prompt, best_per_question=2)


def ask(opening: Sequence[Message], reply: str) -> tuple[Message, ...]:
    return (*opening, Message(role="assistant", content=reply), Message(role="user", content="And the answer?"))


def rows_of(spec: RowSet, make: object = mixed, count: int = 6) -> tuple[list[TrainingRow], Funnel]:
    funnel = Funnel()
    rows = []
    for row in spec.rows(run_of(count, make), funnel):  # type: ignore[arg-type]  # a maker of questions
        funnel.wrote(row)
        rows.append(row)
    return rows, funnel


def test_one_reply_is_the_path_and_below_it_the_true_answer() -> None:
    rows, funnel = rows_of(DirectSet(REASON))
    paths, _ = rows_of(REASON)
    assert len(rows) == len(paths) == 12
    for row, same in zip(rows, paths, strict=True):
        assert (row.prompt, row.question) == (same.prompt, same.question)
        assert row.completion == f"{same.completion}\n4"
        assert row.assessed is not None
        steps, answer = read_answered(row.completion)
        assert (steps, answer) == (row.assessed.path.steps, row.question.answer)
    assert funnel.paths == funnel.rows.total() + funnel.left_out.total()


def test_two_turns_are_two_rows_with_one_reply_each() -> None:
    rows, funnel = rows_of(MultiTurnSet(REASON, ask))
    paths, _ = rows_of(REASON)
    for first, second, same in zip(rows[::2], rows[1::2], paths, strict=True):
        assert (first.prompt, first.completion) == (same.prompt, same.completion)
        assert [message.role for message in second.prompt] == ["system", "user", "assistant", "user"]
        assert second.prompt[:2] == first.prompt
        assert second.prompt[2].content == first.completion
        assert second.completion == "4"
        assert second.assessed is first.assessed
    assert funnel.paths == funnel.rows.total() / 2 + funnel.left_out.total()


@pytest.mark.parametrize("spec", [DirectSet(REASON), MultiTurnSet(REASON, ask)])
def test_a_question_without_a_true_answer_gives_no_row(spec: RowSet) -> None:
    def mute(number: int) -> AssessedQuestion:
        return AssessedQuestion(question("q", [picture(1)], answer=None), (path("q", 0, Band.high, 90),))

    rows, funnel = rows_of(spec, mute, 1)
    assert rows == []
    assert funnel.left_out == {"no true answer to learn": 1}


def test_an_answer_that_holds_a_tag_comes_back_as_it_is() -> None:
    def odd(number: int) -> AssessedQuestion:
        asked = question("q", [picture(1)], answer="</thoughts> and <\\thoughts>")
        return AssessedQuestion(asked, (path("q", 0, Band.high, 90),))

    [row], _ = rows_of(DirectSet(REASON), odd, 1)
    assert read_answered(row.completion)[1] == "</thoughts> and <\\thoughts>"


@pytest.mark.parametrize("spec", [DirectSet(REASON), MultiTurnSet(REASON, ask)])
@pytest.mark.parametrize("form", ["trl", "llamafactory", "swift"])
def test_every_form_takes_them_and_the_card_says_what_they_are(spec: RowSet, form: str, tmp_path: Path) -> None:
    made = export_set(spec, run_of(3), tmp_path / "out", Origin(), form)
    assert made.rows == 6 * (2 if isinstance(spec, MultiTurnSet) else 1)
    assert "A baseline" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
