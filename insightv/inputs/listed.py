"""Lists as data sets hold them: as lists, as the text of one of Python or JSON or numpy, as records of annotators."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Mapping

_LONGEST = 100_000
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_TEXTS = re.compile(rf"\[\s*(?:{_QUOTED})(?:\s*,?\s*(?:{_QUOTED}))*\s*,?\s*\]", re.DOTALL)
_ITEM = re.compile(_QUOTED, re.DOTALL)
_ASKS_SEVERAL = re.compile(
    r"\b(?:list|all|both|each|every|respectively|two|three|four|five|several|which \w+s (?:are|were|have|do|did|can)"
    r"|what (?:\w+ )?(?:are|were)(?: the)? \w+s|name the \w+s|items|select|order|sort|rank|sequence)\b"
)


def read_list(text: str) -> list[object] | None:
    """The list that a text writes down; None where it is none."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")) or len(text) > _LONGEST:
        return None
    if _TEXTS.fullmatch(text):  # numpy has no commas, and Python would join two texts without one between
        try:
            return [_unquoted(item) for item in _ITEM.findall(text)]
        except (ValueError, SyntaxError):
            return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return found if isinstance(found, list) else None
    return None


def _unquoted(item: str) -> object:
    try:
        return json.loads(item)
    except ValueError:
        return ast.literal_eval(item)


def quoted_texts(text: str) -> list[str]:
    """The texts of a list in a text whose items are all in quotes, or of alternatives parted by "||"; else none."""
    if " || " in text:
        return [part.strip() for part in text.split(" || ")]
    if not (text.startswith("[") and _TEXTS.fullmatch(text)):
        return []
    return [str(item) for item in read_list(text) or []]


def asks_several(question: str) -> bool:
    """Whether a list may be the answer as a whole, not some answers of which any is right."""
    return bool(_ASKS_SEVERAL.search(question.lower()))


def accepted(value: object) -> list[str] | None:
    """The different answers of a list, that of most annotators first; None where it is not a list of answers."""
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):  # as SQuAD has them
        value = value["text"]
    if not isinstance(value, list | tuple):
        return None
    texts = [_answer_of(entry) for entry in value]
    said = [text.strip() for text in texts if text is not None and text.strip()]
    if len(said) != len(texts):
        return None
    return [text for text, _ in Counter(said).most_common()]


def _answer_of(entry: object) -> str | None:
    if isinstance(entry, Mapping):
        entry = entry.get("answer", entry.get("text"))
    if isinstance(entry, str):
        return entry
    return str(entry) if isinstance(entry, int | float) and not isinstance(entry, bool) else None
