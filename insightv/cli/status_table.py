"""How a run stands, and what a pilot of it found, as lines for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from insightv.report.format import clock, dollars
from insightv.runs.stage_facts import Accuracy, Drift, StageFacts
from insightv.runs.stage_ledger import Entry
from insightv.runs.status import RunStatus
from insightv.train.finetune.rounding import FEW

if TYPE_CHECKING:
    from insightv.evaluate.pilot import PilotReport
    from insightv.evaluate.statistics import Estimate


def status_lines(status: RunStatus) -> str:
    """A run's counts as a few lines for people."""
    questions, paths = status.questions, status.paths
    codes = ", ".join(f"{code} {count}" for code, count in paths.by_code.items())
    tokens = ", ".join(f"{count:,} {name}" for name, count in status.tokens)
    lines = [
        f"questions  {questions.done} of {questions.total} done",
        f"paths      {paths.total}: ok {paths.ok}, rejected {paths.rejected}, failed {paths.failed}"
        + (f" ({codes})" if codes else ""),
        "bands      " + ", ".join(f"{name} {count}" for name, count in status.bands.items()),
        f"requests   {status.requests}; tokens: {tokens}" + (f"; {dollars(status.usd)}" if status.usd else ""),
    ]
    if status.unjudged:
        lines.append("unjudged   " + ", ".join(f"{code} {count}" for code, count in status.unjudged_by_code.items()))
    return "\n".join(lines)


def stage_lines(stage: Entry) -> list[str]:
    """A stage of training as a few lines for people."""
    facts, drift = stage.facts, stage.facts.drift or Drift()
    aside = ", laid aside: it has no part in the agents as they are now" if stage.laid_aside else ""
    lines = [f"{stage.name:<10} " + ("done" if stage.done else "begun, not done") + aside]
    if facts.rows_trained_on is not None:
        left = f", {facts.rows_left_out} left out" if facts.rows_left_out else ""
        loss = "loss not logged" if facts.loss is None else f"loss {facts.loss:.4f}"
        lines.append(f"{facts.steps} steps on {facts.rows_trained_on} rows{left}, {loss}")
    if facts.pairs is not None:
        mean = f", {facts.margins.mean:g} points apart on average" if facts.margins else ""
        trained = "" if facts.trained else ": not trained"
        lines.append(f"{facts.pairs} pairs from {facts.source} (policy {facts.policy}){mean}{trained}")
    if drift.log_ratio_chosen is not None and drift.log_ratio_rejected is not None:
        moved = f"chosen {_signed(drift.log_ratio_chosen.last)}, rejected {_signed(drift.log_ratio_rejected.last)}"
        lines.append(f"log-ratio to the reference at the end: {moved} nats")
    kept = drift.change_kept if facts.change_kept is None else facts.change_kept
    if kept is not None and kept < FEW:
        lines.append(
            f"{max(kept, 0):.0%} of the change is left in the type that the weights are written in: save_dtype"
        )
    return [lines[0], *(f"           {line}" for line in (*lines[1:], *_verdict(facts)))]


def _verdict(facts: StageFacts) -> list[str]:
    """What a stage did to held-out accuracy, and whether it was rolled back for that."""
    lines, compared = [], facts.compared
    if facts.before is not None and facts.after is not None:
        paired = ""
        if compared is not None and compared.difference is not None:
            paired = f" of {compared.pairs} questions, paired {compared.difference:+.1%}, p = {compared.p:.2g}"
        lines.append(f"held-out accuracy {accuracy(facts.before)} -> {accuracy(facts.after)}{paired}")
    if facts.rolled_back:
        found = compared.right if compared is not None else None
        ends = f" (right only before {found.only_first}, only after {found.only_second})" if found else ""
        lines.append(f"rolled back: the round did harm beyond noise{ends}; {facts.result} is kept")
    return lines


def event_lines(event: str, stage: Entry) -> str:
    """What a training reports while it runs (see `insightv.train.stages.Tell`), for people."""
    if event == "begin":
        return f"{stage.name:<10} begins"
    lines = stage_lines(stage)
    return "\n".join([lines[0] + " already", *lines[1:]] if event == "kept" else lines)


def accuracy(found: Accuracy) -> str:
    """A held-out accuracy with its interval."""
    open_ = f" ({found.ungraded} of {found.total} not graded)" if found.ungraded else ""
    if found.accuracy is None:
        return f"none{open_}"
    ends = "" if found.interval is None else f" [{found.interval[0]:.1%}, {found.interval[1]:.1%}]"
    return f"{found.accuracy:.1%}{ends}{open_}"


def _signed(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.3f}"


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
