"""The results of evaluations as tables for people."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from insightv.evaluate.results import GRADED, OUTCOMES, VERDICTS, Result

_WIDTH = 100
_HEADS = {"right": "answer right", "wrong": "answer wrong"}


def result_tables(result: Result) -> str:
    """An evaluation: accuracy by family, the matrix, followed and overruled, the cost of a question."""
    found = result.as_json()
    models = ", ".join(dict.fromkeys(str(model) for model in result.models.values()))
    parts = [_accuracy_table(f"{result.system} ({models}) on {result.data}", found)]
    if found["reasoning"] is not None:
        parts += [_matrix_table(found["reasoning"]), _followed_table(found["followed"])]
    whole = found["questions"]
    notes = [f"per question: {_cost(found)}"]
    left = [f"{whole[name]} {name}" for name in OUTCOMES if name not in GRADED and whole[name]]
    if left:
        low, high = whole["bounds"]
        notes.append(f"{', '.join(left)}; accuracy of all {whole['total']} lies between {low:.1%} and {high:.1%}")
    return _rendered(parts, notes)


def comparison_tables(found: Mapping[str, Any]) -> str:
    """Two systems side by side, and their paired difference as a whole and by family."""
    sides = []
    for label, side in (("A", found["first"]), ("B", found["second"])):
        counts, each = side["questions"], side["tokens"]["per_question"]
        sides.append(
            (
                label,
                f"{side['system']} ({side['name']})",
                _percent(counts["accuracy"]),
                _range(counts["interval"]),
                f"{each['prompt'] + each['completion']:,.0f}",
                _number(side["seconds"]["median"]),
            )
        )
    pairs = [
        (
            family,
            *_counts(row, ("pairs", "both_right", "only_first", "only_second", "both_wrong")),
            _percent(row["difference"], "+"),
            _range(row["interval"], "+"),
            "-" if row["p"] is None else f"{row['p']:.3g}",
        )
        for family, row in (("all", found), *found["families"].items())
    ]
    heads = ("family", "pairs", "both", "only A", "only B", "neither", "difference", "95 %", "p")
    tables = [
        _table("on the questions of both", ("", "system", "accuracy", "95 %", "tokens", "seconds"), sides, "left"),
        _table("difference B - A, paired", heads, pairs),
    ]
    left = found["left_out"]
    notes = [
        *found["notes"],
        "difference: percentile bootstrap of pairs; p: exact McNemar test, not corrected by family",
    ]
    if any(left.values()) or found["not_graded"]:
        notes.append(
            f"left out: {left['only_in_first']} only in A, {left['only_in_second']} only in B, "
            f"{left['content_differs']} with other content; {found['not_graded']} pairs could not be graded"
        )
    return _rendered(tables, notes)


def _table(
    title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], justify: Literal["left", "right"] = "right"
) -> Table:
    table = Table(title=title, title_justify="left")
    for place, head in enumerate(heads):
        table.add_column(head, justify=justify if place else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _accuracy_table(title: str, found: Mapping[str, Any]) -> Table:
    rows = [
        (family, str(row["total"]), _percent(row["accuracy"]), _range(row["interval"]), *_counts(row, OUTCOMES))
        for family, row in (*found["families"].items(), ("all", found["questions"]))
    ]
    return _table(title, ("family", "questions", "accuracy", "95 %", *OUTCOMES), rows)


def _matrix_table(found: Mapping[str, Any]) -> Table:
    rates = {"right": found["kept"]["accuracy"], "wrong": found["recovered"]["accuracy"]}
    rows = [(name, *_counts(found["matrix"][name], OUTCOMES), _percent(rates.get(name))) for name in VERDICTS]
    return _table("reasoning by answer", ("reasoning", *(_HEADS.get(one, one) for one in OUTCOMES), "accuracy"), rows)


def _followed_table(found: Mapping[str, Any]) -> Table:
    rows = [
        (name, *_counts(row, ("total", "right", "wrong")), _percent(row["accuracy"]), _range(row["interval"]))
        for name, row in found.items()
    ]
    heads = ("", "questions", "answer right", "answer wrong", "accuracy", "95 %")
    return _table("what the summary agent did with the reasoning", heads, rows)


def _counts(row: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    return [str(row[name]) for name in names]


def _cost(found: Mapping[str, Any]) -> str:
    each, seconds = found["tokens"]["per_question"], found["seconds"]
    text = (
        f"{each['prompt']:,.0f} prompt and {each['completion']:,.0f} completion tokens, {each['requests']:.2f} requests"
    )
    if seconds["measured"]:
        text += (
            f"; {seconds['median']:.2f} s median and {seconds['p90']:.2f} s p90 to an answer, with others in flight "
            f"({seconds['measured']} measured)"
        )
    return text


def _percent(share: float | None, sign: str = "") -> str:
    return "-" if share is None else f"{100 * share:{sign}.1f}"


def _range(ends: Sequence[float] | None, sign: str = "") -> str:
    return "-" if ends is None else f"{_percent(ends[0], sign)} .. {_percent(ends[1], sign)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _rendered(tables: Sequence[Table], notes: Sequence[str]) -> str:
    text = io.StringIO()
    console = Console(file=text, width=_WIDTH, color_system=None, markup=False, emoji=False)
    for table in tables:
        console.print(table)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    return text.getvalue()
