"""One row: from raw values to a draft of a question, or to every fault of the row at once.

Knows which column holds which field. Knows no files, no other rows, and does not open images.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from insightv.errors import ConfigError
from insightv.inputs.fields import CONTENT_ID, Image, read_answer, read_choices, read_id, read_images, read_question
from insightv.inputs.image_error import shorten
from insightv.inputs.image_sources import data_url
from insightv.inputs.meta import read_cell, read_meta
from insightv.inputs.sources import Fault, RawRow
from insightv.records import Question

_LIKE_IMAGES = re.compile(r"(?i)(?:.*_)?(?:img|image|picture|photo)s?(?:[_ ]?(?:path|file|url|name)s?)?")
"""Names under which other data sets keep their images: a question without its image would be answered, and paid for."""

_LIKE_CHOICES = re.compile(r"(?i)(?:.*_)?(?:option|choice|candidate|alternative)s?(?:_?(?:list|text)s?)?")
"""The same of choices: asked without them, a question whose answer is a letter can only be answered by guessing."""

_LIKE_ONE_CHOICE = re.compile(r"[A-H]|(?i:(?:option|choice|answer)s?[_ -]?[A-H1-8])")
"""Names of columns that hold one choice each."""

_LISTS = re.compile(r"[,;|\n]|'\s+'|\b[A-Z1-9][).:].*\b[A-Z1-9][).:]")

FIELDS = ("id", "question", "images", "answer", "choices", "meta")


@dataclass(frozen=True, slots=True)
class Draft:
    """A row that keeps all rules that a row alone can keep. Without an `id` one is made from the content."""

    id: str | None
    question: str
    images: tuple[Image, ...]
    answer: str | None
    choices: tuple[str, ...] | None
    meta: dict[str, object]
    answers: tuple[str, ...] = ()

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


COLUMNS = "questions.columns"
"""The setting that says what the columns of a questions file are called."""


@dataclass(frozen=True, slots=True)
class RowRules:
    """How rows are read. `columns` has a name of the source for each of our fields; `setting` is where that is said."""

    columns: Mapping[str, str]
    require_answer: bool = False
    setting: str = COLUMNS

    @property
    def ids_from_content(self) -> bool:
        """Whether rows need no id."""
        return self.columns["id"] == CONTENT_ID


def row_rules(
    columns: Mapping[str, str] | None, known: frozenset[str] | None, require_answer: bool, setting: str = COLUMNS
) -> tuple[RowRules, list[str]]:
    """The rules for a source, and what is missing in it where its columns are `known`.

    Raises:
        ConfigError: `columns` maps a field that questions do not have.
    """
    given = dict(columns or {})
    if unknown := sorted(set(given) - set(FIELDS)):
        raise ConfigError(f"columns: {unknown[0]!r} is not a field of a question; those are {', '.join(FIELDS)}")
    names = {field: given.get(field, field) for field in FIELDS}
    missing: list[str] = []
    if known is not None:
        if "images" not in given and "images" not in known and "image" in known:
            names["images"] = "image"
        if "id" not in given and "id" not in known:
            names["id"] = CONTENT_ID
        needed = {*given, "question", *(["answer"] if require_answer else [])}
        missing = sorted(names[field] for field in needed if names[field] not in known | {CONTENT_ID})
    return RowRules(names, require_answer, setting), missing


def check_row(row: RawRow, rules: RowRules) -> tuple[Draft | None, list[Fault]]:
    """The draft of a row and all that is wrong with it; with faults the draft is good for nothing but its images."""
    if row.values is None:
        return None, [row.fault] if row.fault else []
    faults: list[Fault] = []

    def report(field: str, code: str, reason: str) -> None:
        faults.append(Fault(field, code, reason))

    values = dict(row.values)
    if rules.columns["images"] == "images" and "image" in values:
        single = values.pop("image")
        if values.get("images") is not None:
            report("images", "both_images", "'image' and 'images' are both there; keep one of them")
        values["images"] = single
    fields = {field: values.pop(column, None) for field, column in rules.columns.items()}
    if fields["images"] is None and (other := next((name for name in values if _LIKE_IMAGES.fullmatch(name)), None)):
        cure = f"rename it, or map it: [{rules.setting}] images = {other!r}"
        report("images", "other_name", f"no 'images', but {other!r}, which would not be looked at; {cure}")
    if fields["choices"] is None and (unseen := _unseen_choices(values, fields["question"], fields["answer"])):
        cure = f"rename it, or map it: [{rules.setting}] choices = {unseen[0]!r} (a list of texts)"
        if len(unseen) > 1:
            cure = "put their texts into one list, choices"
        names = ", ".join(map(repr, unseen))
        report("choices", "other_name", f"no 'choices', but {names}, which models would not be shown; {cure}")
    if row.kind == "cells":
        for field in ("images", "choices", "meta"):
            fields[field] = read_cell(fields[field], field, report)
    typed = row.kind == "table"
    choices = read_choices(fields["choices"], report)
    draft = Draft(
        id=None if rules.ids_from_content else read_id(fields["id"], typed, report),
        question=read_question(fields["question"], report),
        images=read_images(fields["images"], report),
        answer=read_answer(fields["answer"], choices, typed, rules.require_answer, report),
        choices=choices,
        meta=read_meta(fields["meta"], values, report),
    )
    return draft, faults


def _unseen_choices(values: Mapping[str, object], question: object, answer: object) -> list[str]:
    """The names under which a row has the choices of its answer, a letter, if its question does not list them."""
    if not isinstance(answer, str) or not re.fullmatch(r"\s*\(?[A-Za-z][).]?\s*", answer):
        return []
    apart = [name for name, value in values.items() if _LIKE_ONE_CHOICE.fullmatch(name) and _is_said(value)]
    several = [[name] for name, value in values.items() if _LIKE_CHOICES.fullmatch(name) and _is_list(value)]
    asked = _words(question)
    for names in [*several, *([apart] if len(apart) > 1 else [])]:
        texts = {text for name in names for text in _words(values[name])}
        if not asked.issuperset(text for text in texts if len(text) > 1 or text.isdigit()):
            return names
    return []


def _words(text: object) -> set[str]:
    return set(re.findall(r"[^\W_]+", str(text).casefold()))


def _is_said(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_list(value: object) -> bool:
    """Whether a value holds several texts; "B. green" under "correct_option" is one."""
    return len(value) > 1 if isinstance(value, list | tuple | dict) else bool(_LISTS.search(str(value)))


def known_id(row: RawRow, rules: RowRules) -> str | None:
    """The id of a bad row for messages, if it has one that can be shown."""
    value = (row.values or {}).get(rules.columns["id"])
    return shown_id(str(value)) if isinstance(value, int) or (isinstance(value, str) and value.strip()) else None


def shown_id(id: str) -> str:
    """An id as it may stand in a message."""
    return shorten(id, 100)[1:-1]


def folded(id: str) -> str:
    """The form under which two ids are the same for readers and file systems."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", id).casefold())
