"""From the columns of a row to the raw value of each field: which column holds what, and which is passed over.

Knows names, layouts and what values look like. Does not check the values: that is `insightv.inputs.fields`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from insightv.errors import ConfigError, did_you_mean
from insightv.inputs.fields import CONTENT_ID, Report
from insightv.inputs.layouts import NAMES, AnswerIs, Column, Layout, columns_of, layout_named, layout_of
from insightv.inputs.listed import accepted, read_list
from insightv.inputs.meta import read_cell
from insightv.inputs.seen_pictures import numbered, picture_columns
from insightv.inputs.sources import RawRow

_LIKE_IMAGES = re.compile(r"(?i)(?:.*_)?(?:img|image|picture|photo)s?(?:[_ ]?(?:path|file|url|name)s?)?")
"""Names under which other data sets keep their images: a question without its image would be answered, and paid for."""

_LIKE_CHOICES = re.compile(r"(?i)(?:.*_)?(?:option|choice|candidate|alternative)s?(?:_?(?:list|text)s?)?")
"""The same of choices: asked without them, a question whose answer is a letter can only be answered by guessing."""

_LIKE_ONE_CHOICE = re.compile(r"[A-H]|(?i:(?:option|choice|answer)s?[_ -]?[A-H1-8])")
"""Names of columns that hold one choice each."""

_LISTS = re.compile(r"[,;|\n]|'\s+'|\b[A-Z1-9][).:].*\b[A-Z1-9][).:]")

FIELDS = ("id", "question", "images", "answer", "choices", "meta")
COLUMNS = "questions.columns"
"""The setting that says what the columns of a questions file are called."""


@dataclass(frozen=True, slots=True)
class RowRules:
    """How rows are read. `columns` has a name of the source for each of our fields; `setting` is where that is said.

    `layout` is what the source is written in; where `by_row` each row is looked at, since rows may differ. `answer`
    says what a number beside choices is; `digits` that one in a text is refused like any other number.
    """

    columns: Mapping[str, Column]
    require_answer: bool = False
    setting: str = COLUMNS
    layout: Layout | None = None
    by_row: bool = False
    answer: AnswerIs = "auto"
    digits: bool = False

    @property
    def ids_from_content(self) -> bool:
        """Whether rows need no id."""
        return self.columns["id"] == CONTENT_ID

    @property
    def answer_is(self) -> AnswerIs:
        """What a number is: as it is set, or else as the layout has it."""
        return self.layout.answer if self.answer == "auto" and self.layout is not None else self.answer

    def of(self, values: Collection[str]) -> RowRules:
        """The rules for a row with these columns."""
        layout = self.layout or (layout_of(values) if self.by_row else None)
        return self if layout is None or not self.by_row else _in_layout(self, layout, values)


def _in_layout(rules: RowRules, layout: Layout, columns: Collection[str]) -> RowRules:
    return replace(rules, layout=layout, columns=columns_of(layout, rules.columns, columns))


@dataclass(frozen=True, slots=True)
class Format:
    """What settings say of a source: the column of each field, the layout's name, what a number is as an answer."""

    columns: Mapping[str, str | Sequence[str]] | None = None
    layout: str | None = None
    answer: AnswerIs = "auto"
    setting: str = COLUMNS


def row_rules(format: Format, known: frozenset[str] | None, require_answer: bool) -> tuple[RowRules, list[str]]:
    """The rules for a source, and what is missing in it where its columns are `known`.

    Raises:
        ConfigError: a field that questions do not have is mapped, or there is no such layout.
    """
    given = {
        name: column if isinstance(column, str) else tuple(column) for name, column in (format.columns or {}).items()
    }
    if unknown := sorted(set(given) - set(FIELDS)):
        raise ConfigError(f"columns: {unknown[0]!r} is not a field of a question; those are {', '.join(FIELDS)}")
    if format.layout is not None and format.layout not in NAMES:
        hint = did_you_mean(format.layout, NAMES, f"there are {', '.join(NAMES)}")
        raise ConfigError(f"questions.layout = {format.layout!r} is not known; {hint}")
    names: dict[str, Column] = {field: field for field in FIELDS}
    if known is not None and "images" not in known and "image" in known:
        names["images"] = "image"
    layout = layout_named(format.layout, known) if format.layout else None
    if layout is None and known is not None and not given:
        layout = layout_of(known)
    if known is not None:
        names = columns_of(layout, names, known)
        if names["id"] not in known and "id" not in given:
            names["id"] = CONTENT_ID
    by_row = known is None and (layout is not None or not given)
    rules = RowRules(names | given, require_answer, format.setting, layout, by_row, format.answer)
    return rules, _missing(rules, given, known)


def _missing(rules: RowRules, given: Collection[str], known: frozenset[str] | None) -> list[str]:
    if known is None:
        return []
    asked = rules.layout is not None and rules.layout.asks
    needed = {*given, *([] if asked else ["question"]), *(["answer"] if rules.require_answer else [])}
    if "answer" not in given and "answers" in known:
        needed.discard("answer")
    columns = [rules.columns[field] for field in needed]
    names = {name for column in columns for name in ([column] if isinstance(column, str) else column)}
    return sorted(names - known - {CONTENT_ID})


