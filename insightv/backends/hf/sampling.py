"""Drawing the next token of every row: each row with its own temperature, top_p and stream of random numbers.

What a row draws is a function of its logits and its own numbers alone, so it does not matter which rows are beside it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from insightv.records import Sampling, seed_of

GREEDY_BELOW = 1e-4
_HEAD = 64


class Draws:
    """One row's way of choosing: greedy where the temperature is (nearly) 0, else by inverse transform."""

    def __init__(self, sampling: Sampling, index: int) -> None:
        self.temperature = sampling.temperature
        self.top_p = sampling.top_p
        self._random = random.Random(seed_of(sampling.seed, index))

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature < GREEDY_BELOW

    def next(self) -> float:
        """The next number on [0, 1); one is used up per drawn token."""
        return 0.0 if self.greedy else self._random.random()


def draw(logits: torch.Tensor, rows: Sequence[Draws]) -> list[int]:
    """The next token of each row, -1 where its logits (rows x vocabulary) are not finite numbers."""
    logits = logits.float()
    best = logits.max(-1)
    tokens = best.indices
    chosen = [i for i, row in enumerate(rows) if not row.greedy]
    for part, nucleus in ((_where(chosen, rows, True), True), (_where(chosen, rows, False), False)):
        if part:
            index = torch.tensor(part, device=logits.device)
            scale = torch.tensor([rows[i].temperature for i in part], device=logits.device)
            numbers = torch.tensor([rows[i].next() for i in part], device=logits.device)
            some = logits if len(part) == len(rows) else logits[index]
            probs = torch.softmax(some / scale[:, None], -1)
            if nucleus:
                top_p = torch.tensor([rows[i].top_p for i in part], device=logits.device)
                tokens[index] = _from_nucleus(probs, top_p, numbers)
            else:
                tokens[index] = _at(probs.cumsum(-1), numbers)
    bad = ~torch.isfinite(best.values)
    return torch.where(bad, -1, tokens).tolist()


def _where(chosen: list[int], rows: Sequence[Draws], nucleus: bool) -> list[int]:
    return [i for i in chosen if (rows[i].top_p < 1) is nucleus]


def _at(cumulative: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    reached = (cumulative <= numbers[:, None] * cumulative[:, -1:]).sum(-1)
    return reached.clamp_(max=cumulative.shape[-1] - 1)


def _from_nucleus(probs: torch.Tensor, top_p: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    size = min(_HEAD, probs.shape[-1])
    sorted_probs, order = probs.topk(size, -1)
    if size < probs.shape[-1] and bool((sorted_probs.sum(-1) < top_p).any()):
        sorted_probs, order = probs.sort(-1, descending=True)
    before = sorted_probs.cumsum(-1) - sorted_probs
    kept = sorted_probs.masked_fill(before >= top_p[:, None], 0)
    kept[:, 0] = sorted_probs[:, 0]
    return order.gather(-1, _at(kept.cumsum(-1), numbers)[:, None])[:, 0]
