"""The ledger of a run's training: what is recorded stays, and what changed is seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from insightv.cli.status_table import stage_lines
from insightv.errors import InputError
from insightv.runs.schema import open_database
from insightv.runs.stage_facts import Accuracy, StageFacts, StageId
from insightv.runs.stage_ledger import Ledger, read_ledger


@pytest.fixture
def database(tmp_path: Path) -> Path:
    open_database(tmp_path / "run.db", lambda trouble: None).close()
    return tmp_path / "run.db"


def test_a_stage_is_recorded_and_read_while_it_is_written(database: Path) -> None:
    assert read_ledger(database) == []
    with Ledger(database) as ledger:
        assert ledger.find("reasoning") is None
        ledger.begin("reasoning", {"seed": 1})
        ledger.begin("round 1", {"seed": 1})
        assert [(entry.name, entry.done) for entry in read_ledger(database)] == [
            ("reasoning", False),
            ("round 1", False),
        ]
        ledger.finish("reasoning", StageFacts(loss=0.5))
        [first, _] = read_ledger(database)
        assert (first.done, first.facts, first.identity) == (True, StageFacts(loss=0.5), {"seed": 1})
        assert first.as_json()["seconds"] >= 0


def test_a_stage_that_goes_on_keeps_its_beginning_and_a_changed_one_begins_anew(database: Path) -> None:
    with Ledger(database) as ledger:
        ledger.begin("reasoning", {"seed": 1})
        began = ledger.find("reasoning")
        ledger.begin("reasoning", {"seed": 1})
        assert ledger.find("reasoning") == began
        ledger.finish("reasoning", StageFacts(loss=1))
        ledger.begin("reasoning", {"seed": 2})
        entry = ledger.find("reasoning")
        assert entry is not None
        assert (entry.done, entry.facts, entry.identity) == (False, StageFacts(), {"seed": 2})


def test_a_stage_of_an_earlier_training_is_laid_aside_until_it_is_taken_up_again(database: Path) -> None:
    with Ledger(database) as ledger:
        for name in ("reasoning", "round 1", "summary"):
            ledger.begin(name, {})
            ledger.finish(name, StageFacts(trained=True))
        ledger.lay_aside({"round 1"})
        assert [entry.name for entry in ledger.entries()] == ["reasoning", "round 1", "summary"]
        shown = [entry.as_json() for entry in read_ledger(database)]
        assert [stage.get("laid_aside", False) for stage in shown] == [False, True, False]
        assert "laid aside" in stage_lines(read_ledger(database)[1])[0]
        ledger.lay_aside(())
        assert not any(entry.laid_aside for entry in read_ledger(database))


def test_a_ledger_of_before_is_read(database: Path) -> None:
    with Ledger(database) as ledger:
        ledger.begin("reasoning", {})
        ledger._write("DROP TABLE laid_aside")
    assert [entry.laid_aside for entry in read_ledger(database)] == [False]


def test_keys_of_other_releases_stay_readable(database: Path) -> None:
    row = {"pairs": 3, "after": {"accuracy": 0.5, "better": True}, "drift": {"margin": {"last": 1.5}}, "later": [1]}
    with Ledger(database) as ledger:
        ledger.begin("round 1", {})
        ledger._write("UPDATE stages SET done = 1, ended = began, facts = ?", (json.dumps(row),))
        [entry] = read_ledger(database)
        assert entry.as_json() == {"stage": "round 1", "done": True, "seconds": 0, **row}
        assert entry.facts.after is not None
        assert (entry.facts.pairs, entry.facts.after.accuracy, entry.facts.loss) == (3, 0.5, None)
        ledger._write("UPDATE stages SET facts = ?", (json.dumps({"pairs": "many"}),))
        with pytest.raises(InputError, match="database is damaged: a stage of the training"):
            read_ledger(database)


def test_the_facts_of_two_parts_are_written_as_one() -> None:
    whole = StageFacts(loss=0.5, before=None) | StageFacts(after=Accuracy(accuracy=1, interval=(0.5, 1)), loss=0.25)
    assert whole.as_json() == {"loss": 0.25, "before": None, "after": {"accuracy": 1, "interval": [0.5, 1]}}


@pytest.mark.parametrize(("name", "number"), [("reasoning", 0), ("round 12", 12), ("summary", None), ("round x", None)])
def test_the_name_of_a_stage_says_its_round(name: str, number: int | None) -> None:
    assert StageId(name).round == number
    assert StageId.of_round(12) == "round 12"


def test_without_a_run_there_is_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="insightv build"):
        Ledger(tmp_path / "run.db")
    assert not (tmp_path / "run.db").exists()
