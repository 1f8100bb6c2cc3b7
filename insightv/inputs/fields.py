"""The rules of each field of a question: what may stand in it, and what is reported otherwise.

Each reader takes a raw value and a `report`; after a report what it returns is not used.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from pathlib import PurePath

from insightv.inputs.image_error import shorten
from insightv.inputs.seen_pictures import looks_like_base64, unpacked
from insightv.records import Picture
from insightv.strict_json import clean

CONTENT_ID = "@content"
"""As a column for `id`: ids are made from the content of the rows."""

MAX_ID, MAX_QUESTION, MAX_IMAGES, MAX_DEPTH = 200, 100_000, 100, 64

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ID_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_UNSAFE_PATH = re.compile(
    r"""
    \A (?: [/\\] | [a-z]:[/\\] )                                        # a root, a drive, a share
    | (?: \A | [/\\] ) (?:
        [.\ ]+                                                         # Windows drops these at the end: ".. " is ".."
        | (?: con | prn | aux | nul | conin\$ | conout\$ | (?:com|lpt)[0-9\u00b9\u00b2\u00b3] ) \ *(?: [.:] [^/\\]* )?
    ) (?= [/\\] | \Z )
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""What a path made of an id would leave its folder by, or name a device by, on POSIX or on Windows."""
_LETTER = re.compile(r"\(?([A-Za-z])[).:]?")
_LETTER_AND_TEXT = re.compile(r"\(?([A-Za-z])[).:]+\s*(\S.*)")
_COMPACT = re.compile(r"[A-Z]{2,26}")
_LISTED = re.compile(r"\(?[A-Z]\)?(?:\s*(?:[,;&/]\s*(?:and\b\s*)?|\band\b\s*)\(?[A-Z]\)?)+\.?")
Report = Callable[[str, str, str], None]
"""Called with field, code and reason."""

Image = str | bytes | Picture


def _text(value: object, field: str, report: Report) -> str | None:
    """A string without characters that cannot be stored or shown; None after a report."""
    if not isinstance(value, str):
        report(field, "wrong_type", f"a string is needed, not {kind_name(value)}")
        return None
    if not value.isprintable() and (bad := _CONTROL.search(value)) is not None:
        report(
            field,
            "control_character",
            f"control character U+{ord(bad[0]):04X} at position {bad.start() + 1} (a lost backslash?)",
        )
        return None
    if not encodable(value):
        report(field, "lone_surrogate", "half of a surrogate pair; the text cannot be written as UTF-8")
        return None
    return value


def read_id(value: object, typed: bool, report: Report) -> str | None:
    """The id as written."""
    if value is None:
        report("id", "missing", f"no id; add one, or have it made from the content with columns id = {CONTENT_ID!r}")
        return None
    if typed and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        report("id", "wrong_type", f"an id is a string, not {kind_name(value)}; put it in quotes")
    elif not value.strip():
        report("id", "blank", "the id is empty or blank")
    elif len(value) > MAX_ID:
        report("id", "too_long", f"the id has {len(value)} characters; the limit is {MAX_ID}")
    elif not encodable(value):
        report("id", "lone_surrogate", "half of a surrogate pair; the id cannot be written as UTF-8")
    elif (bad := _ID_CONTROL.search(value)) is not None:
        report("id", "control_character", f"control character U+{ord(bad[0]):04X} in the id")
    elif value != value.strip():
        report("id", "blank", f"blanks around the id {value!r}")
    elif _UNSAFE_PATH.search(value):
        report("id", "unsafe_id", f"the id {value!r} would be unsafe as a file name; choose another")
    else:
        return value
    return None


def read_question(value: object, report: Report) -> str:
    """The text of the question."""
    if value is None:
        report("question", "missing", "no question")
        return ""
    text = _text(value, "question", report)
    if text is not None and not text.strip():
        report("question", "blank", "the question is empty or blank")
    if text is not None and len(text) > MAX_QUESTION:
        report("question", "too_long", f"the question has {len(text)} characters; the limit is {MAX_QUESTION}")
    return text or ""


def read_images(value: object, report: Report) -> tuple[Image, ...]:
    """Sources of images, an empty one where a fault was reported; one alone counts as a list of one."""
    if value is None:
        return ()
    entries = list(value) if isinstance(value, list | tuple) else [value]
    if len(entries) > MAX_IMAGES:
        report("images", "too_many", f"{len(entries)} images; the limit is {MAX_IMAGES}")
        return ()
    images: list[Image] = []
    for index, entry in enumerate(entries):
        entry = _inner(entry)
        images.append(entry if isinstance(entry, bytes | Picture) else _source(entry, f"images[{index}]", report))
    return tuple(images)


def _inner(entry: object) -> object:
    """What a record of an image holds: the datasets library's, or a part of a chat message; base64 as bytes."""
    if isinstance(entry, dict) and entry and set(entry) <= {"bytes", "path"}:
        entry = entry.get("path") if entry.get("bytes") is None else entry["bytes"]
    if isinstance(entry, dict) and entry.get("type") in ("image_url", "image") and entry.get("image_url"):
        inner = entry["image_url"]
        entry = inner.get("url") if isinstance(inner, dict) else inner
    if isinstance(entry, PurePath):
        return str(entry)
    return unpacked(entry) or entry if isinstance(entry, str) and looks_like_base64(entry) else entry


