"""What the replies of a server have taught about it: what it takes of a request, and whether the key is good."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from insightv.backends.openai.classify import FORBIDDEN, Answered, Halt, Refused, Setback, Verdict
from insightv.backends.openai.fit import Fit, Lesson
from insightv.backends.openai.lessons import lesson_of
from insightv.backends.openai.request import sent_fields
from insightv.errors import KeyRefused
from insightv.records import Message, Sampling, Schema

log = logging.getLogger("insightv.openai")

OWN_ERRORS = 4
"""Errors in a server's own words that the tries of one call meet before they count as a refusal, where the server has
answered nothing yet: one that is overloaded or restarted answers something in the end."""
MOST_FORBIDDEN = 5
"""Calls in a row that are refused with 403 amid answered ones, before that is taken for the key's fault."""


@dataclass
class Asked:
    """One call as it is sent: `fit` changes with what its tries teach."""

    messages: Sequence[Message]
    sampling: Sampling
    schema: Schema | None
    n: int
    fit: Fit
    stream: bool = False
    own_errors: int = 0

    @property
    def drawn(self) -> int:
        """How many replies one request draws."""
        return 1 if self.fit.draws_one else self.n

    @property
    def fields(self) -> list[str]:
        """The fields that are sent, by our names."""
        sent = sent_fields("", self.sampling, self.drawn, self.schema, self.fit, self.stream)
        return [name for name in sent if name not in self.fit.omit]

    @property
    def instructed(self) -> bool:
        """Whether instructions stand in a message of their own."""
        return any(message.role == "system" for message in self.messages)


class Learned:
    """What is known of the server of one model; `fit` is how the next call begins."""

    def __init__(self, model: str, fit: Fit, setbacks: Counter[str]) -> None:
        self.fit = fit
        self._model = model
        self._setbacks = setbacks
        self._answered = False
        self._forbidden = 0

    def verdict(self, verdict: Verdict, asked: Asked) -> Verdict | None:
        """The verdict in the light of what is known; None where the call is to be sent again, as `asked` says now."""
        if isinstance(verdict, Answered):
            self._answered, self._forbidden = True, 0
            if asked.fit.draws_one and not self.fit.draws_one and asked.n > 1:
                self._keep(Lesson("n"))
            return verdict
        if isinstance(verdict, Halt):
            return verdict
        if verdict.code == FORBIDDEN:
            self._forbidden += 1
            trusted = self._answered and self._forbidden <= MOST_FORBIDDEN
            return verdict if trusted else Halt(KeyRefused, verdict.text)
        if self._teaches(verdict, asked):
            return None
        if isinstance(verdict, Setback):
            return self._of_own_error(verdict, asked)
        if verdict.code == "bad_request" and asked.drawn > 1:
            asked.fit = asked.fit.after(Lesson("n"))  # many draw one at a time and say so in no known words
            return None
        return verdict

    def _teaches(self, verdict: Setback | Refused, asked: Asked) -> bool:
        error = verdict.error
        if error is None or (isinstance(verdict, Setback) and error.status not in (500, 501)):
            return False
        lesson = lesson_of(error, asked.fit, asked.fields, system=asked.instructed)
        if error.status == 501 and asked.drawn > 1:
            lesson = lesson or Lesson("n")
        if lesson is None or (verdict.code == "too_long" and lesson.field != "n"):
            return False
        before, asked.fit = asked.fit, asked.fit.after(lesson)
        if asked.fit == before:
            return False
        self._keep(lesson, verdict.text)
        return True

    def _keep(self, lesson: Lesson, text: str = "") -> None:
        fit = self.fit.after(lesson)
        if fit == self.fit:  # another call has met the same
            return
        self.fit = fit
        self._setbacks[f"field refused: {lesson.field}"] += 1
        if lesson.field != "n":
            why = f" ({text})" if text else ""
            log.warning("%s is asked with %s from now on%s; set that in its table", self._model, lesson.cure, why)

    def _of_own_error(self, setback: Setback, asked: Asked) -> Verdict:
        """A server that answers the first calls with an error of its own is up; in the end that is a refusal."""
        error = setback.error
        if self._answered or error is None or not error.message or error.status not in (500, 501):
            return setback
        asked.own_errors += 1
        if asked.own_errors < OWN_ERRORS:
            return replace(setback, health="up")
        text = f"{setback.text} ({asked.own_errors} times, and it has answered nothing else yet)"
        return Refused("bad_request", text, setback.kept, error=error)
