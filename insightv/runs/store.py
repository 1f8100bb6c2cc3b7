"""The durable run: every statement that reads or writes `run.db`. Knows no model and no order of work."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from insightv.records import Band, Completion, Question, ReasoningPath, Score, Usage
from insightv.runs.database import Statement
from insightv.runs.rows import intact
from insightv.runs.schema import TOTALS

SETBACK = "setback: "
"""Begins the name of a sum that counts tries which had to be repeated; their class follows."""

AUDIT = "audit:"
"""Stands before the kind of a call that was made to check a judge, not for a question's own paths and scores."""


@dataclass(frozen=True)
class StoredQuestion:
    """A question of a run: its number in the run, the record (image sources as stored), and where it came from.

    `digest` is that of its content when it was checked, images included.
    """

    seq: int
    epoch: int
    state: str
    question: Question
    place: str
    digest: str


@dataclass
class Progress:
    """What is already recorded of a question: calls by key, paths, scores by position of the scorer."""

    calls: dict[bytes, list[Completion]] = field(default_factory=dict)
    paths: list[ReasoningPath] = field(default_factory=list)
    scores: dict[int, dict[int, Score]] = field(default_factory=dict)


def pack_question(question: Question) -> bytes:
    """A question as it is stored: without opened pictures, which are named by digest."""
    images = [image if isinstance(image, str) else f"sha256:{image.sha256}" for image in question.images]
    return orjson.dumps({**question.model_dump(exclude={"images"}), "images": images})


def pack_replies(replies: Sequence[Completion]) -> bytes:
    """Replies as they are stored; the key is not repeated."""
    packed = (reply.model_dump_json(exclude={"call"}, exclude_defaults=True) for reply in replies)
    return f"[{','.join(packed)}]".encode()


def unpack_replies(data: bytes, key: bytes) -> list[Completion]:
    """Replies as they were recorded under `key`."""
    with intact(f"the call {key.hex()[:16]}"):
        return [Completion.model_validate(reply | {"call": key.hex()}) for reply in orjson.loads(data)]


QUESTION_COLUMNS = "seq, epoch, state, record, place, digest"


def stored_question(row: tuple[int, int, str, bytes, str, str]) -> StoredQuestion:
    """A row of the `QUESTION_COLUMNS` as a record."""
    seq, epoch, state, record, *rest = row
    with intact(f"question number {seq}"):
        return StoredQuestion(seq, epoch, state, Question.model_validate_json(record), *rest)


def read_progress(connection: sqlite3.Connection, seq: int, epoch: int) -> Progress:
    """What is recorded of a question under `epoch`."""
    progress = Progress()
    for key, replies in connection.execute("SELECT key, replies FROM calls WHERE question = ?", (seq,)):
        progress.calls[key] = unpack_replies(replies, key)
    where = "WHERE question = ? AND epoch = ? ORDER BY path"
    scores = connection.execute(f"SELECT path, position, record FROM scores {where}", (seq, epoch)).fetchall()
    with intact(f"a path or score of question number {seq}"):
        for (record,) in connection.execute(f"SELECT record FROM paths {where}", (seq, epoch)):
            progress.paths.append(ReasoningPath.model_validate_json(record))
        for path, position, record in scores:
            progress.scores.setdefault(position, {})[path] = Score.model_validate_json(record)
    return progress


def read_totals(connection: sqlite3.Connection) -> dict[str, float]:
    """The run's sums by name."""
    return dict(connection.execute("SELECT name, value FROM totals").fetchall())


def pending(
    connection: sqlite3.Connection, after: int, limit: int, among: Sequence[int] | None = None
) -> list[StoredQuestion]:
    """The next unfinished questions after number `after`, in order; of those in `among`, where it is given."""
    chosen = "" if among is None else "AND seq IN (SELECT value FROM json_each(?)) "
    rows = connection.execute(
        f"SELECT {QUESTION_COLUMNS} FROM questions "
        f"WHERE present = 1 AND state = 'pending' AND seq > ? {chosen}ORDER BY seq LIMIT ?",
        (after, limit) if among is None else (after, orjson.dumps(list(among)).decode(), limit),
    )
    return [stored_question(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Spent:
    """What a call took: its usage with all tries, dollars, and the seconds that it held a slot."""

    usage: Usage
    usd: float
    seconds: float


def questions_of(connection: sqlite3.Connection, seqs: Sequence[int]) -> list[StoredQuestion]:
    """The questions of these numbers, in order."""
    rows = connection.execute(
        f"SELECT {QUESTION_COLUMNS} FROM questions WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq",
        (orjson.dumps(list(seqs)).decode(),),
    )
    return [stored_question(row) for row in rows]


_SPEND = (
    "UPDATE totals SET value = value + CASE name "
    + "".join(f"WHEN '{name}' THEN ? " for name in TOTALS if name != "elapsed_s")
    + f"END WHERE name IN ({', '.join(repr(name) for name in TOTALS if name != 'elapsed_s')})"
)


def _spend(spent: Spent) -> Statement:
    usage = spent.usage
    return _SPEND, (usage.requests, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, spent.usd)


def sums_statements(seconds: float, setbacks: Mapping[str, int]) -> Iterator[Statement]:
    """Add to the run's sums: seconds of building, and tries that had to be repeated, by class."""
    yield "UPDATE totals SET value = value + ? WHERE name = 'elapsed_s'", (seconds,)
    for kind, count in setbacks.items():
        yield (
            "INSERT INTO totals VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (f"{SETBACK}{kind}", count),
        )


def call_statements(
    seq: int, key: bytes, model: str, kind: str, seed: int, replies: Sequence[Completion], spent: Spent
) -> Iterator[Statement]:
    """Record a call's replies and what it took."""
    yield (
        "INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (seq, key, model, kind, seed, pack_replies(replies), time.time(), spent.seconds),
    )
    yield _spend(spent)


def fault_statements(
    seq: int, key: bytes, model: str, code: str, message: str, kept: str, spent: Spent
) -> Iterator[Statement]:
    """Record a call that was not answered and what it took."""
    usage = orjson.dumps(spent.usage.model_dump(exclude_defaults=True))
    yield (
        "INSERT INTO faults VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (seq, key, code, message, kept[:2048], spent.usage.requests, time.time(), model, usage, spent.seconds),
    )
    yield _spend(spent)


def path_statements(seq: int, epoch: int, paths: Iterable[ReasoningPath]) -> Iterator[Statement]:
    """Record a question's paths, in place of any of the same numbers and epoch."""
    for path in paths:
        record = path.model_dump_json(exclude_defaults=True).encode()
        yield (
            "INSERT OR REPLACE INTO paths VALUES (?, ?, ?, ?, ?, NULL, ?)",
            (seq, epoch, path.index, path.status, path.code, record),
        )


def score_statements(seq: int, epoch: int, position: int, scores: dict[int, Score]) -> Iterator[Statement]:
    """Record the scores of the scorer at `position`, by path."""
    for path, score in scores.items():
        record = score.model_dump_json(exclude_defaults=True).encode()
        failed = int("failed" in score.details)
        yield "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?, ?)", (seq, epoch, path, position, failed, record)


def finish_statements(seq: int, epoch: int, bands: dict[int, Band]) -> Iterator[Statement]:
    """Record the bands of a question's paths, and that the question is done."""
    for path, band in bands.items():
        where = "WHERE question = ? AND epoch = ? AND path = ?"
        yield f"UPDATE paths SET band = ? {where}", (band.value, seq, epoch, path)
    yield "UPDATE questions SET state = 'done' WHERE seq = ?", (seq,)
