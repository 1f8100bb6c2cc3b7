"""How a build is shown while it runs: a live display in a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import replace
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from insightv.redact import Redactor, environment_secrets
from insightv.report.format import clock, dollars
from insightv.runs.session import Snapshot

_PLAIN_EVERY_S = 10.0
_RATE_WINDOW = 60


class _Warnings(logging.Handler):
    """Prints what a watcher must know now: a server that is down, a limit that is waited for."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console
        self.addFilter(lambda record: record.levelno == logging.WARNING)  # faults of items are counted, not printed

    def emit(self, record: logging.LogRecord) -> None:
        text = Redactor(environment_secrets()).clean(record.getMessage(), 500)
        self._console.print(f"warning: {text}", highlight=False, markup=False, soft_wrap=True)


class ProgressDisplay:
    """Shows snapshots and warnings; use it as a context manager and hand `show` to the build."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=_RATE_WINDOW)
        self._said = 0.0
        self._phase = ""
        self._warnings = _Warnings(console)

    def __enter__(self) -> Self:
        logging.getLogger("insightv").addHandler(self._warnings)
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("insightv").removeHandler(self._warnings)
        if self._live is not None:
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Show how the build stands."""
        now = time.monotonic()
        if self._marks and snapshot.requests < self._marks[-1][1]:
            self._marks.clear()  # another run: a training shows several, one after the other
        self._marks.append((now, snapshot.requests, snapshot.tally.done))
        if self._live is not None:
            self._live.update(self._table(snapshot))
        elif snapshot.phase != self._phase or now - self._said >= _PLAIN_EVERY_S:
            self._said = now
            self._console.print(self._line(snapshot), highlight=False, markup=False, soft_wrap=True)
        self._phase = snapshot.phase

    def _rates(self, snapshot: Snapshot) -> tuple[float, float | None]:
        """Requests per second over the last half minute, and seconds left, None where that cannot be told yet."""
        (began, requests, done), (now, *_) = self._marks[0], self._marks[-1]
        if now - began < 1:
            return 0.0, None
        finished = snapshot.tally.done - done
        left = snapshot.tally.total - snapshot.tally.done
        return (snapshot.requests - requests) / (now - began), left * (now - began) / finished if finished else None

    def _facts(self, snapshot: Snapshot) -> list[tuple[str, str]]:
        tally = snapshot.tally
        rate, left = self._rates(snapshot)
        bands = ", ".join(f"{name} {count}" for name, count in tally.bands.items())
        facts = [
            ("questions", f"{tally.done} of {tally.total}"),
            ("paths", ", ".join(f"{name} {count}" for name, count in tally.paths.items())),
            ("bands", bands),
            ("requests", f"{snapshot.requests} ({rate:.1f}/s, {snapshot.in_flight} in flight)"),
            ("tokens", f"{snapshot.tokens:,}"),
        ]
        if snapshot.usd:
            facts.append(("cost", dollars(snapshot.usd)))
        facts.append(("time", f"{clock(snapshot.elapsed_s)}" + (f", about {clock(left)} left" if left else "")))
        return facts

    def _line(self, snapshot: Snapshot) -> str:
        if snapshot.phase == "checking":
            return "checking questions and images"
        if snapshot.phase == "datasets":
            return "writing datasets"
        return f"{snapshot.phase}: " + " | ".join(f"{name} {text}" for name, text in self._facts(snapshot))

    def _table(self, snapshot: Snapshot) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_row(snapshot.phase, ProgressBar(max(snapshot.tally.total, 1), snapshot.tally.done, width=40))
        for name, text in self._facts(snapshot):
            table.add_row(name, text)
        return table


class EvaluationDisplay(ProgressDisplay):
    """The same for an evaluation, whose paths and bands say nothing to people."""

    def show(self, snapshot: Snapshot) -> None:
        """Show how the evaluation stands."""
        super().show(replace(snapshot, phase="evaluating") if snapshot.phase == "building" else snapshot)

    def _facts(self, snapshot: Snapshot) -> list[tuple[str, str]]:
        return [fact for fact in super()._facts(snapshot) if fact[0] not in ("paths", "bands")]
