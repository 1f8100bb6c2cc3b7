"""The tree of kept states, and the drawing of tokens."""

from __future__ import annotations

import math
import random

import torch

from insightv.backends.hf.prefix_cache import KeptStates
from insightv.backends.hf.sampling import Draws, draw
from insightv.records import Sampling


def states(keys: list[int]) -> torch.Tensor:
    """States that say which token they belong to: [layers 1, 2, heads 1, tokens, width 1]."""
    return torch.tensor(keys, dtype=torch.float32).view(1, 1, 1, -1, 1).expand(1, 2, 1, -1, 1).clone()


def keep(kept: KeptStates, keys: list[int]) -> None:
    start = kept.missing(keys)
    kept.keep(keys, start, states(keys[start:]))


def read(kept: KeptStates, keys: list[int]) -> list[int]:
    return [int(x) for node, n in kept.find(keys) for x in node.states[0, 0, 0, :n, 0]]


def test_what_is_found_is_the_longest_common_beginning() -> None:
    rng = random.Random(3)
    kept = KeptStates(10**9)
    known: list[list[int]] = []
    for _ in range(300):
        base = rng.choice(known) if known and rng.random() < 0.8 else []
        keys = base[: rng.randrange(len(base) + 1)] + [rng.randrange(3) for _ in range(rng.randrange(1, 9))]
        keep(kept, keys)
        known.append(keys)
        probe = [rng.randrange(3) for _ in range(12)]
        longest = max(
            next((i for i, (a, b) in enumerate(zip(k, probe, strict=False)) if a != b), min(len(k), 12)) for k in known
        )
        assert read(kept, probe) == probe[:longest]
        assert read(kept, keys) == keys


def test_a_common_beginning_is_kept_once() -> None:
    kept = KeptStates(10**9)
    keep(kept, [1, 2, 3, 4])
    one = kept.bytes
    keep(kept, [1, 2, 3, 5])
    assert kept.bytes == one * 5 // 4
    keep(kept, [1, 2])
    assert kept.bytes == one * 5 // 4


def test_least_recently_used_leaves_go_first_and_the_limit_holds() -> None:
    size = states([0]).nbytes
    kept = KeptStates(6 * size)
    keep(kept, [1, 2, 3])
    keep(kept, [1, 2, 4])
    keep(kept, [7])
    assert read(kept, [1, 2, 3]) == [1, 2, 3]
    keep(kept, [8])
    keep(kept, [9])
    assert kept.bytes <= 6 * size
    assert read(kept, [1, 2, 4]) == [1, 2], "the leaf that was not used for longest is gone"
    assert read(kept, [1, 2, 3]) == [1, 2, 3]
    keep(kept, list(range(10, 30)))
    assert read(kept, [10]) == [], "what does not fit at all is not kept"
    for first in range(100):
        keep(kept, [first, first])
        assert kept.bytes <= 6 * size
    kept.clear()
    assert kept.bytes == 0
    assert read(kept, [99]) == []


def test_tokens_are_drawn_by_their_probabilities() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0, -1.0]])
    row = Draws(Sampling(temperature=1.0, top_p=1.0, seed=5), 0)
    found = torch.tensor(draw(logits.expand(4000, -1), [row] * 4000)).bincount(minlength=4) / 4000
    assert torch.allclose(found, logits[0].softmax(0), atol=0.03)
    narrow = Draws(Sampling(temperature=1.0, top_p=0.8, seed=5), 0)
    assert set(draw(logits.expand(500, -1), [narrow] * 500)) == {0, 1}
    one = Draws(Sampling(temperature=1.0, top_p=0.01, seed=5), 0)
    assert set(draw(logits.expand(50, -1), [one] * 50)) == {1}


def test_a_row_draws_the_same_in_any_company() -> None:
    torch.manual_seed(0)
    logits = torch.randn(9, 300) * 3
    samplings = [Sampling(temperature=t, top_p=p, seed=i) for i, (t, p) in enumerate([(0, 1), (1, 1), (2, 0.9)] * 3)]
    together = [Draws(s, 0) for s in samplings]
    alone = [Draws(s, 0) for s in samplings]
    for _ in range(20):
        expected = [draw(logits[i : i + 1], [row])[0] for i, row in enumerate(alone)]
        assert draw(logits, together) == expected


def test_a_flat_distribution_needs_more_than_the_first_tokens() -> None:
    row = Draws(Sampling(temperature=10, top_p=0.99, seed=1), 0)
    assert len(set(draw(torch.zeros(4000, 500), [row] * 4000))) > 400


def test_what_is_no_number_draws_nothing() -> None:
    logits = torch.tensor([[0.0, math.nan], [0.0, 1.0], [-math.inf, -math.inf], [0.0, math.inf]])
    assert draw(logits, [Draws(Sampling(temperature=t), 0) for t in (0.5, 0, 0.5, 1)]) == [-1, 1, -1, -1]
