"""The evaluations found in a run's folder: accuracy with its interval, differences, and what the summary agent did."""

from __future__ import annotations

from typing import Any

from insightv.errors import InputError
from insightv.evaluate.results import OUTCOMES, Result, compare, summary
from insightv.report.charts import whisker
from insightv.report.markup import Html, el, table, text
from insightv.report.reading import Findings
from insightv.report.sections import note, section

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
