"""`chart-steps`: a scorer for the chart world that needs no model, only the chart in the question's `meta`.

The value of a path is `1 + 99 * right / (claims + unchecked)`: `claims` counts the claims that could be read in all
steps, `right` those that the chart bears out, `unchecked` the steps in which no claim could be read. So a step of which
nothing is understood is never counted as right: it draws the value down as a wrong claim does. Nothing is refused
(`accepted` is true for every path that was judged); what a value is worth is for the bands to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

from insightv.interfaces import Scorer
from insightv.records import Question, ReasoningPath, Score
from insightv.tiny import claims

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAME = "chart-steps"


class ChartSteps(Scorer):
    """Checks each step's claims against the drawn chart.

    `details` of a score: `claims` and `right` (counts), `steps` (per step its number, a verdict "right", "faulty" or
    "unchecked", and the claims), and `first_error`, the number of the first step with a wrong claim, from 1, or None.
    """

    async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
        """One score per path; value and accepted are None without a chart or without a claim that can be read."""
        chart = question.meta.get("chart")
        if not _is_chart(chart):
            return [Score(scorer=NAME, reason="the question's meta holds no chart") for _ in paths]
        return [_score(chart, question.answer, path) for path in paths]


def _is_chart(chart: object) -> TypeGuard[Mapping[str, Any]]:
    if not isinstance(chart, dict) or chart.get("kind") not in ("bars", "table"):
        return False
    return all(
        key in chart for key in (("labels", "values") if chart["kind"] == "bars" else ("rows", "columns", "values"))
    )


def _score(chart: Mapping[str, Any], answer: str | None, path: ReasoningPath) -> Score:
    found = claims.read(chart, [step.content for step in path.steps], answer)
    total = sum(map(len, found))
    if not total:
        return Score(scorer=NAME, reason="no step makes a claim that can be checked against the chart")
    right, unchecked = sum(claim.right for step in found for claim in step), sum(not step for step in found)
    steps = [
        {
            "step": number,
            "verdict": "unchecked" if not step else "right" if all(claim.right for claim in step) else "faulty",
            "claims": [{"text": claim.text, "right": claim.right} for claim in step],
        }
        for number, step in enumerate(found, 1)
    ]
    faulty = next((int(str(step["step"])) for step in steps if step["verdict"] == "faulty"), None)
    reason = f"{right} of {total} claims agree with the chart"
    if faulty:
        wrong = next(claim.text for claim in found[faulty - 1] if not claim.right)
        reason += f"; first fault in step {faulty}: {wrong}"
    return Score(
        scorer=NAME,
        value=1 + 99 * right / (total + unchecked),
        accepted=True,
        reason=reason,
        details={"claims": total, "right": right, "steps": steps, "first_error": faulty},
    )
