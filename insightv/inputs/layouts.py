"""The layouts of well-known question files: which column is which field, and what an answer is.

A file in one of them is read without a word of settings, known by columns that it alone has; `[questions] layout` names
one that cannot be told from its columns. A column of the same name as a field needs no entry.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

AnswerIs = Literal["auto", "text", "index"]
"""What a whole number is beside choices: a choice's own text, or its place, counted from 0. "auto": refused."""


Column = str | tuple[str, ...]
"""Where a field stands: in a column, or in several (an image each, a choice each)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A way to write questions down.

    `known_by` are columns that no other layout has together, `without` those that it has not. `columns` names those of
    a field in the order in which they are looked for. `answer` says what a number is; `before` are columns whose text
    is put before the question, which cannot be answered without; `asks` is asked where the question stands in the
    picture.
    """

    name: str
    known_by: Sequence[str] = ()
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    without: Sequence[str] = ()
    answer: AnswerIs = "auto"
    before: Sequence[str] = ()
    asks: str = ""


_IN_PICTURE = "Answer the question in the picture."
_SCIENCE = ("question", "choices", "answer", "hint", "lecture", "solution")
_OPTIONS = {"choices": ("options",)}
_MATHVISTA = {"id": ("pid",), "images": ("decoded_image", "image")}
_CHARTQA = {"question": ("query",), "answer": ("label",), "images": ("image", "imgname")}
_VQA = {"answer": ("answers",), "id": ("question_id",)}

LAYOUTS = (
    Layout("mmmu", ("question", "options", "image_1", "answer"), _OPTIONS),
    Layout("mmmu-pro", ("image", "options", "answer", "subject"), _OPTIONS, ("question",), asks=_IN_PICTURE),
    Layout("mathvista", ("question", "choices", "decoded_image", "answer_type"), _MATHVISTA),
    Layout(
        "chartqa", ("query", "label"), {"question": ("query",), "answer": ("label",), "images": ("image", "imgname")}
    ),
    Layout("scienceqa", _SCIENCE, {"images": ("image",)}, answer="index", before=("hint",)),
    Layout(
        "a-okvqa",
        ("question", "choices", "correct_choice_idx"),
        {"id": ("question_id",), "answer": ("correct_choice_idx",)},
        answer="index",
    ),
    Layout("ai2d", (), _OPTIONS, answer="index"),
    Layout("geometry3k", ("problem_text", "choices", "answer"), {"question": ("problem_text",)}),
    Layout("geometry3k", ("problem", "images", "answer"), {"question": ("problem",)}),
    Layout("textvqa", ("question", "answers", "image_classes"), _VQA),
    Layout("docvqa", ("question", "answers", "questionId"), {"answer": ("answers",), "id": ("questionId",)}),
    Layout("mmbench", ("index", "question", "A", "B", "answer", "image"), {"id": ("index",)}, before=("hint",)),
    Layout("mmstar", (), {"id": ("index",)}),
    Layout("ocrbench"),
    Layout(
        "vqav2", ("question", "multiple_choice_answer", "answers"), {"answer": ("answers",), "id": ("question_id",)}
    ),
)

NAMES = tuple(dict.fromkeys(layout.name for layout in LAYOUTS))


def layout_named(name: str, columns: Collection[str] | None) -> Layout | None:
    """The layout of that name; of several the one that the columns are of."""
    found = [layout for layout in LAYOUTS if layout.name == name]
    fitting = [layout for layout in found if columns is not None and _fits(layout, set(columns))]
    return next(iter(fitting or found), None)


def layout_of(columns: Collection[str]) -> Layout | None:
    """The layout that columns are known by."""
    return next((layout for layout in LAYOUTS if layout.known_by and _fits(layout, set(columns))), None)


def _fits(layout: Layout, columns: set[str]) -> bool:
    return set(layout.known_by) <= columns and not columns.intersection(layout.without)


def columns_of(layout: Layout | None, names: Mapping[str, Column], columns: Collection[str]) -> dict[str, Column]:
    """Our field -> its column in a source that has `columns`; `names` are those that hold without a layout."""
    found = dict(names)
    for name, wanted in (layout.columns if layout is not None else {}).items():
        if present := [column for column in wanted if column in columns]:
            found[name] = present[0]
    return found
