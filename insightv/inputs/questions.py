"""Reading questions: every bad row is found before anything is paid for, the good ones are kept in order.

    questions = read_questions("questions.jsonl", require_answer=True)
    for question in questions:              # reads the file again; as often as wanted
        ready = open_question(question, root=questions.root)

Memory does not grow with the length of texts and images: of each good row some hashes are held.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

from insightv.errors import InputError
from insightv.inputs.columns import COLUMNS, Format, RowRules, row_rules
from insightv.inputs.csv_file import CsvFile
from insightv.inputs.image_store import ImageStore
from insightv.inputs.images import DEFAULT_LIMITS, AllowHttp, ImageLimits
from insightv.inputs.json_lines import JsonLines
from insightv.inputs.layouts import AnswerIs
from insightv.inputs.row_checks import BadRow, ImageChecks, Reading, mark_of
from insightv.inputs.rows import check_row, question_digest
from insightv.inputs.sources import RawRow, Rows, RowSource, SourceFault
from insightv.records import Question

__all__ = ["BadRow", "BadRows", "QuestionFile", "question_digest", "read_questions"]


class BadRows(InputError):
    """Rows that cannot be used; all of them are in `rows` and in the text."""

    def __init__(self, rows: list[BadRow]) -> None:
        lines = len({row.line for row in rows})
        text = [
            f"{rows[0].file}: {lines} bad row{'s' if lines > 1 else ''}; nothing was started",
            *map(str, rows),
        ]
        super().__init__("\n".join(text))
        self.rows = rows


class QuestionFile:
    """The good questions of a source, read anew at each iteration, and the bad rows.

    `root` is the folder for `open_question`. `digest` (hex) is over all good questions with the content of their
    images, whatever their order. A source that has changed since it was read raises InputError on iteration.
    """

    def __init__(self, source: RowSource, rules: RowRules, reading: Reading) -> None:
        self.root: Path | None = source.root
        self.name: str = source.name
        self.bad: list[BadRow] = reading.bad
        self.warnings: list[str] = source.warnings + reading.warnings
        self._source = source
        self._rules = rules
        self._marks, self._digests, self._ids = reading.marks, reading.digests, reading.ids

    def __len__(self) -> int:
        return len(self._digests) // 32

    def __iter__(self) -> Iterator[Question]:
        return (question for question, _ in self.items())

    def items(self) -> Iterator[tuple[Question, str]]:
        """The questions in order, each with the digest (hex) of its content, images included."""
        good = 0
        rows = self._source.rows()
        for mark in self._marks:
            row = next(rows, None)
            entry = self._good(row, mark, good) if mark else None
            del row  # not held while its question is in use, nor either while the next row is read
            if entry is not None:
                good += 1
                yield entry
            del entry

    def _good(self, row: RawRow | None, mark: int, number: int) -> tuple[Question, str]:
        draft, faults = check_row(row, self._rules) if row is not None else (None, [])
        if draft is None or faults or mark_of(draft, draft.core()) != mark:
            raise InputError(f"{self.name} was changed while it was in use; start again")
        id = draft.id or self._ids[number]
        return draft.finish(id), self._digests[32 * number : 32 * number + 32].hex()

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of all questions."""
        parts = sorted(bytes(self._digests[at : at + 32]) for at in range(0, len(self._digests), 32))
        return hashlib.sha256(b"".join(parts)).hexdigest()


