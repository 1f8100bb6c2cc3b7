"""The ideal schedule, simulated: a client without any time of its own, on the benchmark's very server.

Depth first by question; one path of a question leads, and the others follow when its prompt is in the cache; equal
answers are checked once; at most as many requests as slots.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from benchmarks.speed import conversations as talk
from benchmarks.speed.service import Rates, Sequence, Service
from benchmarks.speed.work import (
    PATHS,
    answer_of,
    final_text,
    nodes_of,
    scores_text,
    step_text,
    steps_of,
    verdict_text,
)


class SimulatedClock:
    """A clock that goes on to the next event at once."""

    def __init__(self) -> None:
        self._now = 0.0
        self._order = count()
        self._events: list[tuple[float, int, Callable[..., object], tuple[object, ...]]] = []

    def time(self) -> float:
        """Now, in seconds from the beginning."""
        return self._now

    def call_at(self, when: float, callback: Callable[..., object], *arguments: object) -> None:
        """Call something at a time."""
        heapq.heappush(self._events, (when, next(self._order), callback, arguments))

    def run(self) -> None:
        """Go through all events."""
        while self._events:
            self._now, _, callback, arguments = heapq.heappop(self._events)
            callback(*arguments)


@dataclass(frozen=True)
class Ideal:
    """What the simulated schedule comes to; `bound_s` is the total service over the slots."""

    makespan_s: float
    bound_s: float
    uncached: int
    sequences: int


class _Client:
    """Requests by the number of their question, as many at a time as there are slots."""

    def __init__(self, service: Service, questions: int) -> None:
        self._service = service
        self._free = service.rates.slots
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._next = 0
        self._questions = questions
        self._fill()

    def ask(
        self,
        item: int,
        messages: list[talk.Message],
        text: str,
        then: Callable[[], object],
        prefilled: Callable[[], object] | None = None,
    ) -> None:
        """Ask for one reply."""

        def done() -> None:
            self._free += 1
            then()
            self._fill()

        def begin() -> None:
            self._service.submit(Sequence(nodes_of(messages), text, done, prefilled))

        heapq.heappush(self._waiting, (item, next(self._order), begin))
        self._fill()

    def _fill(self) -> None:
        while self._free:
            if self._waiting:
                self._free -= 1
                heapq.heappop(self._waiting)[2]()
            elif self._next < self._questions:
                self._next += 1
                _Question(self, self._next - 1).begin()
            else:
                return


class _Question:
    """One question's calls in their order."""

    def __init__(self, client: _Client, item: int) -> None:
        self._client, self._item = client, item
        self._left = PATHS
        self._asked = talk.asked(item)

    def begin(self) -> None:
        """Let the first path lead."""

        def follow() -> None:
            for way in range(1, PATHS):
                self._step(way, [talk.SYSTEM, self._asked], 0)

        self._step(0, [talk.SYSTEM, self._asked], 0, follow)

    def _step(
        self, way: int, messages: list[talk.Message], step: int, prefilled: Callable[[], object] | None = None
    ) -> None:
        text = step_text(self._item, way, step)

        def then() -> None:
            longer = [*messages, talk.said(text)]
            if step + 1 < steps_of(self._item, way):
                self._step(way, [*longer, talk.NEXT], step + 1)
            else:
                self._client.ask(self._item, [*longer, talk.FINAL], final_text(self._item, way), self._path_done)

        self._client.ask(self._item, messages, text, then, prefilled)

    def _path_done(self) -> None:
        self._left -= 1
        if self._left:
            return
        answers = list(dict.fromkeys(answer_of(self._item, way) for way in range(PATHS)))
        self._left = len(answers)
        for given in answers:
            messages = [talk.CHECK_SYSTEM, talk.check(self._item, given)]
            self._client.ask(self._item, messages, verdict_text(self._item, given), self._checked)

    def _checked(self) -> None:
        self._left -= 1
        ways = talk.accepted(self._item, [answer_of(self._item, way) for way in range(PATHS)])
        if self._left or not ways:
            return
        text = talk.grade(self._item, [(self._steps(way), answer_of(self._item, way)) for way in ways])
        messages = [talk.GRADE_SYSTEM, talk.asked(self._item, text)]
        self._client.ask(self._item, messages, scores_text(self._item, len(ways)), lambda: None)

    def _steps(self, way: int) -> list[tuple[str, str]]:
        forms = [json.loads(step_text(self._item, way, step)) for step in range(steps_of(self._item, way))]
        return [(form["title"], form["content"]) for form in forms]


def ideal(questions: int, rates: Rates) -> Ideal:
    """Simulate the schedule."""
    clock = SimulatedClock()
    service = Service(clock, rates)
    _Client(service, questions)
    clock.run()
    counts = service.counts
    return Ideal(clock.time(), counts.busy_s / rates.slots, counts.uncached, counts.sequences)
