"""The ledger of a run's training: what is recorded stays, and what changed is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from insightv.cli.status_table import stage_lines
from insightv.errors import InputError
from insightv.runs.stage_ledger import Ledger, read_ledger
from insightv.runs.store import open_database


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
        ledger.finish("reasoning", {"loss": 0.5})
        [first, _] = read_ledger(database)
        assert (first.done, first.facts, first.identity) == (True, {"loss": 0.5}, {"seed": 1})
        assert first.as_json()["seconds"] >= 0


def test_a_stage_that_goes_on_keeps_its_beginning_and_a_changed_one_begins_anew(database: Path) -> None:
    with Ledger(database) as ledger:
        ledger.begin("reasoning", {"seed": 1})
        began = ledger.find("reasoning")
        ledger.begin("reasoning", {"seed": 1})
        assert ledger.find("reasoning") == began
        ledger.finish("reasoning", {"loss": 1})
        ledger.begin("reasoning", {"seed": 2})
        entry = ledger.find("reasoning")
        assert entry is not None
        assert (entry.done, entry.facts, entry.identity) == (False, {}, {"seed": 2})
        ledger.forget("reasoning")
        assert ledger.find("reasoning") is None


def test_a_stage_of_an_earlier_training_is_laid_aside_until_it_is_taken_up_again(database: Path) -> None:
    with Ledger(database) as ledger:
        for name in ("reasoning", "round 1", "summary"):
            ledger.begin(name, {})
            ledger.finish(name, {"trained": True})
        ledger.lay_aside({"round 1"})
        assert ledger.names() == ["reasoning", "round 1", "summary"]
        shown = [entry.as_json() for entry in read_ledger(database)]
        assert [stage.get("laid_aside", False) for stage in shown] == [False, True, False]
        assert "laid aside" in stage_lines({"stage": "round 1", "laid_aside": True})[0]
        ledger.lay_aside(())
        assert not any(entry.laid_aside for entry in read_ledger(database))


def test_a_ledger_of_before_is_read(database: Path) -> None:
    with Ledger(database) as ledger:
        ledger.begin("reasoning", {})
        ledger._write("DROP TABLE laid_aside")
    assert [entry.laid_aside for entry in read_ledger(database)] == [False]


def test_without_a_run_there_is_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="insightv build"):
        Ledger(tmp_path / "run.db")
    assert not (tmp_path / "run.db").exists()
