"""Where requests may go, and when: one `Endpoint` per base_url, shared by all models of the process that use it.

Two things close an endpoint for everybody. A rate limit closes it until a moment; no request goes out before. An
outage closes it to all but probes, one per gap, until something comes back. The clock is the monotonic one.
"""

from __future__ import annotations

import logging
import random
import time
import weakref
from collections import OrderedDict
from collections.abc import Sequence

from insightv.backends.retry_pause import pause
from insightv.errors import EndpointParked, ModelError

log = logging.getLogger("insightv.openai")

LONGEST_PARK_S = 24 * 3600.0
NOTED_PARK_S = 10.0
"""Shorter closures are everyday business and not logged."""
PROBE_GAPS_S = (1.0, 2.0, 4.0, 8.0, 9.5)
"""Seconds between probes of an endpoint that is down; the last one repeats."""
DOWN_AFTER = 5
"""Failures in a row that make an outage; more where more requests are in flight, which all fail at one moment."""
PROBE_S = 0.1
"""What a probe takes at least: with less time left its end would be taken for a reply that did not come in time."""
POLL_S = 0.2
MOVE_AFTER_S = 1.0
"""A chain waits this long for the endpoint that knows it, rather than move to another."""
HOMES = 16384
"""Chains whose endpoint is remembered."""
LATE_S = 5.0
"""A timer that comes later than this was not held up by load alone."""
_BUSY_S, _BUSIEST_S = 0.25, 30.0


class Patience:
    """How long one call may still take: `deadline_s`, not counting what it waits for closed endpoints.

    A wait until a moment that the server has named is excused whatever its length; waits of unknown length, for an
    outage or a limit without a moment, are excused for `deadline_s` in all.
    """

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self._ends = time.monotonic() + deadline_s
        self._unnamed_left = deadline_s

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self._ends - time.monotonic()

    def excuse(self, seconds: float) -> None:
        """Put the deadline off by time that was spent on this side of the connection."""
        self._ends += seconds

    def stood_still(self) -> float:
        """After the deadline: the seconds by which its timer came late, 0 within `LATE_S`; then time begins anew.

        A process that was stopped (Ctrl-Z, a debugger, a suspended machine) finds all its timers run out at once.
        """
        late_s = -self.left_s
        if late_s < LATE_S:
            return 0.0
        self._ends = time.monotonic() + self.deadline_s
        return late_s

    async def wait(self, wait_s: float, *, named: bool) -> None:
        """Sleep, and put the deadline off by as much as is excused; raises NotTriedAgain as `pause`."""
        began = time.monotonic()
        await pause(wait_s)
        excused = time.monotonic() - began
        if not named:
            excused = min(excused, self._unnamed_left)
            self._unnamed_left -= excused
        self._ends += excused


class Endpoint:
    """One server: its load, and whether it may be asked now. `label` names it in texts, without userinfo."""

    def __init__(self, url: str) -> None:
        self.label = url
        self.url = f"{url}/chat/completions"
        self.in_flight = self.waiting = 0
        self._opens_at = self._closed_at = float("-inf")
        self._spread_s = 0.0
        self.named = False
        """Whether the moment at which it opens was named by the server."""
        self._limits = 0
        self.trouble = ""
        """What its last failure was."""
        self._failures = 0
        self._probes = 0
        self._probe_at: float | None = None

    @property
    def down(self) -> bool:
        """Whether there is an outage."""
        return self._probe_at is not None

    @property
    def known_down(self) -> bool:
        """Whether there is an outage that calls wait out by probes, and none is on its way: the last one failed."""
        return self.down and self.waiting > 0 and self.in_flight == 0

    def opens_in(self, now: float) -> float:
        """Seconds until a request may go; 0 now. During an outage: until the next probe."""
        return max(0.0, self._opens_at - now, (self._probe_at or now) - now)

    def pause_s(self, now: float) -> float:
        """How long to sleep before looking again, spread over the waiters so that they do not all come at once."""
        if self._opens_at > now:
            return self._opens_at - now + random.random() * self._spread_s
        return min(self.opens_in(now), random.uniform(0.5, 1) * POLL_S)

    def enter(self, now: float) -> None:
        """A request goes out; during an outage it is the probe, and the next one is a gap away."""
        self.in_flight += 1
        if self._probe_at is not None:
            self._probe_at = now + self._gap_s()
            self._probes += 1

    def leave(self) -> None:
        """A request has ended, however."""
        self.in_flight -= 1

    def is_up(self) -> None:
        """The server has answered."""
        if self._probe_at is not None:
            log.warning("%s answers again", self.label)
        self._limits = self._failures = self._probes = 0
        self._probe_at = None

    def is_busy(self, sent_at: float, retry_after_s: float | None) -> None:
        """The server asks for patience; without saying for how long, the pauses of all grow while no reply comes."""
        now = time.monotonic()
        if self._probe_at is not None:
            self.is_up()
        if retry_after_s is not None:
            self._close(now, retry_after_s, min(1.0, 0.1 * retry_after_s), named=True)
        elif sent_at >= self._closed_at:  # else: one more voice of a wave that has been heard
            self._limits += 1
            if self._limits > 1:
                # A single refusal amid replies is that call's own affair: closing for it would stop everybody.
                pause_s = min(_BUSIEST_S, _BUSY_S * 2.0 ** min(self._limits - 2, 20))
                self._close(now, pause_s * random.uniform(0.5, 1), 0.5 * pause_s, named=False)

    def is_failing(self, reason: str, *, connected: bool) -> None:
        """The server broke off or failed. A refused connection is an outage at once, other failures are in a row."""
        now = time.monotonic()
        self._failures += 1
        self.trouble = reason
        if self._probe_at is not None:
            self._probe_at = max(self._probe_at, now + self._gap_s() / 2)
        elif not connected or self._failures >= max(DOWN_AFTER, self.in_flight / 2):
            self._probe_at = now + self._gap_s()
            self.named = False
            log.warning("%s is down (%s); waiting, with a probe every few seconds", self.label, reason)

    def _gap_s(self) -> float:
        return PROBE_GAPS_S[min(self._probes, len(PROBE_GAPS_S) - 1)] * random.uniform(0.9, 1)

    def _close(self, now: float, wait_s: float, spread_s: float, *, named: bool) -> None:
        self._closed_at = now
        if now + wait_s <= self._opens_at:
            return
        if wait_s >= NOTED_PARK_S and now + wait_s > self._opens_at + 1:
            until = time.strftime("%H:%M:%S", time.localtime(time.time() + min(wait_s, 10 * LONGEST_PARK_S)))
            log.warning("%s asks to be left alone for %.0f s: waiting until %s", self.label, wait_s, until)
        self._opens_at, self._spread_s, self.named = now + wait_s, spread_s, named


