"""TRL's DPO with less work for the same numbers: a pair's replies share one pass over their prompt and its pictures.

    trainer_for(model, args)(model, ref_model=..., args=..., train_dataset=..., processing_class=...)

Losses, figures, optimizer and checkpoints are TRL's. What is done less often: pictures are prepared and put through the
vision tower once per pair (not four times: two replies, policy and reference), the prompt goes through each model once,
only replies go through the head, and the reference, which is fixed in a round, reads each pair once in all epochs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from trl.trainer.dpo_trainer import DPOTrainer

from insightv.train.finetune.pair_batch import PairCollator
from insightv.train.finetune.pair_forward import SharedTower, not_shared, read_packed

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, TrainingArguments


def trainer_for(model: nn.Module, args: TrainingArguments) -> type[DPOTrainer]:
    """The trainer to train `model` with: `PairTrainer`, or TRL's own where its numbers could be others."""
    return DPOTrainer if why_plain(model, args) else PairTrainer


def why_plain(model: nn.Module, args: TrainingArguments) -> str | None:
    """Why `model` is trained with TRL's own trainer, or None."""
    if not getattr(args, "disable_dropout", False):
        return "trl.disable_dropout is off"
    return not_shared(plain(model))


class PairTrainer(DPOTrainer):
    """A DPOTrainer for models of which `not_shared` is None, and rows with a list of `images`."""

    def __init__(
        self, model: PreTrainedModel, ref_model: PreTrainedModel | None, *, processing_class: Any, **options: Any
    ) -> None:
        for one in (model, ref_model):
            if one is not None:
                read_packed(plain(one))
        super().__init__(
            model,
            ref_model,
            data_collator=PairCollator(processing_class),
            processing_class=processing_class,
            **options,
        )
        self.precompute_ref_logps = True  # to TRL: the batch says what the reference makes of it
        self._sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        self._told: dict[int, tuple[float, float]] = {}
        if not self._sharded:
            SharedTower().lay_on(plain(self.model), self.ref_model)

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        batch = {name: value for name, value in inputs.items() if name != "pair"}
        batch["ref_chosen_logps"], batch["ref_rejected_logps"] = self._reference(inputs["pair"], batch)
        loss: Any = super()._compute_loss
        return loss(model, batch, return_outputs)

    def _reference(self, pair: Tensor, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Log-probabilities (pairs) of the chosen and the rejected replies, remembered where the process is whole.

        Where weights are spread over processes every process must take part in every pass, so all are made anew.
        """
        known = [self._told.get(one) for one in pair.tolist()]
        if None not in known:
            chosen, rejected = torch.tensor(known, device=pair.device).unbind(1)
        else:
            ask: Any = self.compute_ref_log_probs
            chosen, rejected = ask(self.ref_model or self.model, batch)
        if not self._sharded:
            everyones = self.accelerator.gather((pair, chosen, rejected))
            pairs, better, worse = (one.tolist() for one in everyones)
            self._told.update(zip(pairs, zip(better, worse, strict=True), strict=True))
        return chosen, rejected


def plain(model: Any) -> PreTrainedModel:
    """The model below its adapters."""
    below: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    return below
