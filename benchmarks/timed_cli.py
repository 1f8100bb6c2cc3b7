"""The command line of insightv, with each transaction on its databases timed: a process for `soak.py` to watch.

    python benchmarks/timed_cli.py TIMES.json build QUESTIONS --config ... --run ...

TIMES.json is written at the end: how many transactions there were, and how long they took (BEGIN to the end of COMMIT)
and their COMMIT alone, as counts by steps of 0.05 ms, the last for all that is longer.
"""

from __future__ import annotations

import atexit
import json
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

STEP_MS = 0.05
STEPS = 4000
TRANSACTIONS, COMMITS = [0] * STEPS, [0] * STEPS


def count(counts: list[int], seconds: float) -> None:
    """Count a duration."""
    counts[min(int(seconds * 1000 / STEP_MS), STEPS - 1)] += 1


def quantile_ms(counts: list[int], share: float) -> float:
    """The duration that `share` of those counted did not exceed, in ms."""
    left = share * sum(counts)
    for place, number in enumerate(counts):
        left -= number
        if left <= 0 and number:
            return round((place + 1) * STEP_MS, 2)
    return 0.0


class Timed(sqlite3.Connection):
    """Times what lies between BEGIN and the end of COMMIT."""

    began = 0.0

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        """See sqlite3; a COMMIT is counted."""
        now = time.perf_counter()
        if sql.startswith("BEGIN"):
            self.began = now
        cursor = super().execute(sql, *args)
        if sql == "COMMIT":
            end = time.perf_counter()
            count(TRANSACTIONS, end - self.began)
            count(COMMITS, end - now)
        return cursor


def main() -> None:
    """See the module."""
    target = Path(sys.argv[1])
    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **options: connect(*args, **options, factory=Timed)  # type: ignore[assignment]
    atexit.register(lambda: target.write_text(json.dumps({"transactions": TRANSACTIONS, "commits": COMMITS})))
    sys.argv = ["insightv", *sys.argv[2:]]
    from insightv.cli.main import main

    main.main()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
