"""How a model server works: slots that each prefill and decode one sequence, and a cache of prefixes.

The same code runs under the server's clock and under a simulated one, so the ideal schedule is of this very server.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.speed.work import node

Nodes = list[tuple[int, int]]


class Clock(Protocol):
    """What of an event loop the service needs; times in seconds."""

    def time(self) -> float:
        """Now."""

    def call_at(self, when: float, callback: Callable[..., object], *arguments: object) -> object:
        """Call something at a time."""


@dataclass(frozen=True)
class Rates:
    """`slots` sequences at once, each with `prefill` and `decode` tokens per second; `cache` tokens of prefixes."""

    slots: int = 64
    prefill: float = 20_000.0
    decode: float = 320.0
    cache: int = 500_000


class PrefixCache:
    """Prefixes by their key, the least recently used leave first; the beginning of one never leaves before its end."""

    def __init__(self, tokens: int) -> None:
        self._room = tokens
        self._held: OrderedDict[int, int] = OrderedDict()

    def missing(self, nodes: Nodes) -> int:
        """The tokens that have to be computed, at least one."""
        held, at = self._held, 0
        while at < len(nodes) and nodes[at][0] in held:
            at += 1
        self._touch(nodes[:at])
        return max(1, sum(tokens for _, tokens in nodes[at:]))

    def add(self, nodes: Nodes) -> None:
        """Hold a prompt with all its prefixes."""
        for key, tokens in nodes:
            if key not in self._held:
                self._held[key] = tokens
                self._room -= tokens
        self._touch(nodes)
        while self._room < 0 and self._held:
            self._room += self._held.popitem(last=False)[1]

    def _touch(self, nodes: Nodes) -> None:
        for key, _ in reversed(nodes):
            if key in self._held:
                self._held.move_to_end(key)


@dataclass(eq=False, slots=True)
class Sequence:
    """One reply that is drawn. `prefilled` is called once its prompt is in the cache, `done` at its end."""

    nodes: Nodes
    text: str
    done: Callable[[], object]
    prefilled: Callable[[], object] | None = None


@dataclass
class Counts:
    """Sums over all sequences; seconds are of slots."""

    prompt: int = 0
    uncached: int = 0
    busy_s: float = 0.0
    sequences: int = 0


@dataclass
class Service:
    """The slots. A sequence that finds none waits, first in, first out."""

    clock: Clock
    rates: Rates
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self._cache = PrefixCache(self.rates.cache)
        self._idle = self.rates.slots
        self._waiting: deque[Sequence] = deque()

    def submit(self, sequence: Sequence, *, first: bool = False) -> None:
        """Serve a sequence; `first`, before all that wait."""
        if self._idle:
            self._idle -= 1
            self._start(sequence, self.clock.time())
        elif first:
            self._waiting.appendleft(sequence)
        else:
            self._waiting.append(sequence)

    def draw(self, nodes: Nodes, texts: list[str], done: Callable[[], object]) -> None:
        """Serve one request for several replies: one of them prefills, the others follow."""
        left = len(texts)

        def ended() -> None:
            nonlocal left
            left -= 1
            if not left:
                done()

        def follow() -> None:
            for text in texts[1:]:
                self.submit(Sequence(nodes, text, ended), first=True)

        self.submit(Sequence(nodes, texts[0], ended, follow))

    def _start(self, sequence: Sequence, at: float) -> None:
        """Begin at a time that may be a little ago: a late timer of this process costs no slot its time."""
        counts, rates = self.counts, self.rates
        missing = self._cache.missing(sequence.nodes)
        counts.sequences += 1
        counts.prompt += sum(tokens for _, tokens in sequence.nodes)
        counts.uncached += missing
        prefilled = at + missing / rates.prefill
        end = prefilled + (4 + len(sequence.text) // 4) / rates.decode
        counts.busy_s += end - at
        self.clock.call_at(prefilled, self._prefilled, sequence)
        self.clock.call_at(end, self._done, sequence, end)

    def _prefilled(self, sequence: Sequence) -> None:
        self._cache.add(sequence.nodes)
        if sequence.prefilled is not None:
            sequence.prefilled()

    def _done(self, sequence: Sequence, end: float) -> None:
        self._cache.add([*sequence.nodes, node(sequence.nodes[-1][0], "assistant", sequence.text)])
        if self._waiting:
            self._start(self._waiting.popleft(), end)
        else:
            self._idle += 1
        sequence.done()
