"""What both trainers share: TRL's options from the settings, and a recorder that makes every checkpoint whole.

The recorder marks a checkpoint after its last byte, drops older ones only then, and checks after resuming that the
steps and every trained weight are those of the checkpoint: transformers loads weights whose names it does not find
without a word, and would train on from the base.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from insightv.backends.checkpoints import Checkpoint, keep_last, mark
from insightv.errors import InsightvError
from insightv.strict_json import Json
from insightv.train.finetune.models import digest_of, trained_weights, uses_bf16
from insightv.train.finetune.settings import Job


def options(job: Job) -> dict[str, Any]:
    """The options of TRL's configurations that both kinds of training have."""
    s = job.settings
    return {
        "output_dir": str(job.work / "checkpoints"),
        "per_device_train_batch_size": s.batch_size,
        "gradient_accumulation_steps": s.accumulation,
        "num_train_epochs": s.epochs,
        "max_steps": s.max_steps or -1,
        "learning_rate": s.learning_rate,
        "lr_scheduler_type": s.schedule,
        "warmup_steps": s.warmup,
        "weight_decay": s.weight_decay,
        "max_grad_norm": s.max_grad_norm,
        "bf16": uses_bf16(s),
        "gradient_checkpointing": s.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if s.gradient_checkpointing else None,
        "logging_steps": s.log_steps,
        "save_strategy": "steps",
        "save_steps": s.save_steps,
        "save_total_limit": None,  # the recorder removes old checkpoints, once the new one is marked
        "seed": s.seed,
        "data_seed": s.seed,
        # Without an accelerator transformers refuses bf16 unless the CPU is named.
        "use_cpu": s.device == "cpu" or not torch.accelerator.is_available(),
        "max_length": None,  # TRL's default would cut every row at 1024 tokens; the preflight has checked the lengths
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **s.trl,
    }


def took_all(found: Checkpoint | None) -> bool:
    """Whether a checkpoint is that of the last step: of a training that ended before its result was in place."""
    if found is None:
        return False
    state: TrainerState = TrainerState.load_from_json(str(found.folder / TRAINER_STATE_NAME))
    return state.global_step >= state.max_steps


class Recorder(TrainerCallback):
    """Makes checkpoints whole, and checks what is resumed. `trainer` is set before the first step."""

    def __init__(self, job: Job, resumed: Checkpoint | None) -> None:
        self.trainer: Any = None
        self._job = job
        self._resumed = resumed
        self._before: Json = resumed.facts.get("before") if resumed else None
        """The digest of the weights before the first step of all; None where no process holds them whole."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that the steps continue where the checkpoint ended, with its weights.

        Raises:
            InsightvError: they do not.
        """
        if self._resumed is None:
            self._before = None if self._sharded else digest_of(self.trainer.model)
            return
        weights = self._resumed.facts.get("weights")
        if state.global_step != self._resumed.step:
            raise InsightvError(
                f"training would continue from step {state.global_step}, not {self._resumed.step} as in "
                f"{str(self._resumed.folder)!r}; nothing was trained"
            )
        if weights is not None and not self._sharded and digest_of(self.trainer.model) != weights:
            raise InsightvError(
                f"the weights after loading {str(self._resumed.folder)!r} are not those that were saved; remove that "
                "folder to continue from the one before"
            )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint that was just written, and drop older ones."""
        self.trainer.accelerator.wait_for_everyone()
        if not state.is_world_process_zero:
            return
        folder = Path(str(args.output_dir))
        weights = None if self._sharded else digest_of(self.trainer.model)
        place = folder / f"checkpoint-{state.global_step}"
        mark(place, step=state.global_step, weights=weights, before=self._before)
        keep_last(folder, self._job.settings.keep_checkpoints)

    def take_last(self) -> Path:
        """Load the resumed checkpoint, whose step is the last of all, in place of training; returns its folder.

        transformers would take one step more before it looks at how many there are to be.

        Raises:
            InsightvError: as `on_train_begin` and `check_moved`.
        """
        if self._resumed is None:
            raise ValueError("nothing is resumed")
        folder, trainer = self._resumed.folder, self.trainer
        trainer.state = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
        if self._job.settings.method != "full":  # a whole model was loaded from there already
            trainer.model.load_adapter(str(folder), trainer.model.active_adapter, is_trainable=True)
        if trainer.is_world_process_zero():  # others may hold no weights before the first step
            self.on_train_begin(trainer.args, trainer.state, trainer.control)
            self.check_moved()
        return folder

    def check_moved(self) -> None:
        """Check that training changed any weight of the policy, and made numbers of all.

        Raises:
            InsightvError: it did not, though the learning rate is above 0; or it has diverged.
        """
        lost = [name for name, weight in trained_weights(self.trainer.model).items() if not weight.isfinite().all()]
        if lost:
            raise InsightvError(
                f"training has diverged: after {self.trainer.state.global_step} steps {len(lost)} of the trained "
                f"weights hold numbers that are not finite (the first is {lost[0]}); lower learning_rate, which is "
                f"{self._job.settings.learning_rate}, and remove {str(self._job.work)!r}"
            )
        if not self._sharded and digest_of(self.trainer.model) == self._before:
            raise InsightvError(
                f"training changed no weight in {self.trainer.state.global_step} steps at learning_rate = "
                f"{self._job.settings.learning_rate}; raise it, take more steps, or set warmup = 0 (its "
                "first step is at a rate of 0)"
            )

    @property
    def _sharded(self) -> bool:
        """Whether no process holds whole weights (FSDP, DeepSpeed)."""
        return bool(self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled)
