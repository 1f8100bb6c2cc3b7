"""A streamed reply of a chat completions server, put together from its events. It knows no HTTP and no time."""

from __future__ import annotations

from collections.abc import Mapping

from insightv.backends.openai.classify import (
    KEPT_BYTES,
    THOUGHTS_ONLY,
    Answered,
    Refused,
    Verdict,
    malformed,
    of_form,
    of_reply,
    only_thoughts,
)
from insightv.backends.openai.error_body import read_json
from insightv.backends.openai.http import Incoming, Reply
from insightv.backends.openai.message import said_in, settle
from insightv.backends.openai.usage import read_usage
from insightv.records import Usage
from insightv.redact import Redactor


class StreamedReply:
    """Fed with bytes as they come; `begun` once a piece has gone out, `ended` once nothing more is to be read."""

    def __init__(self, redactor: Redactor) -> None:
        self.begun = False
        self.ended = False
        self._redactor = redactor
        self._tail = bytearray()
        self._pieces: list[str] = []
        self._refusals: list[str] = []
        self._thoughts: list[str] = []
        self._place = ""
        self._reason: str | None = None
        self._usage = Usage()
        self._events = 0
        self._status = 0
        self._headers: Mapping[str, str] = {}
        self._raw = bytearray()
        self._spoke = False
        self._verdict: Verdict | None = None

    def opened(self, incoming: Incoming) -> None:
        """The reply has begun to come."""
        self._status, self._headers = incoming.status, incoming.headers

    def feed(self, chunk: bytes) -> list[str]:
        """The pieces of text that a chunk completes."""
        if not self._events:
            self._raw += chunk
        self._tail += chunk
        if self._status != 200 or b"\n" not in chunk:
            return []
        *lines, self._tail = self._tail.split(b"\n")
        pieces = [piece for line in lines if (piece := self._line(bytes(line))) is not None]
        self.begun = self.begun or bool(pieces)
        self._pieces += pieces
        return pieces

    def verdict(self) -> Verdict:
        """The reply, at its end."""
        if self._verdict is not None:
            return self._verdict
        if not self._events:
            # A refusal, or a server without streams that has sent the whole reply at once.
            return of_reply(Reply(self._status, self._headers, bytes(self._raw)), 1, self._redactor)
        text = "".join(self._pieces)
        # A body that came to its end after the reason is whole: some servers and proxies leave the [DONE] out.
        if not self.ended and self._reason is None:
            return self._bad("cut stream", "the stream ended without a finish_reason and [DONE]", text.encode())
        thoughts, refusal = "".join(self._thoughts), "".join(self._refusals)
        silent = not self._spoke or (thoughts and not text.strip() and not refusal)
        completion = settle(None if silent else text, refusal, self._reason, thoughts)
        if thoughts and silent and (completion is None or completion.finish != "refusal"):
            kept = self._redactor.clean_bytes(thoughts.encode(errors="replace"), KEPT_BYTES)
            return Refused(THOUGHTS_ONLY, only_thoughts(thoughts, self._place), kept, self._usage)
        if completion is None:
            return self._bad("no content", "the stream holds no text and no refusal", text.encode())
        return Answered([completion], self._usage)

    def _line(self, line: bytes) -> str | None:
        if self.ended or not line.startswith(b"data:"):
            return None  # a comment that keeps the connection open, or the blank line after an event
        data = line[5:].strip()
        self._events += 1
        self._raw.clear()
        if data == b"[DONE]":
            self.ended = True
            return None
        try:
            event = read_json(data)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            self.ended = True
            self._verdict = self._bad("bad event", "an event of the stream is not JSON", data)
            return None
        if event.get("error"):
            self.ended = True
            self._verdict = of_form(event, Reply(200, self._headers, data), 1, self._redactor, self._usage)
            return None
        if event.get("usage"):
            self._usage = read_usage(event["usage"])
        return self._delta(event.get("choices"))

    def _delta(self, choices: object) -> str | None:
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return None
        if isinstance(choice.get("finish_reason"), str):
            self._reason = choice["finish_reason"]
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return None
        if isinstance(delta.get("refusal"), str):
            self._refusals.append(delta["refusal"])
        said = said_in(delta)
        if said.thoughts:
            self._thoughts.append(said.thoughts)
            self._place = said.place
        self._spoke = self._spoke or said.text is not None
        return said.text or None

    def _bad(self, kind: str, text: str, body: bytes) -> Verdict:
        return malformed(kind, text, body, self._redactor, self._usage)
