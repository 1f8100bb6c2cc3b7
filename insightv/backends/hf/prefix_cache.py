"""Kept key-value states, as a tree of prefixes: what two conversations have in common is kept once.

A place in the tree is a list of token keys (token ids, with image tokens replaced by numbers made from the image), a
node holds the states of its part of that list. Least recently used leaves go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch


@dataclass(eq=False)
class Node:
    """The tokens between two branchings and their states, [layers, 2, heads, tokens, width]."""

    keys: list[int]
    states: torch.Tensor
    parent: Node | None
    children: dict[int, Node] = field(default_factory=dict)


class KeptStates:
    """States of past conversations, at most `limit` bytes of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._roots: dict[int, Node] = {}
        # A node is moved to the end after its descendants, so the first of the order is always a leaf.
        self._order: OrderedDict[int, Node] = OrderedDict()

    def find(self, keys: Sequence[int]) -> list[tuple[Node, int]]:
        """The longest kept beginning of `keys`, as nodes from the root and how many tokens of each are meant."""
        found: list[tuple[Node, int]] = []
        children, at = self._roots, 0
        while at < len(keys) and (node := children.get(keys[at])) is not None:
            n = _common(node.keys, keys, at)
            found.append((node, n))
            if n < len(node.keys):
                break
            children, at = node.children, at + n
        for node, _ in reversed(found):
            self._order.move_to_end(id(node))
        return found

    def missing(self, keys: Sequence[int]) -> int:
        """From which token on the states of `keys` are not kept (len(keys) where all are)."""
        return sum(n for _, n in self.find(keys))

    def keep(self, keys: Sequence[int], start: int, states: torch.Tensor) -> None:
        """Keep `states` of the tokens `keys[start:]`; `start` is what `missing` has just said. The tensor is owned."""
        if start >= len(keys) or states.nbytes > self.limit:
            return
        found = self.find(keys[:start])
        parent = found[-1][0] if found else None
        if parent is not None and found[-1][1] < len(parent.keys):
            parent = self._split(parent, found[-1][1])
        node = Node(list(keys[start:]), states, parent)
        (parent.children if parent is not None else self._roots)[keys[start]] = node
        self._enter(node)
        above: Node | None = parent
        while above is not None:
            self._order.move_to_end(id(above))
            above = above.parent
        while self.bytes > self.limit:
            self._drop(next(iter(self._order.values())))

    def clear(self) -> None:
        """Let go of everything."""
        self._roots.clear()
        self._order.clear()
        self.bytes = 0

    def _enter(self, node: Node) -> None:
        self._order[id(node)] = node
        self.bytes += node.states.nbytes

    def _drop(self, node: Node) -> None:
        del self._order[id(node)]
        self.bytes -= node.states.nbytes
        siblings = node.parent.children if node.parent is not None else self._roots
        del siblings[node.keys[0]]

    def _split(self, node: Node, n: int) -> Node:
        """Make a node of the first `n` tokens of `node`, which keeps the rest and becomes its child."""
        upper = Node(node.keys[:n], node.states[..., :n, :].clone(), node.parent)
        siblings = node.parent.children if node.parent is not None else self._roots
        siblings[upper.keys[0]] = upper
        self.bytes -= node.states.nbytes
        node.keys, node.states, node.parent = node.keys[n:], node.states[..., n:, :].clone(), upper
        self.bytes += node.states.nbytes
        upper.children[node.keys[0]] = node
        self._enter(upper)
        return upper


def _common(kept: list[int], keys: Sequence[int], at: int) -> int:
    n = min(len(kept), len(keys) - at)
    if kept[:n] == list(keys[at : at + n]):
        return n
    return next(i for i in range(n) if kept[i] != keys[at + i])
