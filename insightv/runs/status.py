"""How a run stands: its counts and sums, read from its database in one place."""

from __future__ import annotations

import sqlite3
from typing import Any, ClassVar

from pydantic import ConfigDict, Field

from insightv.records import Band, Record
from insightv.runs.rows import intact
from insightv.runs.store import SETBACK, read_totals


class QuestionCounts(Record):
    """The questions of a run; `bad_rows` counts faults in rows that were left out."""

    total: int
    done: int
    bad_rows: int


class PathCounts(Record):
    """The paths of finished questions: total = ok + rejected + failed; `by_code` says why paths are not ok.

    The ledger of a training keeps it too: what a ledger of another release has more or less is no fault.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow")

    total: int = 0
    ok: int = 0
    rejected: int = 0
    failed: int = 0
    by_code: dict[str, int] = Field(default_factory=dict)


class TokenCounts(Record):
    """The tokens of a run; `cached` is the part of `prompt` served from a prefix cache."""

    prompt: int
    cached: int
    completion: int


class RunStatus(Record):
    """A run's counts and sums.

    `bands` counts ok paths by band. `unjudged` counts the scores that failed, also by scorer and code. `setbacks` are
    tries that were made again, by kind; `faults` are calls that were not answered, by code.
    """

    questions: QuestionCounts
    paths: PathCounts
    bands: dict[str, int]
    requests: int
    tokens: TokenCounts
    usd: float
    elapsed_s: float
    unjudged: int
    unjudged_by_code: dict[str, int]
    setbacks: dict[str, int]
    faults: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return self.model_dump(mode="json")

    def __getitem__(self, key: str) -> Any:
        """A part as in `as_json`, for programs written for 0.1.0, where a status was a dict."""
        return self.as_json()[key]


def read_status(connection: sqlite3.Connection) -> RunStatus:
    """A run's counts and sums; total = ok + rejected + failed, of the paths of finished questions."""
    with intact("a figure of its status"):
        return _read_status(connection)


def _read_status(connection: sqlite3.Connection) -> RunStatus:
    (bad_rows,) = connection.execute("SELECT count(*) FROM bad_rows").fetchone()
    states = connection.execute("SELECT present, state, count(*) FROM questions GROUP BY 1, 2").fetchall()
    total = sum(number for present, _, number in states if present)
    done = sum(number for present, state, number in states if present and state == "done")
    paths: dict[str, int] = dict.fromkeys(("ok", "rejected", "failed"), 0)
    codes: dict[str, int] = {}
    bands: dict[str, int] = dict.fromkeys((band.value for band in Band), 0)
    rows = connection.execute(
        "SELECT p.status, p.code, p.band, count(*) FROM paths p JOIN questions q ON q.seq = p.question "
        "AND q.epoch = p.epoch WHERE q.present = 1 AND q.state = 'done' GROUP BY 1, 2, 3"
    )
    for status, code, band, number in rows:
        paths[status] += number
        if code:
            codes[code] = codes.get(code, 0) + number
        if band:
            bands[band] += number
    sums = read_totals(connection)
    unjudged = dict(connection.execute(_UNJUDGED).fetchall())
    return RunStatus(
        questions=QuestionCounts(total=total, done=done, bad_rows=int(bad_rows)),
        paths=PathCounts(total=sum(paths.values()), **paths, by_code=dict(sorted(codes.items()))),
        bands=bands,
        requests=int(sums["requests"]),
        tokens=TokenCounts(**{name: int(sums[f"{name}_tokens"]) for name in TokenCounts.model_fields}),
        usd=round(sums["usd"], 6),
        elapsed_s=round(sums["elapsed_s"], 3),
        unjudged=sum(unjudged.values()),
        unjudged_by_code=unjudged,
        setbacks={name.removeprefix(SETBACK): int(sums[name]) for name in sorted(sums) if name.startswith(SETBACK)},
        faults=dict(connection.execute("SELECT code, count(*) FROM faults GROUP BY code ORDER BY code").fetchall()),
    )


_UNJUDGED = """
SELECT json_extract(record, '$.scorer') || ': ' || json_extract(record, '$.details.failed') AS code, count(*) FROM (
SELECT CAST(s.record AS TEXT) AS record FROM scores s JOIN questions q ON q.seq = s.question AND q.epoch = s.epoch
WHERE s.failed = 1 AND q.present = 1) GROUP BY code ORDER BY code"""
"""Scores that failed, by scorer and code."""
