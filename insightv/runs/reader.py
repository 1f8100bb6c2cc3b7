"""A run's folder: who holds it, what it was made with, and what it holds, for reading.

with RunReader("runs/charts") as run:
    print(run.status().bands)
    for assessed in run.assessed():
        ...
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import orjson
from pydantic import TypeAdapter

from insightv.assess.bands import AssessedPath, AssessedQuestion
from insightv.errors import InputError
from insightv.inputs.image_store import STORED, ImageStore
from insightv.inputs.plain_file import refuse_strange, refuse_strange_within
from insightv.inputs.row_checks import BadRow
from insightv.records import Band, Question, ReasoningPath, Score
from insightv.runs.database import connect
from insightv.runs.rows import intact
from insightv.runs.schema import check_schema
from insightv.runs.stage_ledger import Entry, read_ledger
from insightv.runs.status import RunStatus, read_status
from insightv.runs.store import QUESTION_COLUMNS, stored_question

DATABASE = "run.db"
CONFIG = "config.toml"
IMAGES = "images"
DATASETS = "datasets"
CHECKPOINTS = "checkpoints"
EVALUATIONS = "evaluations"
ROUNDS = "rounds"
REPORT = "report.html"
LOG = "log.jsonl"
OWN = {DATABASE, f"{DATABASE}-journal", CONFIG, LOG, REPORT, "run.lock"}
OWN |= {IMAGES, DATASETS, EVALUATIONS, CHECKPOINTS, ROUNDS}
"""What a run consists of, by name in its folder."""
_WRITTEN = ("run.lock", "holder.json", DATABASE, CONFIG, REPORT, LOG)
_FILLED = (CHECKPOINTS, ROUNDS, EVALUATIONS, DATASETS)
_BAD_ROW = TypeAdapter(BadRow)


def check_places(folder: Path) -> None:
    """See that what is written in a run's folder stays there: nothing in it that is written leads elsewhere.

    Raises:
        InputError: a link, a FIFO or a device is in the place of a file or folder; the text names it.
    """
    for name in _WRITTEN:
        refuse_strange(folder / name)
    refuse_strange(folder / IMAGES, folder=True)
    for log in folder.glob("vllm-*.log"):
        refuse_strange(log)
    for name in _FILLED:
        refuse_strange_within(folder / name)


class RunReader:
    """Reads a run, also while another process writes it: every query is a short transaction of its own.

    Raises:
        InputError: there is no run in the folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder: Path = Path(folder)
        path = self.folder / DATABASE
        if not path.is_file():
            refuse_strange(path)
            raise InputError(f"there is no run in {str(folder)!r} (no {DATABASE}); make one with: insightv build")
        self._connection = connect(path, read_only=True)
        check_schema(self._connection, path)
        self.images: ImageStore = ImageStore(self.folder / IMAGES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def status(self) -> RunStatus:
        """Counts and sums (see `read_status`)."""
        return read_status(self._connection)

    def digests(self) -> dict[str, str]:
        """The digest of each question's content, images included, by question id."""
        return dict(self._connection.execute("SELECT id, digest FROM questions WHERE present = 1").fetchall())

    def questions(self) -> Iterator[Question]:
        """Every question, pictures named by digest; of those not asked yet by where they come from."""
        for (record,) in self._connection.execute("SELECT record FROM questions WHERE present = 1 ORDER BY seq"):
            with intact("a question"):
                question = Question.model_validate_json(record)
            yield question

    def bad_rows(self) -> list[dict[str, Any]]:
        """The rows of the questions file that were left out."""
        with intact("a row that was left out"):
            rows = self._connection.execute("SELECT row FROM bad_rows")
            return [asdict(_BAD_ROW.validate_json(row)) for (row,) in rows]

    def faults(self, limit: int = 1000) -> list[tuple[str, str, str]]:
        """The last calls that were not answered: question id, code, message."""
        return self._connection.execute(
            "SELECT q.id, f.code, f.message FROM faults f JOIN questions q ON q.seq = f.question "
            "ORDER BY f.rowid DESC LIMIT ?",
            (limit,),
        ).fetchall()

    def written(self) -> float | None:
        """When the last call was recorded, in seconds since the epoch; None where there is none."""
        found: float | None = self._connection.execute("SELECT max(at) AS last_at FROM calls").fetchone()[0]
        return found

    def training(self) -> list[Entry]:
        """The stages of the run's training as they stand (see `insightv.runs.stage_ledger`)."""
        return read_ledger(self.folder / DATABASE)

    def epochs(self) -> list[dict[str, Any]]:
        """The settings that results were made under, in order."""
        rows = self._connection.execute("SELECT settings FROM epochs ORDER BY epoch").fetchall()
        with intact("the settings of the run"):
            return [dict(json.loads(text).items()) for (text,) in rows]

    def assessed(self, *, pictures: bool = True) -> Iterator[AssessedQuestion]:
        """Every finished question with its paths, scores and bands, in the order of the questions file.

        `pictures` opens the images from the run's store; without, they stay named by digest.
        """
        after = 0
        while True:
            rows = self._connection.execute(
                f"SELECT {QUESTION_COLUMNS} FROM questions "
                "WHERE present = 1 AND state = 'done' AND seq > ? ORDER BY seq LIMIT 100",
                (after,),
            ).fetchall()
            if not rows:
                return
            for row in rows:
                stored = stored_question(row)
                question = open_stored(stored.question, self.images) if pictures else stored.question
                yield AssessedQuestion(question=question, paths=self._paths(stored.seq, stored.epoch))
                after = stored.seq

    def _paths(self, seq: int, epoch: int) -> tuple[AssessedPath, ...]:
        where = "WHERE question = ? AND epoch = ? ORDER BY path"
        scores: dict[int, list[Score]] = {}
        rows = self._connection.execute(f"SELECT path, record FROM scores {where}, position", (seq, epoch)).fetchall()
        paths = self._connection.execute(f"SELECT band, record FROM paths {where}", (seq, epoch)).fetchall()
        with intact(f"a path or score of question number {seq}"):
            for path, record in rows:
                scores.setdefault(path, []).append(Score.model_validate_json(record))
            return tuple(
                AssessedPath(
                    path=(path := ReasoningPath.model_validate_json(record)),
                    scores=tuple(scores.get(path.index, ())),
                    band=Band(band) if band else None,
                )
                for band, record in paths
            )

    def call_seconds(self) -> dict[str, float]:
        """How long each recorded call took, its tries and their pauses included, by its key; 0 of one sent as a job."""
        return {key.hex(): seconds for key, seconds in self._connection.execute("SELECT key, seconds FROM calls")}

    def calls(self) -> Iterator[dict[str, Any]]:
        """Every recorded call in the form that `replay/FILE` reads."""
        last = (-1, b"")
        while True:
            rows = self._connection.execute(
                "SELECT question, key, model, kind, seed, replies FROM calls WHERE (question, key) > (?, ?) "
                "ORDER BY question, key LIMIT 500",
                last,
            ).fetchall()
            if not rows:
                return
            for question, key, model, kind, seed, replies in rows:
                with intact(f"the call {key.hex()[:16]}"):
                    completions = orjson.loads(replies)
                yield {"key": key.hex(), "model": model, "kind": kind, "seed": seed, "completions": completions}
                last = (question, key)


def open_stored(question: Question, images: ImageStore) -> Question:
    """A question with the pictures that are named by digest opened from the run's store."""
    opened = tuple(
        images.get(image.removeprefix(STORED)) if isinstance(image, str) and image.startswith(STORED) else image
        for image in question.images
    )
    return question.model_copy(update={"images": opened})


def load_run(folder: str | Path) -> RunReader:
    """Open a run for reading; close it, or use it as a context manager."""
    return RunReader(folder)
