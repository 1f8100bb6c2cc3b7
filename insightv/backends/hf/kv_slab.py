"""The running rows' key-value states in one preallocated tensor, and a step of the model over them.

Row r has its states left-aligned in slot r; a step writes each row's new states behind its own last ones, so rows of
any length run side by side, and joining or leaving is the copy of one slot. The model sees explicit positions and a
mask of (rows, 1, new tokens, states).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import Cache, DynamicLayer, PreTrainedModel

_GRAIN = 256


class Slab(Cache):
    """A cache of transformers for rows of different lengths. Memory grows with need, up to rows x `context`."""

    def __init__(self, layers: int, context: int) -> None:
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self._depth = layers
        self._context = context
        self._size = (0, 0)
        self.states: torch.Tensor | None = None  # [layers, 2, slots, heads, tokens, width]
        self._rows = torch.empty(0)
        self._at = torch.empty(0)
        self._slots: slice | torch.Tensor = slice(0, 0)
        self._until = 0

    def reserve(self, rows: int, tokens: int) -> None:
        """Make room for `rows` slots of `tokens`; what is in the slots stays."""
        slots, length = self._size
        if rows <= slots and tokens <= length:
            return
        if rows > slots:
            slots = max(rows, 2 * slots)
        if tokens > length:
            length = min(max(-(-tokens // _GRAIN) * _GRAIN, length), max(self._context, tokens))
        self._size = (slots, length)
        if (old := self.states) is not None:
            self.states = old.new_zeros(*old.shape[:2], slots, old.shape[3], length, old.shape[5])
            self.states[:, :, : old.shape[2], :, : old.shape[4]] = old

    def step(
        self,
        model: PreTrainedModel,
        slots: Sequence[int],
        tokens: Sequence[Sequence[int]],
        lengths: Sequence[int],
        extras: dict[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Run the tokens of each row behind its `lengths` states; the logits of the last column, [rows, vocabulary].

        Shorter rows are padded at the end; what that writes lies behind the row's states and is overwritten later.
        """
        width = max(map(len, tokens))
        self._until = max(lengths) + width
        self.reserve(max(slots) + 1, self._until)
        device = model.device
        ids = torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in tokens], device=device)
        at = torch.tensor(lengths, device=device)[:, None] + torch.arange(width, device=device)
        self._at, self._rows = at, torch.tensor(slots, device=device)[:, None]
        whole = list(slots) == list(range(slots[0], slots[0] + len(slots)))
        self._slots = slice(slots[0], slots[0] + len(slots)) if whole else self._rows[:, 0]
        visible = torch.arange(self._until, device=device) <= at[:, None, :, None]
        # As numbers, since a mask of booleans would be made into numbers again by every layer.
        mask = torch.zeros(visible.shape, dtype=model.dtype, device=device)
        mask.masked_fill_(~visible, torch.finfo(model.dtype).min)
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=at.clamp(max=self._context - 1),
            past_key_values=self,
            use_cache=True,
            logits_to_keep=1,
            **(extras or {}),
        )
        logits: torch.Tensor = output.logits
        return logits[:, -1]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Called by the model: write the new states of a layer, return all that the rows of this step have."""
        if self.states is None:
            shape = (self._depth, 2, self._size[0], key_states.shape[1], self._size[1], key_states.shape[3])
            self.states = key_states.new_zeros(shape)
        held: list[torch.Tensor] = []
        for kind, new in enumerate((key_states, value_states)):
            layer = self.states[layer_idx, kind]  # [slots, heads, tokens, width]
            layer.transpose(1, 2)[self._rows, self._at] = new.transpose(1, 2)
            held.append(layer[self._slots, :, : self._until])
        return held[0], held[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The states before this step, of the longest row."""
        return self._until - self._at.shape[-1] if self._until else 0

    def read(self, slot: int, start: int, end: int) -> torch.Tensor:
        """A copy of the states of tokens start..end of a slot, [layers, 2, heads, tokens, width]."""
        if self.states is None:
            raise ValueError("no states have been written yet")
        return self.states[:, :, slot, :, start:end].clone()

    def write(self, slot: int, start: int, states: torch.Tensor) -> None:
        """Copy `states` into a slot from token `start` on."""
        self.reserve(slot + 1, start + states.shape[3])
        if self.states is None:
            shape = (*states.shape[:2], self._size[0], states.shape[2], self._size[1], states.shape[4])
            self.states = states.new_zeros(shape)
        self.states[:, :, slot, :, start : start + states.shape[3]] = states

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy the first `tokens` states of one slot into another."""
        self.reserve(target + 1, tokens)
        if self.states is not None:
            self.states[:, :, target, :, :tokens] = self.states[:, :, source, :, :tokens]

    def release(self) -> None:
        """Give the memory back; the slots are empty afterwards."""
        self.states = None
        self._size = (0, 0)
