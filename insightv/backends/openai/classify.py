"""What a reply of a chat completions server means. One classifier for all transports; it knows no time but a date's.

A try ends as `Answered`, as a `Setback` (the same request may be sent again), as a `Refused` (the request
itself is at fault), or as a `Halt` (asking for anything is pointless).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import orjson

from insightv.backends.openai.http import BrokenReply, CutReply, NoConnection, Reply, TransportFailure
from insightv.backends.openai.retry_after import retry_after_s
from insightv.errors import KeyRefused, ModelUnknown, QuotaExhausted, StopRun
from insightv.records import Completion, Finish, Usage
from insightv.redact import Redactor

KEPT_BYTES = 2048
MOST_PARTS = 2**18
"""Objects and lists of one reply. 8 MiB of small ones take 190 MB to hold; the probabilities of some thousand tokens
with twenty others each are about 2e5."""
_MOST_TOKENS = 10**9
"""Of one request; a server that counts more has counted wrong, and would use up a budget at once."""
_NOTHING = Usage()
_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "quota_exceeded"})
_FILTERED = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})
_TOO_LONG = re.compile(
    r"context[_ ](length|window)|max(imum)?[_ ](model|context|input|sequence)[_ ]?len"
    r"|prompt is too long|too many (input )?tokens",
    re.IGNORECASE,
)
_NO_LETTERS = re.compile(r"[^a-z]+")
_CUT = frozenset(
    {"length", "maxtokens", "maxlength", "maxnewtokens", "maxoutputtokens", "modellength", "tokenlimit", "timelimit"}
    | {"modelcontextwindowexceeded", "contextlengthexceeded", "contextlength", "errorlimit"}
)
_WITHHELD = frozenset(
    {"contentfilter", "contentfiltered", "contentpolicyviolation", "safety", "imagesafety", "recitation", "blocklist"}
    | {"prohibitedcontent", "spii", "guardrailintervened", "guardrails", "refusal", "errortoxic", "moderation"}
)
_ABORTED = frozenset(
    {"abort", "aborted", "error", "cancelled", "canceled", "usercancel", "insufficientsystemresource"}
    | {"malformedmodeloutput"}
)
"""Finish reasons as their letters alone, in the words of the chat completions format and of other servers."""


@dataclass(frozen=True, slots=True)
class Setback:
    """A try that may be repeated. `kind` is the fine class that is counted, `code` the ModelError's.

    `health` is what it says of the endpoint: "down" (it is not working), "busy" (too much was asked), or "up".
    """

    kind: str
    code: str
    text: str
    health: Literal["down", "busy", "up"]
    usage: Usage = _NOTHING
    kept: str = ""
    retry_after_s: float | None = None
    sent: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    """A reply that the same request would meet again."""

    code: str
    text: str
    kept: str = ""


@dataclass(frozen=True, slots=True)
class Halt:
    """A reply that every request would meet."""

    stop: type[StopRun]
    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """At least one reply, and what the request has cost."""

    completions: list[Completion]
    usage: Usage = _NOTHING


Verdict = Answered | Setback | Refused | Halt


def of_failure(failure: TransportFailure, redactor: Redactor) -> Setback:
    """The verdict on a try to which no whole reply came."""
    text = redactor.clean(str(failure))
    kept = redactor.clean_bytes(failure.head, KEPT_BYTES)
    if isinstance(failure, NoConnection):
        return Setback("no connection", "connection", text, "down", kept=kept, sent=False)
    if isinstance(failure, BrokenReply):
        return Setback("broken reply", "connection", text, "down", kept=kept)
    if isinstance(failure, CutReply):
        return Setback("cut reply", "malformed", text, "up", kept=kept)
    return Setback("unreadable reply", "malformed", text, "up", kept=kept)


def of_reply(reply: Reply, n: int, redactor: Redactor) -> Verdict:
    """The verdict on a whole reply of any status."""
    if reply.status == 200:
        return _of_success(reply, n, redactor)
    status, error = reply.status, _error_object(reply.body)
    words = redactor.clean(str(error.get("message") or "")) or redactor.clean_bytes(reply.body, 300, lines=False)
    text = f"the server answered {status}" + (f": {words}" if words else "")
    if status < 400:
        return _of_other_success(reply, redactor)
    if _codes(error) & _QUOTA or status == 402:
        return Halt(QuotaExhausted, text)
    if status != 401 and _codes(error) & _FILTERED:  # hosts say so with 400 or 403; it is about this call alone
        return Answered([Completion(text="", finish="refusal")])
    if status in (401, 403):
        return Halt(KeyRefused, text)
    if status in (404, 410):
        return Halt(ModelUnknown, text)
    if status in (408, 409, 425, 429) or status >= 500:
        return _of_trouble(reply, text, redactor)
    code = "too_long" if _TOO_LONG.search(f"{error.get('code')} {error.get('message')}") else "bad_request"
    return Refused(code, text, redactor.clean_bytes(reply.body, KEPT_BYTES))


def _of_trouble(reply: Reply, text: str, redactor: Redactor) -> Setback:
    status = reply.status
    wait_s = retry_after_s(reply.headers, time.time())
    kept = redactor.clean_bytes(reply.body, KEPT_BYTES)
    if status == 429:
        return Setback("429", "rate_limited", text, "busy", kept=kept, retry_after_s=wait_s)
    asked = "Retry-After" in reply.headers or "retry-after-ms" in reply.headers  # not the counters of a good day
    if wait_s is not None and asked:
        return Setback(str(status), "server_error", text, "busy", kept=kept, retry_after_s=wait_s)
    return Setback(str(status), "server_error", text, "down" if status >= 500 else "up", kept=kept)


def _of_other_success(reply: Reply, redactor: Redactor) -> Verdict:
    if reply.status >= 300:
        target = redactor.clean(reply.headers.get("Location", "elsewhere"), 120)
        cure = "redirects are not followed: set base_url to the server's own address"
        return Refused("redirected", f"the server answered {reply.status} and points to {target}; {cure}")
    return malformed("status", f"the server answered {reply.status} where 200 was due", reply.body, redactor)


def malformed(kind: str, text: str, body: bytes, redactor: Redactor, usage: Usage = _NOTHING) -> Setback:
    """A reply that says nothing usable, with its start kept."""
    return Setback(kind, "malformed", text, "up", usage=usage, kept=redactor.clean_bytes(body, KEPT_BYTES))


def _of_success(reply: Reply, n: int, redactor: Redactor) -> Verdict:
    body = reply.body
    try:
        form = read_json(body)
    except orjson.JSONDecodeError as error:
        kind = "html" if body.lstrip()[:1] == b"<" else "not json"
        return malformed(kind, f"the reply is not JSON: {redactor.clean(str(error), 120)}", body, redactor)
    except ValueError as error:
        return malformed("too many parts", f"the reply {error}", body, redactor)
    if not isinstance(form, dict):
        return malformed("not an object", "the reply is JSON, but not an object", body, redactor)
    usage = read_usage(form.get("usage"))
    if form.get("error"):
        if _codes(_error_object(body)) & _QUOTA:
            said = redactor.clean_bytes(body, 300, lines=False)
            return Halt(QuotaExhausted, f"the server answered 200 with an error: {said}")
        return malformed("error with 200", "the reply of status 200 holds an error", body, redactor, usage)
    choices = form.get("choices")
    if not isinstance(choices, list) or not choices:
        return malformed("no choices", "the reply holds no choices", body, redactor, usage)
    found = [done for choice in choices[:n] if (done := _completion(choice)) is not None]
    if not found:
        return malformed("no content", "the reply's choices hold no text and no refusal", body, redactor, usage)
    return Answered(found, usage)


def _completion(choice: object) -> Completion | None:
    """One choice; None where it holds neither a text nor a reason for having none."""
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return None
    return settle(message.get("content"), message.get("refusal"), choice.get("finish_reason"))


def settle(content: object, refusal: object, reason: object) -> Completion | None:
    """A reply from its text, its refusal and its finish reason; None where these make no reply.

    A reason that is missing or unknown counts as "stop": servers have many words for a natural end.
    """
    if content is not None and not isinstance(content, str):
        return None
    word = _NO_LETTERS.sub("", reason[:64].lower()).removeprefix("finishreason") if isinstance(reason, str) else ""
    if word in _ABORTED:
        return None
    finish: Finish = "stop"
    if isinstance(refusal, str) and refusal:
        finish, content = "refusal", content or refusal
    elif word in _WITHHELD:
        finish = "refusal"
    elif word in _CUT:
        finish = "length"
    elif content is None:
        return None
    return Completion(text=content or "", finish=finish)


def read_json(body: bytes) -> object:
    """What a body holds.

    Raises:
        ValueError: more than `MOST_PARTS` objects and lists, by their opening brackets, also those in texts;
            orjson.JSONDecodeError where it is not JSON.
    """
    if body.count(b"{") + body.count(b"[") > MOST_PARTS:
        raise ValueError(f"holds more than {MOST_PARTS} objects and lists")
    return orjson.loads(body)


def read_usage(form: object) -> Usage:
    """The token counts of a reply; what is missing or is not a count is 0."""
    if not isinstance(form, dict):
        return _NOTHING
    details = form.get("prompt_tokens_details")
    prompt = _count(form, "prompt_tokens")
    return Usage(
        prompt_tokens=prompt,
        cached_tokens=min(prompt, _count(details, "cached_tokens")),
        completion_tokens=_count(form, "completion_tokens"),
    )


def _count(form: object, name: str) -> int:
    value = form.get(name) if isinstance(form, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS else 0


def _error_object(body: bytes) -> Mapping[str, object]:
    """The error of a reply: `{"error": {...}}`, or the bare object of older servers."""
    try:
        form = read_json(body)
    except ValueError:
        return {}
    if not isinstance(form, dict):
        return {}
    error = form.get("error", form)
    return error if isinstance(error, dict) else {"message": error if isinstance(error, str) else ""}


def _codes(error: Mapping[str, object]) -> set[str]:
    return {value for value in (error.get("code"), error.get("type")) if isinstance(value, str)}
