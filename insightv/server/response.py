"""The answers of the server, in the shapes of the chat completions format. Knows no HTTP."""

from __future__ import annotations

import secrets
import time
from typing import Any

import orjson

from insightv.agents.replies.reading import Unreadable
from insightv.agents.replies.thoughts import after_thoughts
from insightv.errors import ModelError
from insightv.events import AnswerText, PathDone, StepStarted, StepText
from insightv.reasoner.paths import USAGE_UNKNOWN
from insightv.records import Answer, ReasoningPath, Usage

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": waiting\n\n"


def usage_form(usage: Usage, reasoning: int) -> dict[str, Any]:
    """Usage as clients know it; `reasoning` is the part of the completion tokens that the paths took."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def usage_of(ended: Answer | ModelError) -> dict[str, Any]:
    """What a question cost, answered or not, as clients know it."""
    return usage_form(ended.usage, sum(path.usage.completion_tokens for path in paths_of(ended)))


def paths_of(ended: Answer | ModelError) -> tuple[ReasoningPath, ...]:
    """The paths of a question, answered or not."""
    return ended.paths or ((ended.path,) if ended.path else ())


def reasoning_text(path: ReasoningPath | None) -> str:
    """The steps as a stream would have told them."""
    if path is None or not path.steps:
        return ""
    return "\n\n".join(f"### {step.title}\n{step.content}" for step in path.steps)


def path_form(path: ReasoningPath) -> dict[str, Any]:
    """What the summary agent did with a path."""
    return {"status": path.status, "code": path.code, "steps": len(path.steps)}


def about(answer: Answer, seconds: float) -> dict[str, Any]:
    """The field `insightv` of a reply: how the answer came to be.

    Its flags are those of the answer, and `usage_unknown` where a call was stopped by a limit: what that call has cost
    is not in the usage, as no server tells it.
    """
    stopped = [USAGE_UNKNOWN] if any(USAGE_UNKNOWN in path.flags for path in paths_of(answer)) else []
    return {
        "followed": answer.followed,
        "agreement": answer.agreement,
        "flags": [*answer.flags, *stopped],
        "path": None if answer.path is None else path_form(answer.path),
        "paths": max(1, len(answer.paths)),
        "seconds": round(seconds, 3),
    }


class Shapes:
    """The replies to one request: all carry its id, model and time."""

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        chunk = {**self._head, "object": "chat.completion.chunk"}
        # Only what differs is encoded for each piece.
        self._before = b"data: " + orjson.dumps(chunk)[:-1] + b',"choices":[{"index":0,"delta":'
        self._after = b',"finish_reason":null}]}\n\n'
        self._chunk = chunk

    def whole(self, answer: Answer, seconds: float) -> dict[str, Any]:
        """A reply at once."""
        message = {"role": "assistant", "content": answer.text, "reasoning_content": reasoning_text(answer.path)}
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": usage_of(answer),
            "insightv": about(answer, seconds),
        }

    def unfinished(self, error: ModelError) -> dict[str, Any]:
        """A reply whose answer was refused, or cut off by the token limit; it holds what there is of it."""
        said, reasoning = _said(error), {"reasoning_content": reasoning_text(error.path)}
        message = {"role": "assistant", "content": said or None, **reasoning, **_refusal(error)}
        choice = {"index": 0, "message": message, "finish_reason": finish_of(error), "logprobs": None}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": usage_of(error)}

    def opening(self) -> bytes:
        """The first event of a stream."""
        return self._delta({"role": "assistant", "content": ""})

    def piece(self, event: StepStarted | StepText | PathDone | AnswerText) -> bytes:
        """A piece of a stream."""
        if isinstance(event, PathDone):
            return self._own({}, {"path": path_form(event.path)})
        if isinstance(event, StepText):
            return self._delta({"reasoning_content": event.text})
        if isinstance(event, AnswerText):
            return self._delta({"content": event.text})
        gap = "\n\n" if event.number > 1 else ""
        delta = {"reasoning_content": f"{gap}### {event.title}\n"}
        return self._own(delta, {"step": event.number, "title": event.title})

    def ending(self, finish: str, delta: dict[str, Any], own: dict[str, Any] | None) -> bytes:
        """The event that says why the stream ends."""
        last: dict[str, Any] = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        return self._event(last if own is None else {**last, "insightv": own})

    def usage(self, ended: Answer | ModelError) -> bytes:
        """The event with the usage, for those who asked for it."""
        return self._event({"choices": [], "usage": usage_of(ended)})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return self._before + orjson.dumps(delta) + self._after

    def _own(self, delta: dict[str, Any], own: dict[str, Any]) -> bytes:
        return self._event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}], "insightv": own})

    def _event(self, rest: dict[str, Any]) -> bytes:
        return b"data: " + orjson.dumps({**self._chunk, **rest}) + b"\n\n"


def finish_of(error: ModelError) -> str | None:
    """Why an answer ended that is not whole; None where the error is no end of an answer."""
    return {"truncated": "length", "refusal": "content_filter"}.get(error.code)


def _refusal(error: ModelError) -> dict[str, Any]:
    return {"refusal": _said(error) or "the model refused to answer"} if error.code == "refusal" else {}


def _said(error: ModelError) -> str:
    """What there is of the answer."""
    try:
        return after_thoughts(error.kept.lstrip())
    except Unreadable:  # it did not come so far
        return ""
