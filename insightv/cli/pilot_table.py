"""What a pilot found, as lines for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from insightv.evaluate.pilot import PilotReport
from insightv.evaluate.statistics import Estimate
from insightv.report.format import clock, dollars


def pilot_lines(report: PilotReport) -> str:
    """The report: what the whole will take, the funnel so far, and how far the judges can be trusted."""
    funnel, spent = report.funnel, report.spent
    paths = funnel["paths"]
    codes = ", ".join(f"{code} {count}" for code, count in paths["by_code"].items())
    lines = [
        f"pilot      {report.sampled} of {report.total} questions, spread over the file",
        f"spent      {spent['requests']:.0f} requests, {_tokens(spent):,.0f} tokens"
        + (f", {dollars(spent['usd'])}" if spent["usd"] else "")
        + f" (of it for the audit: {report.audit['requests']:.0f} requests, {_tokens(report.audit):,.0f} tokens)",
        "",
        f"{'projected':<22}{'the whole':>38}{'still to come':>38}",
        *(_amount(name, report.whole[key], report.left[key], form) for name, key, form in _AMOUNTS),
        "",
        f"paths      {paths['total']}: ok {paths['ok']}, rejected {paths['rejected']}, failed {paths['failed']}"
        + (f" ({codes})" if codes else ""),
        *(
            f"{each['scorer']:<10} {each['seen']} seen: passed {each['passed']}, refused {each['refused']}, "
            f"could not be judged {each['unjudged']}"
            for each in funnel["scorers"]
        ),
        "bands      " + ", ".join(f"{name} {count}" for name, count in funnel["bands"].items()),
        "",
        *(f"{name:<10} {_judge(name, report.judges[name])}" for name in _JUDGES),
        *(f"note       {note}" for note in report.notes),
        "note       the time holds for full slots and a server as quick under full load as it was in the pilot",
    ]
    return "\n".join(lines)


def _tokens(amounts: dict[str, float]) -> float:
    return amounts["prompt_tokens"] + amounts["completion_tokens"]


def _count(value: float) -> str:
    return f"{value:,.0f}"


_AMOUNTS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("requests", "requests", _count),
    ("tokens in", "prompt_tokens", _count),
    ("  of it cached", "cached_tokens", _count),
    ("tokens out", "completion_tokens", _count),
    ("money", "usd", dollars),
    ("time", "seconds", clock),
)


def _amount(name: str, whole: Estimate | None, left: Estimate | None, form: Callable[[float], str]) -> str:
    return f"{name:<22}{_ranged(whole, form):>38}{_ranged(left, form):>38}"


def _ranged(estimate: Estimate | None, form: Callable[[float], str]) -> str:
    if estimate is None:
        return "cannot be told"
    if estimate.low is None or estimate.high is None:
        return form(estimate.value)
    return f"{form(estimate.value)} ({form(estimate.low)} to {form(estimate.high)})"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _points(value: float) -> str:
    return f"{value:.1f}"


def _agreement(found: dict[str, Any]) -> str:
    return (
        f"the model judge says what the rules say of {_ranged(found['agree'], _percent)} of {found['answers']} answers "
        f"(too lenient {found['too_lenient']}, too strict {found['too_strict']}, undecided {found['undecided']}, "
        f"unreadable {found['unreadable']})"
    )


def _spread(found: dict[str, Any]) -> str:
    return (
        f"the scores of one path differ by {_ranged(found['stdev'], _points)} points (standard deviation, "
        f"{found['judgements']} judgements of {found['paths']} paths); {_ranged(found['band_changes'], _percent)} "
        f"change band; unreadable {found['unreadable']}"
    )


def _blank(found: dict[str, Any]) -> str:
    return (
        f"with a grey picture {_ranged(found['survived'], _percent)} of {found['paths']} mid and high paths keep their "
        f"band; scores change by {_ranged(found['mean_change'], _points)} points; unreadable {found['unreadable']}"
    )


def _canary(found: dict[str, Any]) -> str:
    return (
        f"{_ranged(found['passed'], _percent)} of {found['paths']} planted paths, worthless and asking for full "
        f"marks, came out mid or high; mean score {_ranged(found['mean'], _points)}; unreadable {found['unreadable']}"
    )


_JUDGES = {"agreement": _agreement, "spread": _spread, "blank": _blank, "canary": _canary}


def _judge(name: str, found: dict[str, Any]) -> str:
    return str(found["absent"]) if "absent" in found else _JUDGES[name](found)
