"""Continuous batching with kept states: rows join and leave between tokens, and a chain computes nothing twice.

A row starts from the longest beginning of its tokens whose states are kept, computes the rest of its prompt but for the
last token, and then takes part in the running batch, where that token and all drawn ones are computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch

from insightv.backends.hf.kv_slab import Slab
from insightv.backends.hf.load import Loaded
from insightv.backends.hf.prefix_cache import KeptStates
from insightv.backends.hf.prompt import Prompter
from insightv.backends.hf.rows import Counts, Row
from insightv.backends.hf.sampling import draw

CHUNK = 2048
"""Most tokens (rows x width, padding counted) of one pass over prompts without pictures."""


class Chains:
    """The rows of one model, at most `batch` running. One thread only."""

    def __init__(self, loaded: Loaded, prompter: Prompter, kept: KeptStates, batch: int, counts: Counts) -> None:
        self.limit = batch
        self.waiting: deque[Row] = deque()
        self.counts = counts
        self._batch = batch
        self._loaded = loaded
        self._prompter = prompter
        self._kept = kept
        self._slab = Slab(loaded.layers, loaded.context)
        self._active: list[Row | None] = []
        self.touched: list[Row] = []

    @property
    def busy(self) -> bool:
        """Whether any row waits or runs."""
        return bool(self.waiting or self._active)

    @property
    def running(self) -> list[Row]:
        """The rows in the batch."""
        return [row for row in self._active if row is not None]

    def step(self) -> None:
        """Let rows leave and join, then compute one token of every running row."""
        self._leave()
        self._join()
        self._close_gaps()
        self._catch_up()
        if self._active:
            self._decode()

    def back_off(self) -> list[Row]:
        """Give all memory back and put the running rows back in the queue; returns them. What they drew stays drawn."""
        rows = self.running
        for row in reversed(rows):
            row.slot, row.length = None, 0
            self.waiting.appendleft(row)
        self._active.clear()
        self._slab.release()
        self._kept.clear()
        return rows

    def _leave(self) -> None:
        for slot, row in enumerate(self._active):
            if row is not None and row.over:
                self._keep(row)
                self._active[slot], row.slot = None, None
                self.limit = min(self._batch, self.limit + 1)

    def _join(self) -> None:
        while self.waiting and len(self.running) < self.limit:
            row = self.waiting.popleft()
            if row.over:
                continue
            if None not in self._active:
                self._active.append(None)
            slot = self._active.index(None)
            self._active[slot], row.slot = row, slot
            self._start(row, slot)

    def _start(self, row: Row, slot: int) -> None:
        self.touched = [row]
        request, whole = row.request, len(row.tokens) - 1
        twins = (r for r in request.rows if r.slot not in (None, slot) and r.length >= whole == row.start - 1)
        twin = next(twins, None)
        if twin is not None and twin.slot is not None:
            self._slab.move(twin.slot, slot, whole)
            row.length = whole
        else:
            row.length = self._load(row, slot, whole)
        if request.cached is None:
            request.cached = row.length
        self.counts.reused += row.length
        ahead = [i for i, (start, _) in enumerate(request.prompt.spans) if start >= row.length]
        if ahead:
            self._look(row, slot, ahead)
        elif request.n > 1:
            while row.length < whole:
                self._compute([row], min(CHUNK, whole - row.length))
            self._keep(row)

    def _load(self, row: Row, slot: int, whole: int) -> int:
        found = self._kept.find(row.keys[:whole])
        length = sum(n for _, n in found)
        length = next((start for start, end in row.request.prompt.spans if start < length < end), length)
        at = 0
        for node, n in found:
            n = min(n, length - at)
            if n > 0:
                self._slab.write(slot, at, node.states[..., :n, :])
                at += n
        return length

    def _look(self, row: Row, slot: int, ahead: Sequence[int]) -> None:
        pictures = row.request.prompt.pictures
        extras = self._loaded.placed(self._prompter.tensors([pictures[i] for i in ahead]))
        end = min(len(row.tokens) - 1, row.start)
        self._advance([row], [row.tokens[row.length : end]], extras)
        self._keep(row)

    def _catch_up(self) -> None:
        lagging = sorted((row for row in self.running if _lag(row)), key=_lag, reverse=True)
        if not lagging or _lag(lagging[0]) <= len(self._active) - len(lagging):
            return  # a few tokens are cheaper one by one beside the others' than in a pass of their own
        while lagging:
            width = min(_lag(lagging[0]), CHUNK)
            group = lagging[: max(1, CHUNK // width)]
            self._compute(group, width)
            for row in group:
                if not _lag(row):
                    self._keep(row)
            lagging = sorted((row for row in lagging if _lag(row)), key=_lag, reverse=True)

    def _compute(self, rows: list[Row], width: int) -> None:
        self._advance(rows, [row.tokens[row.length : min(row.length + width, len(row.tokens) - 1)] for row in rows])

    def _decode(self) -> None:
        rows = self.running
        logits = self._advance(rows, [[row.tokens[row.length]] for row in rows])
        ready = [i for i, row in enumerate(rows) if row.length == len(row.tokens)]
        if not ready:
            return
        if len(ready) < len(rows):
            logits, rows = logits[torch.tensor(ready, device=logits.device)], [rows[i] for i in ready]
        for row, token in zip(rows, draw(logits, [row.draws for row in rows]), strict=True):
            row.push(token)
            self.counts.drawn += 1

    def _advance(
        self, rows: list[Row], tokens: list[list[int]], extras: dict[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        self.touched = rows
        slots = [row.slot for row in rows if row.slot is not None]
        logits = self._slab.step(self._loaded.model, slots, tokens, [row.length for row in rows], extras)
        self.counts.forwards += 1
        for row, new in zip(rows, tokens, strict=True):
            self.counts.computed += max(0, min(row.length + len(new), row.start) - row.length)
            row.length += len(new)
        return logits

    def _keep(self, row: Row) -> None:
        if row.slot is not None and row.length:
            keys = row.keys[: row.length]
            start = self._kept.missing(keys)
            if start < len(keys):
                self._kept.keep(keys, start, self._slab.read(row.slot, start, len(keys)))

    def _close_gaps(self) -> None:
        while None in self._active:
            last = self._active.pop()
            if last is not None and last.slot is not None:
                slot = self._active.index(None)
                self._slab.move(last.slot, slot, last.length)
                self._active[slot], last.slot = last, slot


def _lag(row: Row) -> int:
    """Tokens to compute before the row can take part in drawing."""
    return max(0, len(row.tokens) - 1 - row.length)
