"""How a run stands, as lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from insightv.report.format import dollars
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


def stage_lines(stage: Mapping[str, Any]) -> list[str]:
    """A stage of training as a few lines for people."""
    aside = ", laid aside: it has no part in the agents as they are now" if stage.get("laid_aside") else ""
    lines = [f"{stage['stage']:<10} " + ("done" if stage.get("done", True) else "begun, not done") + aside]
    if "rows_trained_on" in stage:
        left = f", {stage['rows_left_out']} left out" if stage["rows_left_out"] else ""
        loss = "loss not logged" if stage["loss"] is None else f"loss {stage['loss']:.4f}"
        lines.append(f"{stage['steps']} steps on {stage['rows_trained_on']} rows{left}, {loss}")
    if "pairs" in stage:
        margins, trained = stage.get("margins"), "" if stage["trained"] else ": not trained"
        mean = f", {margins['mean']:g} points apart on average" if margins else ""
        lines.append(f"{stage['pairs']} pairs from {stage['source']} (policy {stage['policy']}){mean}{trained}")
    drift = stage.get("drift") or {}
    if drift.get("log_ratio_chosen"):
        moved = [f"{name} {_signed(drift[f'log_ratio_{name}']['last'])}" for name in ("chosen", "rejected")]
        lines.append(f"log-ratio to the reference at the end: {', '.join(moved)} nats")
    kept = stage.get("change_kept", drift.get("change_kept"))
    if kept is not None and kept < FEW:
        lines.append(
            f"{max(kept, 0):.0%} of the change is left in the type that the weights are written in: save_dtype"
        )
    if stage.get("after"):
        lines.append(f"held-out accuracy {accuracy(stage['before'])} -> {accuracy(stage['after'])}{_compared(stage)}")
    if stage.get("rolled_back"):
        found = (stage.get("compared") or {}).get("right")
        ends = f" (right only before {found['only_first']}, only after {found['only_second']})" if found else ""
        lines.append(f"rolled back: the round did harm beyond noise{ends}; {stage['result']} goes on")
    return [lines[0], *(f"           {line}" for line in lines[1:])]


def told(event: str, stage: Mapping[str, Any]) -> str:
    """What a training tells while it goes on (see `insightv.train.stages.Tell`), for people."""
    if event == "begin":
        return f"{stage['stage']:<10} begins"
    lines = stage_lines(stage)
    return "\n".join([lines[0] + " already", *lines[1:]] if event == "kept" else lines)


def accuracy(found: Mapping[str, Any]) -> str:
    """A held-out accuracy with its interval (see `insightv.train.dpo_round.accuracy_of`)."""
    open_ = f" ({found['ungraded']} of {found['total']} not graded)" if found.get("ungraded") else ""
    if found["accuracy"] is None:
        return f"none{open_}"
    low, high = found["interval"]
    return f"{found['accuracy']:.1%} [{low:.1%}, {high:.1%}]{open_}"


def _compared(stage: Mapping[str, Any]) -> str:
    found = stage.get("compared") or {}
    if found.get("difference") is None:
        return ""
    return f" of {found['pairs']} questions, paired {found['difference']:+.1%}, p = {found['p']:.2g}"


def _signed(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.3f}"
