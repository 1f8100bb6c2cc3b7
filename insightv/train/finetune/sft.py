"""Supervised training of an agent, with TRL: loss on the completion only, vision tower frozen.

`fit` runs it in this process, `insightv.train.finetune.process` in one of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from insightv.backends.checkpoints import Checkpoint
from insightv.train.finetune.models import load_model, lora_config
from insightv.train.finetune.settings import Job
from insightv.train.finetune.trl_options import refused_by_trl

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin
    from trl.trainer.sft_trainer import SFTTrainer

    from insightv.train.finetune.recorder import Recorder


def sft_trainer(
    job: Job, data: Dataset, processor: ProcessorMixin, recorder: Recorder, found: Checkpoint | None
) -> tuple[SFTTrainer, str]:
    """The trainer, ready to continue from `found`, and the weights that its adapter lies on (or that it replaces)."""
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from insightv.train.finetune.recorder import options

    # transformers would look for the names of the file in the model and pass over those it does not find.
    whole = found.folder if found and job.settings.method == "full" else job.policy
    model = load_model(whole, job.settings)
    make: Any = SFTConfig
    with refused_by_trl():
        trainer = SFTTrainer(
            model,
            args=make(**options(job), packing=False, completion_only_loss=True),
            train_dataset=data,
            processing_class=processor,
            peft_config=lora_config(model, job.settings),
            callbacks=[recorder],
        )
    return trainer, job.policy
