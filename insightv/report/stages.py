"""The stages of a run's training: held-out accuracy after each as a curve, and what each was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from insightv.report.markup import Html, el, table, text
from insightv.report.reading import Findings
from insightv.report.sections import note, section

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 480, 220, 46, 34, 12
Point = tuple[str, Mapping[str, Any], bool]
"""A name, an accuracy with its interval, and whether what was trained was rolled back."""


def training(found: Findings) -> Html | None:
    """All stages that were begun, in their order."""
    if not found.training:
        return None
    rows: list[list[object]] = [_row(stage) for stage in found.training]
    head = ["stage", "", "trained on", "before", "after", "difference", "p (McNemar)"]
    points = _points([stage for stage in found.training if not stage.get("laid_aside")])
    curve = (
        el("figure", el("figcaption", "Held-out accuracy of the reasoning agent"), _curve(points)) if points else None
    )
    about = note(
        "Each stage is compared with what it began from, on the same held-out questions; lines are 95 % intervals. A "
        "round that was rolled back is hollow: the policy before it went on. A stage that is laid aside is one of an "
        "earlier training, which has no part in the agents as they are now."
    )
    return section("training", "Training and its rounds", about, curve, table(head, rows, numbers=4))


def _row(stage: Mapping[str, Any]) -> list[object]:
    compared = stage.get("compared") or {}
    state = "rolled back" if stage.get("rolled_back") else "done" if stage.get("done") else "not finished"
    state = "laid aside" if stage.get("laid_aside") else state
    counted = (("pairs", "pairs"), ("rows_trained_on", "rows"))
    amount = next((f"{stage[key]} {name}" for key, name in counted if stage.get(key) is not None), "-")
    difference, p = compared.get("difference"), compared.get("p")
    return [
        text(stage.get("stage", ""), 100),
        state,
        text(amount, 100),
        _percent(stage.get("before")),
        _percent(stage.get("after")),
        "-" if difference is None else f"{100 * difference:+.1f} %",
        "-" if p is None else f"{p:.3g}",
    ]


def _percent(measured: Mapping[str, Any] | None) -> str:
    found = measured or {}
    open_ = f" ({found['ungraded']} of {found['total']} not graded)" if found.get("ungraded") else ""
    return ("-" if found.get("accuracy") is None else f"{100 * found['accuracy']:.1f} %") + open_


def _points(stages: Sequence[Mapping[str, Any]]) -> list[Point]:
    """The reasoning agent's accuracy before its first stage and after each; the summary agent is another system."""
    found: list[Point] = []
    for stage in stages:
        name = str(stage.get("stage", ""))
        if name != "reasoning" and not name.startswith("round "):
            continue
        before, after = stage.get("before"), stage.get("after")
        if not found and before and before.get("accuracy") is not None:
            found.append(("before", before, False))
        if after and after.get("accuracy") is not None:
            found.append((name, after, bool(stage.get("rolled_back"))))
    return found


def _curve(points: Sequence[Point]) -> Html:
    """Accuracy from 0 to 100 %; the line runs through the stages that went on."""
    wide, tall = _WIDTH - _LEFT - 10, _HEIGHT - _TOP - _BOTTOM
    parts, line = [], []
    for level in (0, 25, 50, 75, 100):
        y = _TOP + tall * (1 - level / 100)
        parts.append(el("line", x1=_LEFT, x2=_LEFT + wide, y1=y, y2=y, klass="level"))
        parts.append(el("text", f"{level} %", x=_LEFT - 6, y=y + 4, text_anchor="end"))
    for at, (name, measured, back) in enumerate(points):
        x = round(_LEFT + wide * (at + 0.5) / len(points), 1)
        y = round(_TOP + tall * (1 - measured["accuracy"]), 1)
        if ends := measured.get("interval"):
            low, high = (round(_TOP + tall * (1 - end), 1) for end in ends)
            parts.append(el("line", x1=x, x2=x, y1=low, y2=high, klass="interval"))
        told = f"{name}: {100 * measured['accuracy']:.1f} %" + (", rolled back" if back else "")
        parts.append(el("circle", el("title", told), cx=x, cy=y, r=5, klass="hollow" if back else "point"))
        parts.append(el("text", name[:20], x=x, y=_HEIGHT - _BOTTOM + 16, text_anchor="middle"))
        if not back:
            line.append(f"{x},{y}")
    parts.insert(0, el("polyline", points=" ".join(line), klass="curve"))
    label = "held-out accuracy by stage"
    return el("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=label, klass="chart curves")
