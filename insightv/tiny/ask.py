"""The questions of the chart world: what can be asked of a chart, in which words, and the right answer.

A question is a `kind` and an `ask` (its parameters, JSON-able); both stand in the `meta` of an item, so that anyone can
work the answer out again. The cells of a chart are named "A" or "red" (a bar) and "A X" (row A, column X of a table).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    Chart = Mapping[str, Any]
    Ask = Mapping[str, Any]

FAMILIES: dict[str, tuple[str, ...]] = {
    "perception": ("value", "which"),
    "reasoning": ("sum", "difference", "count", "compare", "extreme", "hop", "range", "row_sum"),
}
"""The kinds of question in each family. "range" is asked of bar charts only, "row_sum" of tables only."""
_ONLY = {"range": "bars", "row_sum": "table"}


def kinds(chart: Chart, family: str) -> list[str]:
    """The kinds of `family` that can be asked of this sort of chart."""
    return [kind for kind in FAMILIES[family] if _ONLY.get(kind, chart["kind"]) == chart["kind"]]


def cells(chart: Chart) -> dict[str, int]:
    """Name and value of each bar from the left, or of each cell row by row."""
    if chart["kind"] == "bars":
        return dict(zip(chart["labels"], chart["values"], strict=True))
    return {
        f"{row} {column}": chart["values"][y][x]
        for y, row in enumerate(chart["rows"])
        for x, column in enumerate(chart["columns"])
    }


def row(chart: Chart, name: str) -> dict[str, int]:
    """Name and value of the cells of one row of a table."""
    return {cell: value for cell, value in cells(chart).items() if cell.startswith(name + " ")}


def extreme(values: Mapping[str, int], high: bool) -> str:
    """The first name with the largest (or smallest) value."""
    return (max if high else min)(values, key=lambda name: values[name])


def _unique(values: Mapping[str, int], high: bool) -> bool:
    numbers = list(values.values())
    return numbers.count((max if high else min)(numbers)) == 1


def pick(chart: Chart, kind: str, rng: random.Random) -> dict[str, Any] | None:
    """Parameters for a question of `kind`; None where this chart does not allow one that has a single answer."""
    values, table = cells(chart), chart["kind"] == "table"
    high = rng.random() < 0.5
    if kind == "value":
        return {"a": rng.choice(list(values))}
    if kind in ("sum", "difference", "compare"):
        a, b = rng.sample(list(values), 2)
        return None if kind == "compare" and values[a] == values[b] else {"a": a, "b": b}
    if kind == "count":
        return {"limit": rng.randint(2, 7), "above": high}
    if kind == "range":
        return {}
    if not table:
        return _pick_bars(values, kind, high, rng)
    name = rng.choice(chart["rows"])
    inside = row(chart, name)
    if kind == "row_sum":
        return {"row": name}
    if kind == "which":
        number = rng.choice(list(inside.values()))
        return {"row": name, "number": number} if list(inside.values()).count(number) == 1 else None
    if not _unique(inside, high):
        return None
    if kind == "extreme":
        return {"row": name, "high": high}
    return {"row": name, "high": high, "other": rng.choice([r for r in chart["rows"] if r != name])}


def _pick_bars(values: Mapping[str, int], kind: str, high: bool, rng: random.Random) -> dict[str, Any] | None:
    if kind == "which":
        number = rng.choice(list(values.values()))
        return {"number": number} if list(values.values()).count(number) == 1 else None
    if not _unique(values, high):
        return None
    if kind == "extreme":
        return {"high": high}
    side, place = rng.choice(("left", "right")), list(values).index(extreme(values, high))
    if not 0 <= place + (1 if side == "right" else -1) < len(values):
        return None
    return {"high": high, "side": side}


def answer(chart: Chart, kind: str, ask: Ask) -> str:
    """The right answer: a number, a name, or yes or no. Where a tie leaves a choice, the first from the left."""
    values = cells(chart)
    inside = row(chart, ask["row"]) if "row" in ask else values
    match kind:
        case "value":
            return str(values[ask["a"]])
        case "which":
            return next((name.split()[-1] for name, value in inside.items() if value == ask["number"]), "none")
        case "sum":
            return str(values[ask["a"]] + values[ask["b"]])
        case "difference":
            return str(abs(values[ask["a"]] - values[ask["b"]]))
        case "count":
            return str(len(beyond(chart, ask)))
        case "compare":
            return "yes" if values[ask["a"]] > values[ask["b"]] else "no"
        case "extreme":
            return extreme(inside, ask["high"]).split()[-1]
        case "hop":
            return str(values[hop(chart, ask)])
        case "range":
            return str(max(values.values()) - min(values.values()))
        case "row_sum":
            return str(sum(inside.values()))
    raise ValueError(f"no such kind of question: {kind}")


def beyond(chart: Chart, ask: Ask) -> list[str]:
    """The cells above (or below) the limit, in order."""
    limit, above = ask["limit"], ask["above"]
    return [name for name, value in cells(chart).items() if (value > limit if above else value < limit)]


def hop(chart: Chart, ask: Ask) -> str:
    """The cell that a two-hop question ends at."""
    if chart["kind"] == "table":
        return f"{ask['other']} {extreme(row(chart, ask['row']), ask['high']).split()[-1]}"
    names = list(cells(chart))
    place = names.index(extreme(cells(chart), ask["high"])) + (1 if ask["side"] == "right" else -1)
    return names[max(0, min(len(names) - 1, place))]


def text(chart: Chart, kind: str, ask: Ask, rng: random.Random) -> str:
    """The question in words."""
    table = chart["kind"] == "table"

    def say(name: str) -> str:
        if table:
            first, second = name.split()
            return f"row {first}, column {second}"
        return f"bar {name}" if chart["names"] == "letters" else f"the {name} bar"

    size = ("largest" if ask.get("high") else "smallest") if table else ("tallest" if ask.get("high") else "lowest")
    words = {**ask, "size": size, "a": say(ask["a"]) if "a" in ask else "", "b": say(ask["b"]) if "b" in ask else ""}
    words |= {"things": "cells" if table else "bars", "beyond": "above" if ask.get("above") else "below"}
    return rng.choice(_WORDS[(kind, table)] if (kind, table) in _WORDS else _WORDS[(kind, False)]).format(**words)


_WORDS: dict[tuple[str, bool], tuple[str, ...]] = {
    ("value", False): ("What is the value of {a}?", "Read the value of {a}."),
    ("which", False): ("Which bar has the value {number}?", "Which bar is at {number}?"),
    ("which", True): ("Which column has the value {number} in row {row}?",),
    ("sum", False): ("What is the sum of {a} and {b}?", "How much are {a} and {b} together?"),
    ("difference", False): ("What is the difference between {a} and {b}?", "How far apart are {a} and {b}?"),
    ("count", False): ("How many {things} are {beyond} {limit}?", "Count the {things} {beyond} {limit}."),
    ("compare", False): ("Is {a} more than {b}?", "Is the value of {a} larger than that of {b}?"),
    ("extreme", False): ("Which bar is the {size}?", "Name the {size} bar."),
    ("extreme", True): ("Which column is the {size} in row {row}?",),
    ("hop", False): ("What is the value of the bar {side} of the {size} bar?",),
    ("hop", True): ("What is the value of row {other} in the column where row {row} is {size}?",),
    ("range", False): ("What is the difference between the tallest and the lowest bar?",),
    ("row_sum", False): ("What is the sum of row {row}?", "Add up row {row}."),
}
