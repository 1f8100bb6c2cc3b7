"""What a job of the Batch API came to, and what that says of each of its calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from insightv.backends.openai.classify import Halt, Refused, Setback, Verdict, of_reply
from insightv.backends.openai.error_body import read_json
from insightv.backends.openai.http import Reply
from insightv.errors import ModelUnknown, QuotaExhausted
from insightv.redact import Redactor

if TYPE_CHECKING:
    from insightv.backends.openai.batch_service import JobState

_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_ENQUEUED = frozenset({"token_limit_exceeded", "too_many_enqueued_requests"})


@dataclass
class Outcome:
    """A job that is over: its status, its rows by call, and what its validation found, by line where it says one."""

    status: str
    rows: dict[bytes, Reply] = field(default_factory=dict)
    lines: dict[int, str] = field(default_factory=dict)
    codes: frozenset[str] = frozenset()
    text: str = ""
    order: tuple[bytes, ...] = ()


def rows_of(lines: bytes) -> dict[bytes, Reply]:
    """The replies of an output or error file by call; a line that cannot be read is a call without a reply."""
    rows: dict[bytes, Reply] = {}
    for line in lines.splitlines():
        try:
            form: Any = read_json(line)
            key, response = bytes.fromhex(form["custom_id"]), form.get("response")
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        if isinstance(response, dict) and isinstance(response.get("status_code"), int):
            rows[key] = Reply(response["status_code"], {}, orjson.dumps(response.get("body")))
    return rows


def failures(batch: JobState) -> Outcome:
    """A job's outcome without its rows: what its validation found, by line where it says one."""
    errors = (batch.errors.data or []) if batch.errors else []
    return Outcome(
        batch.status,
        lines={error.line: error.message or "" for error in errors if error.line is not None},
        codes=frozenset(error.code for error in errors if error.code),
        text="; ".join(f"{error.code}: {error.message}" for error in errors[:5]),
    )


def verdict_of(outcome: Outcome, key: bytes, n: int, redactor: Redactor) -> Verdict:
    """What a job says of one of its calls."""
    if key in outcome.rows:
        return of_reply(outcome.rows[key], n, redactor)
    text = redactor.clean(outcome.text, 500)
    if outcome.status == "cancelled":
        return Refused("batch_cancelled", "the batch job was cancelled; to send its calls again: --retry-failed")
    if outcome.status != "failed" or outcome.codes & _ENQUEUED:
        return Setback(outcome.status, f"batch_{outcome.status}", f"the job is {outcome.status} {text}", "up")
    if outcome.codes & _QUOTA:
        return Halt(QuotaExhausted, text)
    if "model_not_found" in outcome.codes:
        return Halt(ModelUnknown, text)
    place = outcome.order.index(key) + 1 if key in outcome.order else 0
    if outcome.lines and place not in outcome.lines:
        return Setback("failed", "batch_failed", f"other calls of the job were refused: {text}", "up")
    return Refused("bad_request", f"the batch service refused the job: {outcome.lines.get(place) or text}")
