"""Lists held against each other item by item, and words of closed classes (colours, weekdays, directions).

A list is what commas, "and", semicolons, lines or brackets part.
"""

from __future__ import annotations

import json
import re

from insightv.assess.rules import numbers
from insightv.assess.rules.comparison import Comparison
from insightv.assess.rules.normalise import key
from insightv.assess.rules.question_words import stated

_MOST_ITEMS = 20
_WORDS = (
    "red green blue yellow orange purple pink brown black white gray cyan magenta; left right; up down; top bottom; "
    "monday tuesday wednesday thursday friday saturday sunday; increase decrease; increasing decreasing; higher lower; "
    "january february march april may june july august september october november december; north south east west; "
    "first second third fourth fifth"
)
_CLASSES = _WORDS.split("; ")
_CALENDAR = [name for names in _CLASSES if "monday" in names or "january" in names for name in names.split()]
_SPELLINGS = {name[:3]: name for name in _CALENDAR} | {"grey": "gray", "violet": "purple", "sept": "september"}
_SPELLINGS |= {"tues": "tuesday", "thur": "thursday", "thurs": "thursday"}


def unlike(truth: str, answer: str) -> bool | None:
    """False for two different members of one closed class (colours, weekdays, months, directions, ...)."""
    wanted, given = (_SPELLINGS.get(key(text), key(text)) for text in (truth, answer))
    if any({wanted, given} <= set(members.split()) for members in _CLASSES):
        return wanted == given
    return None


def split_list(text: str) -> tuple[list[str], bool]:
    """The items of a list, and whether the text is a list beyond doubt (brackets, semicolons, two commas or more)."""
    if text.startswith("[") and text.endswith("]"):
        try:
            items = json.loads(text)
        except (ValueError, RecursionError):
            items = [item.strip(" '\"") for item in re.split(r"[,;]\s*", text[1:-1])]
        if isinstance(items, list) and items and all(isinstance(item, str | int | float) for item in items):
            return [str(item) for item in items], True
        return [text], False
    if match := re.fullmatch(r"\\?\{(.*?)\\?\}", text, re.DOTALL):
        text = match[1]
    separator = r"\s*;\s*|\n+" if re.search(r"[;\n]", text) else r"\s*,\s*(?!\d{3}\b)(?:and\s+)?|\s+and\s+|\s+&\s+"
    items = [re.sub(r"^(?:[-*•]\s+|\d+[.)]\s+)", "", item).strip() for item in re.split(separator, text)]
    items = [item for item in items if item]
    return items, len(items) > 2 or bool(re.search(r";|\n", text))


def _item(truth: str, answer: str, how: Comparison) -> bool | None:
    if wanted := numbers.read(truth):
        return how.compare(wanted, stated(answer, how)).correct
    return True if key(truth) and key(truth) == key(answer) else unlike(truth, answer)


def same_items(truth: str, answer: str, how: Comparison) -> bool | None:
    """Order does not count, and an item said twice counts once, unless the truth itself says it twice.

    True where the items can be paired off. False where an item of either is, beyond doubt, none of the other's. A tuple
    of numbers in round brackets is no list: (1, 2) is not (2, 1). Nor is 12,50, which may be a price.
    """
    if re.fullmatch(r"\([-+\d.,\s/]+\)|\D{0,4}\d+,\d+\D{0,4}", truth):
        return None
    (wanted, sure), (given, _) = split_list(truth), split_list(answer)
    if len(wanted) < 2 or not given or max(len(wanted), len(given)) > _MOST_ITEMS:
        return None
    distinct = list({key(item): item for item in wanted}.values())
    if len(distinct) == len(wanted):
        given = list({key(item): item for item in given}.values())
    table = [[_item(w, g, how) for g in given] for w in wanted]
    if len(wanted) == len(given) and _pairs_off(table):
        return True
    if not sure and len(given) < 2:
        return None
    columns = [list(column) for column in zip(*table, strict=True)]
    return False if any(set(line) == {False} for line in table + columns) else None


def in_order(truth: str, answer: str, how: Comparison) -> bool:
    """Whether two lists hold the same items one by one."""
    (wanted, _), (given, _) = split_list(truth), split_list(answer)
    return len(wanted) == len(given) and all(_item(*pair, how) for pair in zip(wanted, given, strict=True))


def _pairs_off(table: list[list[bool | None]]) -> bool:
    """Whether each row finds a column that no row before it has taken where it is True."""
    free = set(range(len(table)))
    for row in table:
        fitting = [at for at in free if row[at]]
        if not fitting:
            return False
        free.remove(min(fitting))
    return True
