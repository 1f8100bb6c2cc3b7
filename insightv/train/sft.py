"""Supervised training of an agent, with TRL: loss on the completion only, vision tower frozen.

    train_agent("base", Path("runs/charts/datasets/reason"), Path("runs/charts/checkpoints/reasoning"), stage="reason")

Runs in this process; `insightv.train.child` runs it in one of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from insightv.train.checkpoints import Checkpoint
from insightv.train.fit import train
from insightv.train.models import load_model, lora_config
from insightv.train.settings import Job, TrainSettings, settings_of
from insightv.train.trl_options import refused_by_trl

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin
    from trl.trainer.sft_trainer import SFTTrainer

    from insightv.train.steps import Recorder


def train_agent(
    base: str | Path,
    data: Path,
    out: Path,
    *,
    stage: Literal["reason", "summary"] = "reason",
    settings: TrainSettings | None = None,
) -> Path:
    """Train the model `base` on the rows of `data` into the directory `out`; returns `out`. Raises as `fit.train`."""
    made = settings or settings_of(stage)
    return train(Job(stage=stage, policy=str(base), data=Path(data), out=Path(out), settings=made))


def sft_trainer(
    job: Job, data: Dataset, processor: ProcessorMixin, recorder: Recorder, found: Checkpoint | None
) -> tuple[SFTTrainer, str]:
    """The trainer, ready to go on from `found`, and the weights that its adapter lies on (or that it replaces)."""
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from insightv.train.steps import options

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