@dataclass(frozen=True, slots=True)
class Taken:
    """A row by fields. `rest` is what no field took, `unseen` the columns of it that hold pictures."""

    fields: dict[str, object]
    rest: dict[str, object]
    unseen: list[str]


def take(row: RawRow, rules: RowRules, report: Report) -> Taken:
    """The raw values of a row's fields; a column that is needed and has another name is reported."""
    values = dict(row.values or {})
    if rules.columns["images"] == "images" and "image" in values:
        single = values.pop("image")
        if values.get("images") is not None:
            report("images", "both_images", "'image' and 'images' are both there; keep one of them")
        values["images"] = single
    fields = {field: _pop(values, column) for field, column in rules.columns.items()}
    if rules.layout is not None:
        _complete(fields, values, rules.layout)
    _further_answers(fields, values, rules)
    if fields["images"] is None and rules.columns["images"] in ("images", "image"):
        fields["images"] = _numbered_images(values, report)
    unseen = picture_columns(values)
    if fields["images"] is None:
        _report_images(values, unseen, rules, report)
    if row.kind == "cells":
        for field in ("images", "meta"):
            fields[field] = read_cell(fields[field], field, report)
    fields["choices"] = _choices(fields, values, rules, row.kind == "cells", report)
    return Taken(fields, values, unseen)


def _pop(values: dict[str, object], column: Column) -> object:
    if isinstance(column, str):
        return values.pop(column, None)
    found = [values.pop(name, None) for name in column]
    return [value for value in found if value is not None and value != ""] or None


def _further_answers(fields: dict[str, object], values: dict[str, object], rules: RowRules) -> None:
    """Add `answers` to the answer, where it is one of them or there is none."""
    answer = fields["answer"]
    if rules.columns["answer"] != "answer" or fields["choices"] is not None:
        return
    if answer is None:
        fields["answer"] = values.pop("answers", None)
    elif answer in (others := accepted(values.get("answers")) or []):
        fields["answer"] = [answer, *others]
        values.pop("answers")


def _complete(fields: dict[str, object], values: dict[str, object], layout: Layout) -> None:
    """Put what the question cannot be answered without before it."""
    if fields["question"] is None and layout.asks:
        fields["question"] = layout.asks
    for name in layout.columns.get("images", ()):  # a path beside the picture itself
        values.pop(name, None)
    before = [str(values.pop(name)).strip() for name in layout.before if _is_said(values.get(name))]
    if before and isinstance(fields["question"], str):
        fields["question"] = "\n".join([*before, fields["question"]])


def _numbered_images(values: dict[str, object], report: Report) -> object:
    """The images of `image_1`, `image_2` and so on, as far as there are any."""
    names = numbered(name for name, value in values.items() if value is not None and value != "")
    unused = set(numbered(values)) - set(names)
    if not names or not all(name in picture_columns(values) for name in names):
        return None
    last = max(int(number[0]) for name in names if (number := re.search(r"\d+$", name)))
    if len(names) not in (last, last + 1):
        report(
            "images", "missing", f"of {', '.join(names)} one before the last is empty; number the images without gaps"
        )
    for name in unused:
        values.pop(name)
    return [values.pop(name) for name in names]


def _report_images(values: Mapping[str, object], unseen: list[str], rules: RowRules, report: Report) -> None:
    other = next((name for name in values if _LIKE_IMAGES.fullmatch(name)), unseen[0] if unseen else None)
    if other is not None:
        cure = f"rename it, or map it: [{rules.setting}] images = {other!r}"
        report("images", "other_name", f"no 'images', but {other!r}, which would not be looked at; {cure}")


def _choices(
    fields: Mapping[str, object], values: dict[str, object], rules: RowRules, cells: bool, report: Report
) -> object:
    found = fields["choices"]
    if isinstance(found, str):
        listed = read_list(found)
        if listed is not None:
            return listed
        return read_cell(found, "choices", report) if cells else found
    if found is not None:
        return found
    unseen = _unseen_choices(values, fields["question"], fields["answer"])
    texts: object = [values[name] for name in unseen]
    if len(unseen) == 1:
        texts = _as_list(values[unseen[0]])
    if unseen and texts:
        for name in unseen:
            values.pop(name)
        return texts
    if unseen:
        cure = f"rename it, or map it: [{rules.setting}] choices = {unseen[0]!r} (a list of texts)"
        report("choices", "other_name", f"no 'choices', but {unseen[0]!r}, which models would not be shown; {cure}")
    return None


def _as_list(value: object) -> object:
    if isinstance(value, dict):  # "A": "red", "B": "blue"
        letters = [chr(ord("A") + at) for at in range(len(value))]
        return list(value.values()) if list(value) == letters else None
    return read_list(value) if isinstance(value, str) else value


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
