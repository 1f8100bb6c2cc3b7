"""What a reply of a chat completions server means. One classifier for all transports; it knows no time but a date's.

A try ends as `Answered`, as a `Setback` (the same request may be sent again), as a `Refused` (the request
itself is at fault), or as a `Halt` (asking for anything is pointless).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import orjson

from insightv.backends.openai.error_body import ServerError, error_in, error_of, read_json
from insightv.backends.openai.http import BrokenReply, CutReply, NoConnection, Reply, TransportFailure
from insightv.backends.openai.meanings import meaning_of
from insightv.backends.openai.message import Said, said_in, settle
from insightv.backends.openai.retry_after import retry_after_s
from insightv.backends.openai.usage import read_usage
from insightv.errors import KeyRefused, ModelUnknown, QuotaExhausted, StopRun
from insightv.records import Completion, Usage
from insightv.redact import Redactor

KEPT_BYTES = 2048
_NOTHING = Usage()


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
    error: ServerError | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A reply that the same request would meet again; `error` is what the server told, where it told one."""

    code: str
    text: str
    kept: str = ""
    usage: Usage = _NOTHING
    error: ServerError | None = None


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
    if reply.status < 400:
        return _of_other_success(reply, redactor)
    return _of_error(error_in(reply.body, reply.status), reply, redactor)


def _of_error(error: ServerError, reply: Reply, redactor: Redactor, usage: Usage = _NOTHING) -> Verdict:
    """The verdict on an error, in a reply of whatever status."""
    rule = meaning_of(error)
    meaning = rule.meaning if rule else None
    words = redactor.clean(error.message) or redactor.clean_bytes(reply.body, 300, lines=False)
    inner = f" with an error {error.status or ''}".rstrip() if reply.status == 200 else ""
    text = f"the server answered {reply.status}{inner}" + (f": {words}" if words else "")
    if meaning == "content":
        return Answered([Completion(text="", finish="refusal")], usage)
    if meaning in _HALTS:
        return Halt(_HALTS[meaning], text)
    if meaning is None or (meaning == "trouble" and reply.status == 200):
        return malformed("error with 200", text, reply.body, redactor, usage)
    if meaning in ("limit", "trouble"):
        return _of_trouble(error, reply, text, redactor, limited=meaning == "limit")
    code = {"too_long": "too_long", "forbidden": FORBIDDEN}.get(meaning, "bad_request")
    return Refused(code, text, redactor.clean_bytes(reply.body, KEPT_BYTES), usage, error)


FORBIDDEN = "forbidden"
"""The code of a call that was refused with 403, without a word of a content check."""
_HALTS: dict[str | None, type[StopRun]] = {"credit": QuotaExhausted, "key": KeyRefused, "model": ModelUnknown}


def _of_trouble(error: ServerError, reply: Reply, text: str, redactor: Redactor, *, limited: bool) -> Setback:
    wait_s = retry_after_s(reply.headers)
    kept = redactor.clean_bytes(reply.body, KEPT_BYTES)
    if limited:
        wait_s = error.wait_s if wait_s is None else wait_s
        return Setback("429", "rate_limited", text, "busy", kept=kept, retry_after_s=wait_s)
    kind = str(error.status)
    asked = "Retry-After" in reply.headers or "retry-after-ms" in reply.headers  # not the counters of a good day
    if wait_s is not None and asked:
        return Setback(kind, "server_error", text, "busy", kept=kept, retry_after_s=wait_s)
    health: Literal["down", "up"] = "down" if error.status >= 500 else "up"
    return Setback(kind, "server_error", text, health, kept=kept, error=error)


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
    usage = read_usage(form.get("usage") or form.get("usageMetadata"))
    return of_form(form, reply, n, redactor, usage)


def of_form(form: dict[str, Any], reply: Reply, n: int, redactor: Redactor, usage: Usage) -> Verdict:
    """The verdict on the object of a reply of status 200, or on an event of a stream."""
    choices = form.get("choices")
    held = [choice for choice in choices[:n] if isinstance(choice, dict)] if isinstance(choices, list) else []
    if form.get("error") or form.get("object") == "error":
        return _of_error(error_of(form, 200), reply, redactor, usage)
    if held and all(choice.get("error") for choice in held):
        return _of_error(error_of(held[0], 200), reply, redactor, usage)
    if not held and _blocked(form):
        return Answered([Completion(text="", finish="refusal")], usage)
    if not isinstance(choices, list) or not choices:
        return malformed("no choices", "the reply holds no choices", reply.body, redactor, usage)
    said = [(choice, said_in(message)) for choice in held if isinstance(message := choice.get("message"), dict)]
    found = [done for choice, each in said if (done := _completion(choice, each)) is not None]
    if found:
        return Answered(found, usage)
    if thought := [each for _, each in said if each.thoughts]:
        kept = redactor.clean_bytes(thought[0].thoughts.encode(errors="replace"), KEPT_BYTES)
        return Refused(THOUGHTS_ONLY, only_thoughts(thought[0].thoughts, thought[0].place), kept, usage)
    return malformed("no content", "the reply's choices hold no text and no refusal", reply.body, redactor, usage)


def _blocked(form: dict[str, Any]) -> bool:
    """Whether a reply without choices says that the prompt was blocked, as Google's does."""
    feedback = form.get("promptFeedback") or form.get("prompt_feedback")
    return isinstance(feedback, dict) and bool(feedback.get("blockReason") or feedback.get("block_reason"))


def _completion(choice: dict[str, Any], said: Said) -> Completion | None:
    """One choice; None where it holds neither a text nor a reason for having none."""
    message = choice["message"]
    reason = None if choice.get("error") else choice.get("finish_reason")
    if said.thoughts and not (said.text or "").strip() and not message.get("refusal"):
        done = settle(None, None, reason, said.thoughts)  # a text that is blank behind thoughts is none
        return done if done is not None and done.finish == "refusal" else None
    return settle(said.text, message.get("refusal"), reason, said.thoughts)


THOUGHTS_ONLY = "thoughts_only"
"""The code of a call whose reply is thoughts alone."""


def only_thoughts(thoughts: str, place: str) -> str:
    """What to say of a reply that is thoughts alone, and what to do about it."""
    return (
        f"the reply is thoughts alone: {len(thoughts)} characters in {place}, nothing after them; in the table of this "
        "model set a larger max_tokens, or extra = {chat_template_kwargs = {enable_thinking = false}}, and leave out a "
        "reasoning parser of the server where the model does not think"
    )
