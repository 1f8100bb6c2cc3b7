"""How a run stands, as lines for people."""

from __future__ import annotations

from typing import Any


def status_lines(status: dict[str, Any]) -> str:
    """A run's counts as a few lines for people."""
    questions, paths = status["questions"], status["paths"]
    codes = ", ".join(f"{code} {count}" for code, count in paths["by_code"].items())
    tokens = ", ".join(f"{count:,} {name}" for name, count in status["tokens"].items())
    lines = [
        f"questions  {questions['done']} of {questions['total']} done",
        f"paths      {paths['total']}: ok {paths['ok']}, rejected {paths['rejected']}, failed {paths['failed']}"
        + (f" ({codes})" if codes else ""),
        "bands      " + ", ".join(f"{name} {count}" for name, count in status["bands"].items()),
        f"requests   {status['requests']}; tokens: {tokens}" + (f"; ${status['usd']:.2f}" if status["usd"] else ""),
    ]
    return "\n".join(lines)
