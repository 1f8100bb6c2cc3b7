"""What a run refuses of another questions file: each difference by question and field."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from insightv.errors import InputError, RunChanged
from insightv.inputs.questions import question_digest
from insightv.records import Question
from insightv.runs.ingest import Entrant, take_in
from insightv.runs.schema import check_schema

LONG = "word " * 60
ROW: dict[str, Any] = {
    "id": "q1",
    "question": f"{LONG}which?",
    "images": ("a.png",),
    "answer": "B",
    "choices": ("x", "y"),
    "meta": {"level": 1, "inner": {"k": [1]}, "flag": True, "empty": None},
}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A run that has `ROW`."""
    connection = sqlite3.connect(tmp_path / "run.db")
    check_schema(connection, tmp_path / "run.db", create=True)
    take_in(connection, {}, [entrant({}, ["1"])], allow=False)
    yield connection
    connection.close()


def entrant(changes: dict[str, Any], hashes: Sequence[str]) -> Entrant:
    question = Question(**{**ROW, **changes})
    return Entrant(question, question_digest(question, hashes), "")


def refused(run: sqlite3.Connection, changes: dict[str, Any], *hashes: str) -> list[str]:
    with pytest.raises(RunChanged) as caught:
        take_in(run, {}, [entrant(changes, hashes or ["1"])], allow=False)
    told = caught.value.differences
    assert all(difference.startswith("question 'q1': ") for difference in told)
    return [difference.removeprefix("question 'q1': ") for difference in told]


def test_the_same_questions_are_taken_again(run: sqlite3.Connection) -> None:
    take_in(run, {}, [entrant({"images": ("moved/a.png",)}, ["1"])], allow=False)


def test_each_changed_field_is_named_with_both_values(run: sqlite3.Connection) -> None:
    assert refused(run, {"answer": "A"}) == ['answer: "B" -> "A"']
    assert refused(run, {"answer": None, "choices": None}) == [
        'answer: "B" -> null',
        'choices: ["x", "y"] -> null',
    ]
    meta = {**ROW["meta"], "level": 2, "inner": {"k": [2]}, "new": "here"}
    assert refused(run, {"meta": meta}) == [
        "meta.inner.k: [1] -> [2]",
        "meta.level: 1 -> 2",
        'meta.new: null -> "here"',
    ]
    assert refused(run, {"question": f"{LONG}where?"}) == [
        'question: ...rd word word word which?" -> ...rd word word word where?"'
    ]


def test_what_python_takes_for_equal_is_named_too(run: sqlite3.Connection) -> None:
    told = ["meta: values of another type (true for 1, null for nothing)"]
    assert refused(run, {"meta": {**ROW["meta"], "flag": 1}}) == told
    assert refused(run, {"meta": {key: value for key, value in ROW["meta"].items() if key != "empty"}}) == told


def test_images_are_named_where_they_differ(run: sqlite3.Connection) -> None:
    assert refused(run, {}, "2") == ["images: other pictures than the run has, now ['a.png']"]
    assert refused(run, {"images": ("b.png",)}, "2") == ["images: ['a.png'] -> ['b.png']"]
    assert refused(run, {"images": ()}, "2") == ["images: ['a.png'] -> []"]
    stored = ROW | {"images": (f"sha256:{'0' * 64}",)}
    run.execute("UPDATE questions SET record = ?", (Question(**stored).model_dump_json().encode(),))
    assert refused(run, {"images": ("b.png",)}, "2") == ["images: other pictures than the run has, now ['b.png']"]
    assert refused(run, {"images": ("b.png",), "answer": "A"}, "2") == ['answer: "B" -> "A"']
    assert refused(run, {"images": ("b.png", "c.png"), "answer": "A"}, "2", "3") == [
        'answer: "B" -> "A"',
        "images: other pictures than the run has, now ['b.png', 'c.png']",
    ]


@pytest.mark.parametrize("record", ["{", "[]", "{}", ""])
def test_a_damaged_record_is_named(record: str, run: sqlite3.Connection) -> None:
    run.execute("UPDATE questions SET record = ?", (record,))
    with pytest.raises(InputError, match="the question 'q1' is not as it was written"):
        refused(run, {"answer": "A"})


@pytest.mark.parametrize(
    "before", ["object:insightv.generate.ProgressiveGenerator", "object:insightv.agents.x.ProgressiveGenerator"]
)
def test_an_object_of_our_own_is_the_same_wherever_its_module_was(before: str, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "run.db")
    check_schema(connection, tmp_path / "run.db", create=True)
    made = {"generator": {"use": before, "class": before.removeprefix("object:")}, "scorers": {"0": {"use": before}}}
    take_in(connection, made, [entrant({}, ["1"])], allow=False)
    use = "object:insightv.ProgressiveGenerator"
    now: dict[str, Any] = {"generator": {"use": use, "object": {"paths": 2}}, "scorers": {"0": {"use": use}}}
    take_in(connection, now, None, allow=False)
    now["scorers"]["0"]["use"] = "object:mine.ProgressiveGenerator"
    with pytest.raises(RunChanged, match=r"mine\.ProgressiveGenerator"):
        take_in(connection, now, None, allow=False)
    connection.close()
