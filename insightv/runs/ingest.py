"""Taking questions into a run, and comparing what a run was made with against what it is to continue with.

A run's identity is everything that changes results: settings, prompts, plugins, and the questions by content.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from insightv.config.settings import OBJECT, Settings
from insightv.errors import InputError, RunChanged, differences_between
from insightv.inputs.image_error import shorten
from insightv.inputs.image_store import ImageStore
from insightv.inputs.questions import QuestionFile, read_questions
from insightv.records import Question
from insightv.runs.rows import intact
from insightv.runs.status import RunStatus, read_status
from insightv.runs.store import pack_question

_BY_ANSWER = ("answer", f"{OBJECT}insightv.AnswerScorer")
"""The scorers, by `use`, that need the answer of each question."""


@dataclass(frozen=True)
class Entrant:
    """A checked question on its way into a run: its content's digest, and the folder its images are relative to."""

    question: Question
    digest: str
    place: str


@dataclass(frozen=True)
class Intake:
    """What a questions source came to: the good questions, read anew at each iteration, and the rows left out."""

    source: QuestionFile

    @property
    def entrants(self) -> Iterator[Entrant]:
        """The good questions in order."""
        place = str(self.source.root.resolve()) if self.source.root is not None else ""
        return (Entrant(question, digest, place) for question, digest in self.source.items())

    @property
    def bad_rows(self) -> Iterator[dict[str, Any]]:
        """Every fault of every row that was left out."""
        return (asdict(row) for row in self.source.bad)


def read_intake(
    questions: str | Path | Iterable[Question | dict[str, Any]],
    settings: Settings,
    bad_rows: Literal["stop", "skip"],
    store: ImageStore,
    progress: Callable[[int], None] | None = None,
) -> Intake:
    """Read and check all questions before anything is paid for; an answer is required where answers are checked.

    `store` is that of the run (see `read_questions`).

    Raises:
        BadRows: a row cannot be used and `bad_rows` is "stop".
        InputError: the source cannot be read.
    """
    return Intake(
        read_questions(
            questions,
            columns=settings.questions.columns,
            layout=settings.questions.layout,
            answer=settings.questions.answer,
            bad_rows=bad_rows,
            require_answer=any(table.use in _BY_ANSWER for table in settings.scorers),
            store=store,
            progress=progress,
            **settings.images.opening,
        )
    )


def take_in(
    connection: sqlite3.Connection, identity: Mapping[str, Any], entrants: Iterable[Entrant] | None, *, allow: bool
) -> None:
    """Make a run's settings `identity` and its questions `entrants` (None: those that it has).

    Where that changes a run that exists, a new epoch begins: unfinished questions belong to it, finished ones keep
    their results and their epoch, changed ones are done anew and their old results stay under the old epoch.

    Raises:
        RunChanged: something differs and `allow` is False; each difference is named.
    """
    row = connection.execute("SELECT epoch, settings FROM epochs ORDER BY epoch DESC LIMIT 1").fetchone()
    text = json.dumps(identity, sort_keys=True)
    with intact("the settings of the run"):
        differences = differences_between(_as_named_now(json.loads(row[1]), identity), json.loads(text)) if row else []
    sizes = [difference for difference in differences if difference.startswith("images.")]
    if sizes and entrants is None:
        raise RunChanged(f"{sizes[0]}: give the questions file too, so that pictures are opened anew", tuple(sizes))
    if entrants is not None:
        _line_up(connection, entrants)
        differences += _question_differences(connection) if row else []
    if differences and not allow:
        raise RunChanged.of(
            "the run was made with something else, and to continue would mix results",
            differences,
            "give --allow-change to continue (finished questions keep their results, labelled), or use another --run",
        )
    epoch = int(row[0]) if row else 1
    if differences or not row:
        epoch += 1 if row else 0
        connection.execute("INSERT INTO epochs VALUES (?, ?, ?)", (epoch, text, time.time()))
        connection.execute("UPDATE questions SET epoch = ? WHERE state = 'pending'", (epoch,))
    if entrants is not None:
        _admit(connection, epoch, anew=bool(sizes))


