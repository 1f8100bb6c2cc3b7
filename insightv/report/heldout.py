"""Held-out accuracy in a run: its evaluations and how they differ, and the stages of its training as a curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from insightv.errors import InputError
from insightv.evaluate.results import OUTCOMES, Result, compare, summary
from insightv.report.charts import whisker
from insightv.report.markup import Html, el, table, text
from insightv.report.reading import Findings
from insightv.report.sections import note, section
from insightv.runs.stage_facts import Accuracy, Compared
from insightv.runs.stage_ledger import Entry

_MOST_FAMILIES = 50


def evaluations(found: Findings) -> Html | None:
    """All evaluations side by side."""
    if not found.evaluations and not found.unread:
        return None
    told = [(result, summary(result.rows)) for result in found.evaluations]
    parts = [el("p", el("bdi", message), klass="warning") for message in found.unread]
    if told:
        head = ["evaluation", "", "accuracy", "95 %", *OUTCOMES, "tokens each"]
        rows = [_row(result, said) for result, said in told]
        parts.append(table(head, rows, numbers=len(head) - 2))
        parts.append(
            note(
                "Accuracy is right / (right + wrong + rejected), with Wilson's interval. Ungraded and failed questions "
                "are not counted as wrong; where there are any, the bounds say what accuracy of all questions can be."
            )
        )
        parts += [*_differences(found.evaluations), *(_details(result, said) for result, said in told)]
    return section("evaluations", "On held-out questions", *parts)


def _row(result: Result, said: dict[str, Any]) -> list[object]:
    counts, each = said["questions"], said["tokens"]["per_question"]
    name = el("span", el("b", text(result.system, 100)), " ", text(result.name, 100), klass="stack")
    shown: list[object] = [
        name,
        "" if counts["accuracy"] is None else whisker(counts["accuracy"], counts["interval"]),
        _percent(counts["accuracy"]),
        _range(counts["interval"]),
    ]
    return [*shown, *(f"{counts[name]:,}" for name in OUTCOMES), f"{each['prompt'] + each['completion']:,.0f}"]


def _differences(results: list[Result]) -> list[Html]:
    """Each against the first that answers without reasoning, or against the first."""
    if len(results) < 2:
        return []
    first = next((result for result in results if result.system == "direct"), results[0])
    rows: list[list[object]] = []
    for other in results:
        if other is first:
            continue
        try:
            told = compare(first, other)
        except InputError:
            rows.append([text(other.name, 100), "no question in common", "", "", ""])
            continue
        p = "-" if told["p"] is None else f"{told['p']:.3g}"
        only = f"{told['only_second']:,} to {told['only_first']:,}"
        rows.append([text(other.name, 100), _percent(told["difference"], "+"), _range(told["interval"], "+"), only, p])
    head = ["evaluation", "difference", "95 %", "right only here, only there", "p (McNemar)"]
    return [table(head, rows, numbers=4, caption=f"Difference to {first.name}, question by question")]


def _details(result: Result, said: dict[str, Any]) -> Html:
    models = ", ".join(f"{agent}: {model}" for agent, model in result.models.items())
    parts: list[Html] = [note("data ", text(result.data, 300), "; models ", text(models, 500), f"; seed {result.seed}")]
    counts = said["questions"]
    if counts["bounds"] and counts["graded"] < counts["total"]:
        parts.append(note(f"Of all {counts['total']:,} questions, accuracy lies within {_range(counts['bounds'])}."))
    if reasoning := said["reasoning"]:
        kept, recovered = reasoning["kept"], reasoning["recovered"]
        parts.append(
            note(
                f"Of {kept['total']:,} right paths {_percent(kept['accuracy'])} led to a right answer; of "
                f"{recovered['total']:,} wrong ones {_percent(recovered['accuracy'])} were made good."
            )
        )
    if seconds := said["seconds"]["measured"]:
        median, p90 = (said["seconds"][name] for name in ("median", "p90"))
        parts.append(
            note(f"{median:.2f} s per question (median), {p90:.2f} s at the 90th percentile, {seconds} timed.")
        )
    families: list[list[object]] = [
        [text(name, 200), f"{one['total']:,}", _percent(one["accuracy"]), _range(one["interval"])]
        for name, one in list(said["families"].items())[:_MOST_FAMILIES]
    ]
    if families:
        more = len(said["families"]) - len(families)
        parts.append(table(["family", "questions", "accuracy", "95 %"], families, numbers=3))
        parts += [note(f"… and {more:,} more families")] if more else []
    return el("details", el("summary", text(f"{result.system} ({result.name})", 250)), *parts)


def _percent(share: float | None, sign: str = "") -> str:
    return "-" if share is None else f"{100 * share:{sign}.1f} %"


def _range(ends: list[float] | None, sign: str = "") -> str:
    return "-" if ends is None else f"{100 * ends[0]:{sign}.1f} to {100 * ends[1]:{sign}.1f}"


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
    rows: list[list[object]] = [_stage_row(stage) for stage in found.training]
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


def _stage_row(stage: Entry) -> list[object]:
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
        _accuracy(facts.before),
        _accuracy(facts.after),
        "-" if difference is None else f"{100 * difference:+.1f} %",
        "-" if p is None else f"{p:.3g}",
    ]


def _accuracy(measured: Accuracy | None) -> str:
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