def read_questions(
    source: str | Path | Iterable[Question | dict[str, object]],
    *,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    layout: str | None = None,
    answer: AnswerIs = "auto",
    setting: str = COLUMNS,
    bad_rows: Literal["stop", "skip"] = "stop",
    require_answer: bool = False,
    root: Path | None = None,
    allow_http: AllowHttp = False,
    limits: ImageLimits = DEFAULT_LIMITS,
    store: ImageStore | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> QuestionFile:
    """Read and check all questions, opening every image once.

    Args:
        source: a .jsonl (.gz), .csv or .parquet file, `hf:NAME`, a folder saved by the datasets library, or questions.
        columns: our field -> the source's name for it, or names of columns with an image or a choice each;
            `{"id": "@content"}` makes ids from the content.
        layout: the name of a well-known layout (`layouts.NAMES`); without it, and without `columns`, it is told from
            the columns.
        answer: what a whole number is beside choices, a "text" or an "index" from 0; "auto" refuses it.
        setting: the setting that `columns` come from, for messages.
        bad_rows: "stop" raises when there is any, "skip" lists them in `.bad`. What makes the source as a whole
            unreadable is raised in any case.
        require_answer: whether a question without an answer is a bad row.
        root: the folder that image paths may not leave; by default that of the file. None for questions given in
            Python: their paths are the caller's own.
        allow_http: hosts that images may be fetched from.
        limits: see `ImageLimits`.
        store: keeps the pictures that are opened already, and has those that are named by digest ("sha256:...").
        threads: that decode images; by default one for each processor, at most 16.
        progress: called with the number of rows read so far.

    Raises:
        BadRows: with every bad row.
        InputError: there is no such file, or its format is not known.
        MissingExtra: the extra `data` is needed and not installed.
    """
    rows = _open_source(source)
    rows.root = root if root is not None else rows.root
    try:
        rules, missing = row_rules(Format(columns, layout, answer, setting), rows.columns, require_answer)
        if missing:
            raise SourceFault(1, "missing_column", _missing(missing, sorted(rows.columns or ()), setting))
    except SourceFault as fault:
        raise BadRows([BadRow(rows.name, fault.line, None, "", fault.code, str(fault))]) from None
    workers = threads or min(16, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="insightv-images") as pool:
        checks = ImageChecks(pool, rows.root, allow_http, limits, store)
        reading = Reading(rows, rules, checks)
        whole = reading.run(progress)
        if any(row.code == "index_or_text" for row in reading.bad):  # in every row alike, also where one would do
            rules = replace(rules, digits=True)
            reading = Reading(rows, rules, checks)
            whole = reading.run(progress)
    found = QuestionFile(rows, rules, reading)
    if found.bad and (bad_rows == "stop" or not whole or not len(found)):
        raise BadRows(found.bad)
    return found


def _open_source(source: str | Path | Iterable[Question | dict[str, object]]) -> RowSource:
    if not isinstance(source, str | Path):
        return _given(source)
    if isinstance(source, str) and source.startswith("hf:"):
        from insightv.inputs.tables import hub_dataset

        return hub_dataset(source)
    path = Path(source)
    if path.is_dir():
        from insightv.inputs.tables import saved_dataset

        return saved_dataset(path)
    if not path.is_file():
        raise InputError(
            f"the questions file {str(path)!r} does not exist" if not path.exists() else f"{path} is no file"
        )
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix in (".jsonl", ".ndjson", ".json"):
        return JsonLines(path)
    if suffix in (".csv", ".tsv"):
        return CsvFile(path, "\t" if suffix == ".tsv" else ",")
    if suffix == ".parquet":
        from insightv.inputs.tables import ParquetFile

        return ParquetFile(path)
    raise InputError(
        f"{path.name}: questions come as .jsonl, .csv, .tsv or .parquet, not as {suffix or 'a file without ending'}"
    )


def _missing(missing: Sequence[str], known: Sequence[str], setting: str) -> str:
    text = f"no column {', '.join(missing)}; there are: {', '.join(known)}; "
    if len(known) == 1 and (mark := next((mark for mark in ";\t|" if mark in known[0]), None)):
        return f"{text}columns are separated by commas here, not by {mark!r}: save the file with commas"
    return f"{text}say which is meant in [{setting}], such as {missing[0]} = {(known or ['its name'])[0]!r}"


def _given(source: Iterable[Question | dict[str, object]]) -> RowSource:
    """Questions that were given in Python."""
    library = sys.modules.get("datasets")  # an object of it cannot be there before
    if library is not None and isinstance(source, library.DatasetDict | library.IterableDatasetDict):
        raise InputError(f"questions has {len(source)} splits ({', '.join(map(str, source))}); give one of them")
    frames = sys.modules.get("pandas")
    if frames is not None and isinstance(source, frames.DataFrame):
        raise InputError('questions is a pandas DataFrame; give its rows: frame.to_dict("records")')
    if isinstance(source, Question | Mapping):
        raise InputError("questions is one question; give a list of them")
    if library is not None and isinstance(source, library.Dataset):
        from insightv.inputs.tables import HubDataset

        return HubDataset("questions", source, None)
    if not isinstance(source, Iterable):
        kinds = "a file's path, or an iterable of Question objects or dicts"
        raise InputError(f"questions is of type {type(source).__name__}; give {kinds}")
    return Rows([_values(item) for item in source], None)


def _values(item: Question | dict[str, object]) -> dict[str, object]:
    if not isinstance(item, Question):
        return item
    values = {name: getattr(item, name) for name in ("id", "question", "images", "answer", "choices", "meta")}
    if item.answers:
        values["answer"] = [item.answer, *item.answers]
    return {name: value for name, value in values.items() if value is not None}
