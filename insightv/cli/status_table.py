"""How a run stands, as lines for people."""

from __future__ import annotations

from insightv.report.format import dollars
from insightv.runs.stage_facts import Accuracy, Drift, StageFacts
from insightv.runs.stage_ledger import Entry
from insightv.runs.status import RunStatus
from insightv.train.finetune.rounding import FEW


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
