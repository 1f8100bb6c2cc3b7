"""The one owner of retries: the tries of one model call, what they cost, and whether there is another."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter

from insightv.backends.openai.classify import Setback
from insightv.backends.openai.endpoint import Endpoint, Patience
from insightv.backends.retry_pause import NotTriedAgain, pause
from insightv.errors import ModelError
from insightv.records import Usage

log = logging.getLogger("insightv.openai")

MALFORMED_TRIES = 8
"""Replies without use for one call. Fewer lose calls at a server that garbles every fifth reply; each is paid for."""
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0
LONGEST_MALFORMED_BACKOFF_S = 2.0
"""A reply without use says nothing of load, so there is little to wait for."""


class Tries:
    """The tries of one call: `usage` sums them all, `setbacks` counts their classes."""

    def __init__(self, patience: Patience, setbacks: Counter[str]) -> None:
        self.patience = patience
        self.usage = Usage()
        self._setbacks = setbacks
        self._made = 0
        self._malformed = 0
        self._last: Setback | None = None

    def spent(self, usage: Usage, *, sent: bool = True) -> None:
        """Count a try and its tokens; one that never left this machine is not a request."""
        self._made += 1
        self.usage += usage + Usage(requests=int(sent))

    def note(self, setback: Setback, endpoint: Endpoint, sent_at: float) -> None:
        """Count a setback, and tell the endpoint what it says of its health."""
        self.spent(setback.usage, sent=setback.sent)
        self._setbacks[setback.kind] += 1
        self._last = setback
        if setback.health == "busy":
            endpoint.is_busy(sent_at, setback.retry_after_s)
        elif setback.health == "down":
            endpoint.is_failing(setback.text, connected=setback.sent)
        else:
            endpoint.is_up()
        if setback.code == "malformed":
            self._malformed += 1
        log.debug("%s: %s", endpoint.label, setback.text)

    async def pause(self, endpoint: Endpoint) -> None:
        """Wait until the next try may be made.

        Raises:
            ModelError: there is none, for the tries or the time are used up.
            NotTriedAgain: the run was stopped; it carries what the tries have cost.
        """
        pause_s = self.pause_s(endpoint)
        try:
            await pause(pause_s)
        except NotTriedAgain as stop:
            stop.usage = self.usage
            raise

    def pause_s(self, endpoint: Endpoint) -> float:
        """The pause before the next try: exponential, with full jitter; none at an endpoint that is closed to all.

        Raises:
            ModelError: there is none, for the tries or the time are used up.
        """
        last = self._last
        if last is not None and self._malformed >= MALFORMED_TRIES:
            raise self.error("malformed", f"{self._malformed} replies were of no use; the last: {last.text}")
        malformed = last is not None and last.code == "malformed"
        longest_s = min(LONGEST_BACKOFF_S, LONGEST_MALFORMED_BACKOFF_S) if malformed else LONGEST_BACKOFF_S
        ceiling = min(longest_s, FIRST_BACKOFF_S * 2.0 ** min(self._made - 1, 20))
        pause_s = 0.0 if endpoint.opens_in(time.monotonic()) > 0 else random.uniform(0, ceiling)
        if last is not None and pause_s >= self.patience.left_s:
            raise self.error(last.code, f"{last.text}; {self._tally()}")
        return pause_s

    def out_of_time(self, label: str) -> ModelError:
        """The error of a call whose time ran out while a reply was awaited."""
        before = f" (before that: {self._last.text})" if self._last else ""
        return self.error("timeout", f"{label} did not answer in time; {self._tally()}{before}")

    def error(self, code: str, text: str, kept: str = "") -> ModelError:
        """A ModelError that carries what the call has cost, and the last reply."""
        return ModelError(code, text, usage=self.usage, kept=kept or (self._last.kept if self._last else ""))

    def _tally(self) -> str:
        tries = "1 try" if self._made == 1 else f"{self._made} tries"
        return f"{tries} within deadline_s = {self.patience.deadline_s:g} s"
