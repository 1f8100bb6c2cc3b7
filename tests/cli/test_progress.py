"""What people see while a run is made: plain lines where there is no terminal."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from insightv.cli.progress import EvaluationDisplay, ProgressDisplay
from insightv.runs.session import Snapshot, Tally

Clock = Callable[[float], None]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sets the display's clock, in seconds."""

    def set_to(seconds: float) -> None:
        monkeypatch.setattr("insightv.cli.progress.time.monotonic", lambda: 1000 + seconds)

    return set_to


def lines(display: type[ProgressDisplay], at: Clock, *shown: tuple[float, Snapshot]) -> list[str]:
    said = io.StringIO()
    with display(Console(file=said)) as watching:
        for seconds, snapshot in shown:
            at(seconds)
            watching.show(snapshot)
    return said.getvalue().splitlines()


def test_a_build_tells_its_rate_and_what_is_left(at: Clock) -> None:
    first, *_, last = lines(
        ProgressDisplay,
        at,
        (0, Snapshot("building", Tally(100, 0))),
        (20, Snapshot("building", Tally(100, 40), requests=60, tokens=1234, elapsed_s=20)),
    )
    assert "questions 0 of 100" in first
    assert "requests 60 (3.0/s, 0 in flight) | tokens 1,234 | time 20s, about 30s left" in last


def test_the_next_run_begins_anew(at: Clock) -> None:
    """A training shows its evaluations one after the other in one display."""
    *_, last = lines(
        EvaluationDisplay,
        at,
        (0, Snapshot("building", Tally(60, 0))),
        (20, Snapshot("done", Tally(60, 60), requests=120)),
        (40, Snapshot("building", Tally(60, 0))),
        (60, Snapshot("building", Tally(60, 20), requests=40)),
    )
    assert "(2.0/s" in last
    assert "about 40s left" in last
    assert "paths" not in last
