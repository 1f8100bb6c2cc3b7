"""A vision-language model that reads packed pairs: prompt and pictures once, behind them both replies.

The replies do not see each other and both count their positions from where they part, so the model cannot tell a
packed pair from its two sequences. `not_shared` says for which models that is not so, or not proven by a test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from insightv.train.finetune.models import vision_tower
from insightv.train.finetune.pair_batch import CHOSEN, PADDING, REJECTED, SHARED

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROVEN = ("llava_next", "qwen2_5_vl")
"""Architectures whose losses, log-probabilities and gradients a test compares with those of plain TRL."""


def not_shared(model: PreTrainedModel) -> str | None:
    """Why the replies of a pair cannot share their prompt in this model; None where they can."""
    config: Any = model.config
    text = config.get_text_config()
    if config.model_type not in PROVEN:
        return f"it is not proven for the architecture {config.model_type}"
    kinds = getattr(text, "layer_types", None)
    if kinds is None:
        kinds = ["sliding_attention" if getattr(text, "sliding_window", None) else "full_attention"]
    if set(kinds) != {"full_attention"}:
        return "its text model has layers with other than full attention"
    if any(getattr(part, "attention_dropout", 0) for part in (text, getattr(config, "vision_config", None))):
        return "it drops attention at random while it is trained"
    if text._attn_implementation not in ("sdpa", "eager"):
        return f"attention {text._attn_implementation} takes no mask of its own"
    return None


def read_packed(model: PreTrainedModel) -> None:
    """Let `model` take batches of `PairCollator`: its backbone then gives the hidden states of the replies.

    The backbone (the model without its head) is what TRL's head is laid on: it returns (2 n, 1 + longest reply, width).
    """
    backbone: Any = model.base_model
    plain = backbone.forward

    def forward(*args: Any, packed: dict[str, Tensor] | None = None, **kwargs: Any) -> Any:
        if packed is None:
            return plain(*args, **kwargs)
        text = backbone.config.get_text_config()
        kwargs["input_ids"] = packed["input_ids"]
        kwargs["attention_mask"] = tree_mask(
            packed["part"], None if text._attn_implementation == "sdpa" else model.dtype
        )
        kwargs["position_ids"] = _positions(backbone, packed, kwargs)
        made = plain(*args, **kwargs)
        made.last_hidden_state = _of_replies(made.last_hidden_state, packed["places"])
        return made

    backbone.forward = forward


class SharedTower:
    """What the frozen vision tower made of a batch, from the reference's pass to the policy's.

    Lies on the towers of both (one and the same where the reference is an adapter). A tower of which anything is
    trained is left as it is, and so are two that differ.
    """

    def __init__(self) -> None:
        self._held: tuple[list[Tensor], Any] | None = None

    def lay_on(self, policy: PreTrainedModel, reference: PreTrainedModel | None) -> bool:
        """Whether it could be laid on the towers of both."""
        towers = [model.get_submodule(vision_tower(model)) for model in (policy, reference) if model is not None]
        frozen = not any(weight.requires_grad for weight in towers[0].parameters())
        if not frozen or not _equal(towers[0], towers[-1]):
            return False
        for tower in towers:
            self._remember(tower)
        return True

    def _remember(self, tower: Any) -> None:
        plain = tower.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            held, self._held = self._held, None
            if held is not None and len(held[0]) == len(given) and all(map(torch.equal, held[0], given)):
                return held[1]
            with torch.no_grad():
                made = plain(*args, **kwargs)
            if not torch.is_grad_enabled():  # the reference's pass, which comes first
                self._held = given, type(made)(**made)  # a copy: what is returned is written to
            return made

        tower.forward = forward


def _equal(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(weight.equal(theirs[name].to(weight.device)) for name, weight in one.state_dict().items())


def tree_mask(part: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Which tokens (n, 1, length, length) each token sees: those before it in its own part and in the shared one.

    As truth values, or with a `dtype` as what is added to the attention's logits. Padding sees itself, so that it has a
    softmax; nothing else sees it.
    """
    length = part.shape[1]
    ahead = torch.ones(length, length, dtype=torch.bool, device=part.device).tril()
    seen = (part[:, :, None] == part[:, None, :]) | (part == SHARED)[:, None, :]
    seen = (seen & ahead)[:, None]
    if dtype is None:
        return seen
    return torch.zeros(seen.shape, dtype=dtype, device=part.device).masked_fill(~seen, torch.finfo(dtype).min)


def _positions(backbone: Any, packed: dict[str, Tensor], kwargs: dict[str, Any]) -> Tensor:
    """Positions (n, length), or (3, n, length) where the model counts in three; the rejected reply's stepped back."""
    part, ids = packed["part"], packed["input_ids"]
    kinds = packed.get("mm_token_type_ids")
    if kinds is not None:
        grids = kwargs.get("image_grid_thw")
        place: Tensor = backbone.get_rope_index(ids, kinds, grids, attention_mask=part != PADDING)[0]
    else:
        place = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    chosen = (part == CHOSEN).sum(1, keepdim=True)
    return place - chosen * (part == REJECTED)


def _of_replies(hidden: Tensor, places: Tensor) -> Tensor:
    pairs, length, width = hidden.shape
    row = torch.arange(len(places), device=places.device) % pairs
    flat = (row[:, None] * length + places).flatten()
    return hidden.reshape(-1, width).index_select(0, flat).view(*places.shape, width)
