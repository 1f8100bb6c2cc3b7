"""One row: from raw values to a draft of a question, or to every fault of the row at once.

Knows no files, no other rows, and does not open images.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from insightv.inputs.answers import AnswerCell, read_answers
from insightv.inputs.columns import RowRules, take
from insightv.inputs.fields import Image, read_choices, read_id, read_images, read_question
from insightv.inputs.image_error import shorten
from insightv.inputs.image_sources import data_url
from insightv.inputs.meta import read_meta
from insightv.inputs.sources import Fault, RawRow
from insightv.records import Question


@dataclass(frozen=True, slots=True)
class Draft:
    """A row that keeps all rules that a row alone can keep. Without an `id` one is made from the content.

    `unseen` are columns that hold pictures and are not looked at.
    """

    id: str | None
    question: str
    images: tuple[Image, ...]
    answer: str | None
    choices: tuple[str, ...] | None
    meta: dict[str, object]
    answers: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()

    def finish(self, id: str) -> Question:
        """The question; images that came as bytes are data URLs then."""
        images = tuple(data_url(image) if isinstance(image, bytes) else image for image in self.images)
        return Question(
            id=id,
            question=self.question,
            images=images,
            answer=self.answer,
            answers=self.answers,
            choices=self.choices,
            meta=self.meta,
        )

    def core(self) -> bytes:
        """SHA-256 over all but the id and the images."""
        content = [self.question, self.answer, self.choices, self.meta, *([self.answers] if self.answers else [])]
        return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).digest()


def digest_of(core: bytes, id: str | None, images: Sequence[str]) -> bytes:
    """SHA-256 over a draft's core, an id, and what stands for the images."""
    return hashlib.sha256(core + orjson.dumps([id, *images])).digest()


def question_digest(question: Question, images: Sequence[str] | None = None) -> str:
    """SHA-256 (hex) over id, question, images, answer, choices and meta; `images` are hashes of the images' content.

    Without `images` those of the opened pictures are taken; ValueError if one is not opened.
    """
    hashes = [picture.sha256 for picture in question.pictures] if images is None else images
    told = question.answer, question.choices, dict(question.meta), question.answers
    draft = Draft(None, question.question, (), *told)
    return digest_of(draft.core(), question.id, hashes).hex()


def check_row(row: RawRow, rules: RowRules) -> tuple[Draft | None, list[Fault]]:
    """The draft of a row and all that is wrong with it; with faults the draft is good for nothing but its images."""
    if row.values is None:
        return None, [row.fault] if row.fault else []
    faults: list[Fault] = []

    def report(field: str, code: str, reason: str) -> None:
        faults.append(Fault(field, code, reason))

    rules = rules.of(row.values)
    taken = take(row, rules, report)
    fields, typed = taken.fields, row.kind == "table"
    choices = read_choices(fields["choices"], report)
    id = None if rules.ids_from_content else read_id(fields["id"], typed, report)
    question = read_question(fields["question"], report)
    images = read_images(fields["images"], report)
    cell = AnswerCell(fields["answer"], question, choices, typed, _are_numbers(fields["choices"]))
    answer, answers = read_answers(cell, rules, report)
    meta = read_meta(fields["meta"], taken.rest, report)
    draft = Draft(id, question, images, answer, choices, meta, answers, tuple(taken.unseen))
    return draft, faults


def _are_numbers(choices: object) -> bool:
    return isinstance(choices, list | tuple) and all(isinstance(choice, int | float) for choice in choices)


def known_id(row: RawRow, rules: RowRules) -> str | None:
    """The id of a bad row for messages, if it has one that can be shown."""
    values = row.values or {}
    column = rules.of(values).columns["id"]
    value = values.get(column) if isinstance(column, str) else None
    return shown_id(str(value)) if isinstance(value, int) or (isinstance(value, str) and value.strip()) else None


def shown_id(id: str) -> str:
    """An id as it may stand in a message."""
    return shorten(id, 100)[1:-1]


def folded(id: str) -> str:
    """The form under which two ids are the same for readers and file systems."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", id).casefold())