def _worn_out(endpoint: Endpoint, patience: Patience) -> ModelError:
    waited = f"for more than deadline_s = {patience.deadline_s:g} s"
    if endpoint.down:
        return ModelError(
            "connection", f"{endpoint.label} has been down {waited} ({endpoint.trouble}); is the server running?"
        )
    return ModelError("rate_limited", f"{endpoint.label} has answered 429 {waited}; lower the run's concurrency")


_ENDPOINTS: weakref.WeakValueDictionary[str, Endpoint] = weakref.WeakValueDictionary()


def endpoint_at(url: str) -> Endpoint:
    """The process's one Endpoint of this URL: a limit met by one model holds for the others too."""
    endpoint = _ENDPOINTS.get(url)
    if endpoint is None:
        endpoint = _ENDPOINTS[url] = Endpoint(url)
    return endpoint


class EndpointPool:
    """Balances new chains by load; a chain stays where its beginning is cached, as long as that endpoint is open."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = tuple(endpoints)
        self._homes: OrderedDict[bytes, Endpoint] = OrderedDict()
        self._chains = dict.fromkeys(self._endpoints, 0)

    @property
    def several(self) -> bool:
        """Whether chains matter at all."""
        return len(self._endpoints) > 1

    async def admit(self, chain: bytes, patience: Patience) -> Endpoint:
        """Wait until a request of the chain may go, and enter it at the endpoint returned; the caller leaves it.

        Raises:
            EndpointParked: every endpoint asks to be left alone for more than a day.
            ModelError: code "connection": the outage outlasts the call's patience.
            NotTriedAgain: the run was told to stop meanwhile.
        """
        while True:
            now = time.monotonic()
            endpoint = self._choose(chain, now) if self.several else self._endpoints[0]
            wait_s = endpoint.opens_in(now)
            if wait_s <= 0:
                endpoint.enter(now)
                return endpoint
            if wait_s > LONGEST_PARK_S:
                cure = "resume the run after that time, or set another base_url"
                raise EndpointParked(f"{endpoint.label} asks to be left alone for {wait_s / 3600:.1f} hours; {cure}")
            endpoint.waiting += 1
            try:
                await patience.wait(endpoint.pause_s(now), named=endpoint.named)
            finally:
                endpoint.waiting -= 1
            if patience.left_s <= (PROBE_S if endpoint.down else 0):
                raise _worn_out(endpoint, patience)

    def _choose(self, chain: bytes, now: float) -> Endpoint:
        home = self._homes.get(chain)
        if home is not None:
            self._homes.move_to_end(chain)
            if not home.down and home.opens_in(now) <= MOVE_AFTER_S:
                return home
        # A home that is closed is left for another that is open; where none is, the soonest to open.
        broken = home if home is not None and home.down else None
        best = min(self._endpoints, key=lambda each: (each.opens_in(now), each is broken, self._load(each)))
        if best is not home and (home is None or best.opens_in(now) <= 0):
            self._settle(chain, best, home)
        return best

    def _load(self, endpoint: Endpoint) -> tuple[int, int]:
        return endpoint.in_flight, self._chains[endpoint]

    def _settle(self, chain: bytes, endpoint: Endpoint, home: Endpoint | None) -> None:
        if home is not None:
            self._chains[home] -= 1
        self._homes[chain] = endpoint
        self._chains[endpoint] += 1
        if len(self._homes) > HOMES:
            self._chains[self._homes.popitem(last=False)[1]] -= 1
