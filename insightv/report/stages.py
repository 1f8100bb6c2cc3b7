"""The stages of a run's training: held-out accuracy after each as a curve, and what each was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from insightv.report.markup import Html, el, table, text
from insightv.report.reading import Findings
from insightv.report.sections import note, section
from insightv.runs.stage_facts import Accuracy, Compared
from insightv.runs.stage_ledger import Entry

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 480, 220, 46, 34, 12


class Point(NamedTuple):
    """A point of the curve; `back`: what was trained was rolled back."""

    name: str
    accuracy: float
    interval: tuple[float, float] | None
    back: bool = False


def training(found: Findings) -> Html | None:
    """All stages that were begun, in their order."""
    if not found.training:
        return None
    rows: list[list[object]] = [_row(stage) for stage in found.training]
    head = ["stage", "", "trained on", "before", "after", "difference", "p (McNemar)"]
    points = _points([stage for stage in found.training if not stage.laid_aside])
    curve = (
        el("figure", el("figcaption", "Held-out accuracy of the reasoning agent"), _curve(points)) if points else None
    )
    about = note(
        "Each stage is compared with what it began from, on the same held-out questions; lines are 95 % intervals. A "
        "round that was rolled back is hollow: the policy before it went on. A stage that is laid aside is one of an "
        "earlier training, which has no part in the agents as they are now."
    )
    return section("training", "Training and its rounds", about, curve, table(head, rows, numbers=4))


def _row(stage: Entry) -> list[object]:
    facts, compared = stage.facts, stage.facts.compared or Compared()
    state = "rolled back" if facts.rolled_back else "done" if stage.done else "not finished"
    state = "laid aside" if stage.laid_aside else state
    counted = ((facts.pairs, "pairs"), (facts.rows_trained_on, "rows"))
    amount = next((f"{count} {name}" for count, name in counted if count is not None), "-")
    difference, p = compared.difference, compared.p
    return [
        text(stage.name, 100),
        state,
        text(amount, 100),
        _percent(facts.before),
        _percent(facts.after),
        "-" if difference is None else f"{100 * difference:+.1f} %",
        "-" if p is None else f"{p:.3g}",
    ]


def _percent(measured: Accuracy | None) -> str:
    found = measured or Accuracy()
    open_ = f" ({found.ungraded} of {found.total} not graded)" if found.ungraded else ""
    return ("-" if found.accuracy is None else f"{100 * found.accuracy:.1f} %") + open_


def _points(stages: Sequence[Entry]) -> list[Point]:
    """The reasoning agent's accuracy before its first stage and after each; the summary agent is another system."""
    found: list[Point] = []
    for stage in stages:
        if stage.name.round is None:
            continue
        before, after = stage.facts.before, stage.facts.after
        if not found and before and before.accuracy is not None:
            found.append(Point("before", before.accuracy, before.interval))
        if after and after.accuracy is not None:
            found.append(Point(stage.name, after.accuracy, after.interval, bool(stage.facts.rolled_back)))
    return found


def _curve(points: Sequence[Point]) -> Html:
    """Accuracy from 0 to 100 %; the line runs through the stages that went on."""
    wide, tall = _WIDTH - _LEFT - 10, _HEIGHT - _TOP - _BOTTOM
    parts, line = [], []
    for level in (0, 25, 50, 75, 100):
        y = _TOP + tall * (1 - level / 100)
        parts.append(el("line", x1=_LEFT, x2=_LEFT + wide, y1=y, y2=y, klass="level"))
        parts.append(el("text", f"{level} %", x=_LEFT - 6, y=y + 4, text_anchor="end"))
    for at, (name, accuracy, interval, back) in enumerate(points):
        x = round(_LEFT + wide * (at + 0.5) / len(points), 1)
        y = round(_TOP + tall * (1 - accuracy), 1)
        if interval:
            low, high = (round(_TOP + tall * (1 - end), 1) for end in interval)
            parts.append(el("line", x1=x, x2=x, y1=low, y2=high, klass="interval"))
        told = f"{name}: {100 * accuracy:.1f} %" + (", rolled back" if back else "")
        parts.append(el("circle", el("title", told), cx=x, cy=y, r=5, klass="hollow" if back else "point"))
        parts.append(el("text", name[:20], x=x, y=_HEIGHT - _BOTTOM + 16, text_anchor="middle"))
        if not back:
            line.append(f"{x},{y}")
    parts.insert(0, el("polyline", points=" ".join(line), klass="curve"))
    label = "held-out accuracy by stage"
    return el("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=label, klass="chart curves")