def _source(entry: object, field: str, report: Report) -> str:
    if not isinstance(entry, str):
        report(field, "wrong_type", f"an image is a path or a data URL, not {kind_name(entry)}")
    elif not entry.strip():
        report(field, "blank", "the path of the image is empty or blank")
    elif not encodable(entry):
        report(field, "lone_surrogate", "half of a surrogate pair in the path")
    elif looks_like_base64(entry):
        report(field, "bad_base64", f"{shorten(entry[:60])} looks like the base64 of an image, and is damaged")
    else:
        return entry
    return ""


def read_choices(value: object, report: Report) -> tuple[str, ...] | None:
    """The choices in order; numbers as text."""
    if value is None or value in ([], ()):
        return None
    if not isinstance(value, list | tuple):
        report("choices", "wrong_type", f"choices are a list of strings, not {kind_name(value)}")
        return None
    texts = [
        _text(str(entry) if _is_number(entry) else entry, f"choices[{index}]", report)
        for index, entry in enumerate(value)
    ]
    if any(text is None for text in texts):
        return None
    kept = tuple(text for text in texts if text is not None)
    if not 2 <= len(kept) <= 26:
        report("choices", "wrong_number", f"{len(kept)} choices; 2 to 26 are possible")
    elif not all(text.strip() for text in kept):
        report("choices", "blank", "one of the choices is empty or blank")
    elif len({same_choice(text) for text in kept}) != len(kept):
        report("choices", "duplicate", "two of the choices are the same")
    else:
        return kept
    return None


def read_answer(
    value: object, choices: tuple[str, ...] | None, typed: bool, required: bool, report: Report
) -> str | None:
    """The answer without blanks around it; a number as its text, None where there is none."""
    if typed and isinstance(value, list) and len(value) == 1:
        value = value[0]
    if _is_number(value):
        value = str(value)
    if value is None or value == "":
        if required:
            report("answer", "missing", "no answer, and the paths are to be judged by it")
        return None
    text = _text(value, "answer", report)
    if text is None:
        return None
    text = text.strip()
    if not text:
        report("answer", "blank", "the answer is blank")
    elif "\n" in text or "\r" in text:
        report("answer", "multiline", "the answer has several lines; one short answer is needed")
    elif choices is not None:
        _check_choice(text, choices, report)
    return text


def _check_choice(answer: str, choices: tuple[str, ...], report: Report) -> None:
    exact = [index for index, choice in enumerate(choices) if same_choice(choice) == same_choice(answer)]
    same = exact or [index for index, choice in enumerate(choices) if same_text(choice) == same_text(answer)]
    letter = _LETTER.fullmatch(answer)
    index = ord(letter[1].upper()) - ord("A") if letter else -1
    if index >= len(choices):
        index = -1
    if not same and index < 0 and not _is_lettered(answer, choices) and not _names_several(answer, len(choices)):
        last = chr(ord("A") + len(choices) - 1)
        report("answer", "not_a_choice", f"{shorten(answer)} is neither a letter A to {last} nor one of the choices")
    elif len(same) > 1 and index < 0:
        report("answer", "ambiguous", f"{shorten(answer)} may be any of {len(same)} choices; write the letter")
    elif same and index >= 0 and same != [index]:
        report(
            "answer",
            "ambiguous",
            f"{shorten(answer)} is the letter of one choice and the text of another; write the text of the right one "
            "in other words",
        )


def _is_lettered(answer: str, choices: tuple[str, ...]) -> bool:
    """Whether an answer is a choice behind its own letter: "B. green"."""
    both = _LETTER_AND_TEXT.fullmatch(answer)
    index = ord(both[1].upper()) - ord("A") if both else len(choices)
    return both is not None and index < len(choices) and same_text(choices[index]) == same_text(both[2])


def _names_several(answer: str, count: int) -> bool:
    """Whether an answer is the letters of two choices or more, each once: "A, C", "B and D", "ACD"."""
    if not (_COMPACT.fullmatch(answer) or _LISTED.fullmatch(answer)):
        return False
    letters = [ord(letter) - ord("A") for letter in re.findall(r"(?<![a-z])[A-Z](?![a-z])", answer)]
    in_order = letters == sorted(letters) or not _COMPACT.fullmatch(answer)  # "BAD" is a word
    return 1 < len(letters) == len(set(letters)) and max(letters) < count and in_order


_MOST_BITS = 14_000
"""Of a whole number; a little under the 4,300 digits that Python turns into text."""


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    # Of almost any size, unlike a float; of what is larger Python makes no text.
    return isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < _MOST_BITS


def kind_name(value: object) -> str:
    """What a value of JSON is, in words."""
    names = {dict: "an object", list: "a list", bool: "true or false", type(None): "null", int: "a number"}
    return names.get(type(value), "a number" if isinstance(value, float) else type(value).__name__)


def encodable(text: str) -> bool:
    """Whether UTF-8 can hold the text: not half of a surrogate pair."""
    return clean(text) is text


def same_choice(text: str) -> str:
    """The text without differences of white space and of Unicode form; case and powers tell choices apart."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def same_text(text: str) -> str:
    """The text without differences of case, width and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