def _as_named_now(before: dict[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The identity that a run was made with, in the form of today.

    0.1.0 kept the class of each role beside its name, and nothing of what an object was made with; it named the modules
    of our own objects.
    """
    own = f"{OBJECT}insightv."
    generator = before.get("generator", {})
    if "agents" in generator and "system" in generator:  # an evaluation of 0.1.0
        generator["evaluated"] = generator.pop("system")
    for role, today in zip(_roles(before), _roles(now), strict=False):
        if role.pop("class", None) is not None and "object" in today:
            role["object"] = today["object"]
        if str(role.get("use")).startswith(own):
            role["use"] = own + role["use"].rpartition(".")[2]
    return before


def _roles(identity: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [identity.get("generator", {}), *identity.get("scorers", {}).values()]


def _line_up(connection: sqlite3.Connection, entrants: Iterable[Entrant]) -> None:
    """Put the entrants into a temporary table beside the run's questions, in order."""
    connection.execute("DROP TABLE IF EXISTS temp.entrants")
    connection.execute(
        "CREATE TEMP TABLE entrants (place_in_file INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, digest TEXT NOT NULL, "
        "record BLOB NOT NULL, place TEXT NOT NULL)"
    )
    connection.executemany(
        "INSERT INTO entrants (id, digest, record, place) VALUES (?, ?, ?, ?)",
        ((e.question.id, e.digest, pack_question(e.question), e.place) for e in entrants),
    )


def _question_differences(connection: sqlite3.Connection) -> list[str]:
    """What is another question, or another content of one, among the entrants than in the run."""
    new = "SELECT id FROM entrants WHERE id NOT IN (SELECT id FROM questions WHERE present = 1) ORDER BY 1"
    gone = "SELECT id FROM questions WHERE present = 1 AND id NOT IN (SELECT id FROM entrants) ORDER BY 1"
    both = (
        "SELECT e.id, q.record, e.record FROM entrants e JOIN questions q USING (id) "
        "WHERE q.present = 1 AND q.digest <> e.digest ORDER BY 1"
    )
    found = [f"question {id!r}: is new" for (id,) in connection.execute(new)]
    for id, before, after in connection.execute(both):
        with intact(f"the question {id!r}"):
            differences = _content_differences(*map(Question.model_validate_json, (before, after)))
        found += [f"question {id!r}: {difference}" for difference in differences]
    return found + [f"question {id!r}: is not in the file any more" for (id,) in connection.execute(gone)]


def _content_differences(before: Question, after: Question) -> list[str]:
    """Each field in which two questions differ whose digests do; the images where it can only be them."""
    found: list[str] = []
    for name in ("question", "answer", "answers", "choices", "meta"):
        old, new = ({name: getattr(record, name)} for record in (before, after))
        if orjson.dumps(old, option=orjson.OPT_SORT_KEYS) != orjson.dumps(new, option=orjson.OPT_SORT_KEYS):
            found += differences_between(old, new) or [f"{name}: values of another type (true for 1, null for nothing)"]
    old_images, new_images = ([shorten(image) for image in record.images] for record in (before, after))
    kinds = {image.startswith("'sha256:") for image in old_images + new_images}
    if old_images != new_images and len(kinds) == 1:
        found.append(f"images: [{', '.join(old_images)}] -> [{', '.join(new_images)}]")
    elif not found or len(old_images) != len(new_images):
        found.append(f"images: other pictures than the run has, now [{', '.join(new_images)}]")
    return found


_UNOPENED = """instr(questions.record, CAST('"images":["sha256:' AS BLOB)) = 0"""


def _admit(connection: sqlite3.Connection, epoch: int, *, anew: bool) -> None:
    """Make the questions of the run those that are lined up.

    One whose pictures are not in the run's store yet takes them from where they are now; `anew`: also one that is
    pending and has them there in another size.
    """
    connection.execute("UPDATE questions SET present = 1 - present WHERE present <> (id IN (SELECT id FROM entrants))")
    connection.execute(
        "UPDATE questions SET epoch = ?, digest = e.digest, record = e.record, place = e.place, state = 'pending' "
        "FROM entrants e WHERE e.id = questions.id AND e.digest <> questions.digest",
        (epoch,),
    )
    connection.execute(
        "UPDATE questions SET record = e.record, place = e.place FROM entrants e "
        "WHERE e.id = questions.id AND e.digest = questions.digest "
        f"AND ({_UNOPENED} OR (? AND questions.state = 'pending'))",
        (anew,),
    )
    connection.execute(
        "INSERT INTO questions (id, epoch, digest, state, present, record, place) "
        "SELECT id, ?, digest, 'pending', 1, record, place FROM entrants "
        "WHERE id NOT IN (SELECT id FROM questions) ORDER BY place_in_file",
        (epoch,),
    )


def keep_bad_rows(connection: sqlite3.Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Record the rows that were left out, in place of those of an earlier build."""
    connection.execute("DELETE FROM bad_rows")
    connection.executemany("INSERT INTO bad_rows VALUES (?)", [(orjson.dumps(dict(row)).decode(),) for row in rows])


def retry_failed(connection: sqlite3.Connection) -> int:
    """Make the questions with failed paths or scores pending again; what was answered is replayed, not paid again."""
    failed = connection.execute(
        "SELECT q.seq, q.epoch FROM questions q WHERE q.present = 1 AND q.state = 'done' AND ("
        "EXISTS (SELECT 1 FROM paths p WHERE p.question = q.seq AND p.epoch = q.epoch AND p.status = 'failed') OR "
        "EXISTS (SELECT 1 FROM scores s WHERE s.question = q.seq AND s.epoch = q.epoch AND s.failed = 1))"
    ).fetchall()
    for row in failed:
        connection.execute("DELETE FROM scores WHERE question = ? AND epoch = ?", row)
        connection.execute("DELETE FROM paths WHERE question = ? AND epoch = ?", row)
        connection.execute(
            "UPDATE questions SET state = 'pending', epoch = (SELECT max(epoch) FROM epochs) WHERE seq = ?", row[:1]
        )
    return len(failed)


def prepare(
    connection: sqlite3.Connection, identity: Mapping[str, Any], intake: Intake | None, allow: bool, retry: bool
) -> RunStatus:
    """All of it at once: the questions that came in, what they are asked with, and what is to be tried again.

    Raises:
        InputError: the run has no questions; nothing of it is begun then.
    """
    take_in(connection, identity, intake.entrants if intake else None, allow=allow)
    if intake is not None:
        keep_bad_rows(connection, intake.bad_rows)
    if retry:
        retry_failed(connection)
    status = read_status(connection)
    if status.questions.total == 0:  # said before the commit
        raise InputError("the run has no questions yet; give a questions file")
    return status
