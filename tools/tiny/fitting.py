"""One step of training an embedded model: the loss of a batch, and the optimizers that follow it.

Knows nothing of stages; `recipe` calls it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from tools.tiny import batches, model

if TYPE_CHECKING:
    from collections.abc import Sequence

RATIO = 5.0
"""Muon's learning rate over AdamW's."""
_LOOKING = re.compile(r"language_model\.layers\.0\.self_attn\.[qk]_proj\.")
_UNSEEN = np.float32(-1e9)


def prepare(net: Any) -> None:
    """Let `net` use plain matrix products for attention: for sequences this short faster on a CPU than the fused one.

    The masks then hold numbers that are added to the scores, which `forward` takes care of.
    """
    net.model.vision_tower.set_attn_implementation("eager")
    net.model.language_model.set_attn_implementation("eager")


def optimizers(net: Any) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for all else (embeddings, patches, norms, biases).

    What the first layer of the language model attends to is left to AdamW as well: two heads of it are set at the start
    (`model._look_back`), and Muon, which moves a matrix in all directions alike, wears them away before they are used.
    """
    inner: list[torch.nn.Parameter] = []
    outer: list[torch.nn.Parameter] = []
    for name, weights in net.named_parameters():
        matrix = weights.ndim == 2 and (".layers." in name or ".multi_modal_projector." in name)
        (inner if matrix and not _LOOKING.search(name) else outer).append(weights)
    return [
        torch.optim.Muon(inner, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, betas=(0.9, 0.98), weight_decay=0.02, fused=True),
    ]


def set_rate(found: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Set the learning rate of AdamW to `rate` and that of Muon to `RATIO` times as much."""
    for optimizer in found:
        for group in optimizer.param_groups:
            group["lr"] = rate * (RATIO if isinstance(optimizer, torch.optim.Muon) else 1.0)


def _pictures(inner: Any, pixels: torch.Tensor) -> torch.Tensor:
    """(b, 78, width): the image tokens of pictures (b, 3, 84, 84).

    The whole picture and its one tile are the same 84 x 84 pixels here, so the vision tower runs once for both; the
    result is that of the model's own forward pass.
    """
    hidden = inner.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    patches: torch.Tensor = inner.multi_modal_projector(hidden)
    count, side = len(patches), model.SIDE // model.PATCH
    ends = inner.image_newline.to(patches.dtype).expand(count, side, 1, -1)
    tile = torch.cat([patches.view(count, side, side, -1), ends], dim=2).flatten(1, 2)
    return torch.cat([patches, tile], dim=1)


def forward(net: Any, batch: batches.Batch, alike: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss over the reply tokens (weighed as `recipe.Stage.alike` says), and the share of them that came first."""
    inner = net.model
    ids = torch.from_numpy(batch.ids)
    if batch.pixels is None:
        embedded = inner.language_model.embed_tokens(ids)
    else:
        words = inner.language_model.embed_tokens(ids[:, batches.IMAGE_TOKENS :])
        pictures = _pictures(inner, torch.from_numpy(batch.pixels))
        embedded = torch.cat([pictures, words.to(pictures.dtype)], dim=1)
    states = inner.language_model(
        inputs_embeds=embedded,
        attention_mask=torch.from_numpy(np.where(batch.mask, np.float32(0), _UNSEEN)),
        position_ids=torch.from_numpy(batch.positions),
        use_cache=False,
    ).last_hidden_state
    labels = torch.from_numpy(batch.labels)[:, 1:]
    told = labels != -100
    scores = net.lm_head(states[:, :-1][told]).float()
    right = (scores.argmax(-1) == labels[told]).float().mean()
    losses = functional.cross_entropy(scores, labels[told], reduction="none")
    weights = torch.from_numpy(batch.weights)[:, 1:][told] if alike else torch.ones_like(losses)
    return (losses * weights).sum() / weights.sum(), right


def update(
    net: Any, found: Sequence[torch.optim.Optimizer], batch: batches.Batch, alike: bool = False
) -> tuple[float, float]:
    """One step of the optimizers; the loss and the share of reply tokens that were right."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, right = forward(net, batch, alike)
    for optimizer in found:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    for optimizer in found:
        optimizer.step()
    return float(loss.detach()), float(right)
