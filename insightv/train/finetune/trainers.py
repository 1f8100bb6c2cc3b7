"""The trainers of one training, with TRL: supervised, with loss on the completion only, and a round of DPO.

The loss of DPO is that of Insight-V's code: sigmoid plus cross-entropy on the chosen path. The reference is the policy
at the start of the round, held fast: with adapters a frozen copy of the adapter (or the weights below a new one),
without them a second model, loaded from the policy also when a training is resumed. `pair_trainer` has the steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insightv.backends.checkpoints import Checkpoint, own_base, read_marker
from insightv.errors import RunChanged
from insightv.strict_json import Json
from insightv.train.finetune.models import load_model, lora_config
from insightv.train.finetune.settings import Job, PreferenceSettings
from insightv.train.finetune.trl_options import refused_by_trl

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, ProcessorMixin
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer
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


def dpo_trainer(
    job: Job, data: Dataset, processor: ProcessorMixin, recorder: Recorder, found: Checkpoint | None
) -> tuple[DPOTrainer, str]:
    """The trainer, ready to continue from `found`, and the weights that its adapter lies on (or that it replaces)."""
    from insightv.train.finetune.pair_trainer import trainer_for

    with refused_by_trl():
        args = dpo_config(job)
    model, base, adapters = _policy(job, job.preference, found)
    make: Any = trainer_for(model, args)
    reference = reference_of(job)
    with refused_by_trl():
        trainer: DPOTrainer = make(
            model,
            ref_model=reference,
            args=args,
            train_dataset=data,
            processing_class=processor,
            peft_config=adapters,
            callbacks=[recorder],
        )
    return trainer, base


def dpo_config(job: Job) -> DPOConfig:
    """TRL's options for a preference job."""
    from trl.trainer.dpo_config import DPOConfig

    from insightv.train.finetune.recorder import options

    settings = job.preference
    return DPOConfig(
        **options(job),
        beta=settings.beta,
        loss_type=list(settings.losses),
        loss_weights=list(settings.weights),
        precompute_ref_log_probs=False,
    )


_TOLD = {
    "margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
    "logps_chosen": "logps/chosen",
    "logps_rejected": "logps/rejected",
}


def round_report(job: Job, base: str, trainer: DPOTrainer) -> dict[str, Json]:
    """What the round did, from the trainer's log: each figure at the first and at the last entry.

    `log_ratio_*` is the mean log-ratio of policy and reference over a reply: how far the policy has drifted on it
    (a reward by DPO's own measure is `beta` times that). `margin` is in rewards, `logps_*` are sums over a reply.
    `prompt_read_twice` says why the replies of a pair did not share one pass over their prompt (None: they did).
    """
    from insightv.train.finetune.pair_trainer import why_plain

    trained: Any = trainer.model
    settings, log = job.preference, trainer.state.log_history
    told = {name: _ends(log, key) for name, key in _TOLD.items()}
    for name in ("chosen", "rejected"):
        told[f"log_ratio_{name}"] = _ends(log, f"rewards/{name}", 1 / settings.beta)
    continued = settings.method != "full" and Path(base) != Path(job.policy)
    adapter = None if settings.method == "full" else "continued" if continued else "new"
    chosen: dict[str, Json] = {"reference": job.policy, "base": base, "adapter": adapter, "beta": settings.beta}
    chosen |= {"losses": list(settings.losses), "loss_weights": list(settings.weights)}
    chosen["prompt_read_twice"] = why_plain(trained, trainer.args)
    return chosen | {name: dict(ends) for name, ends in told.items()}


def _ends(log: Sequence[Mapping[str, Json]], key: str, factor: float = 1.0) -> dict[str, float | None]:
    found = [value * factor for entry in log if isinstance(value := entry.get(key), (int, float))]
    return {"first": found[0] if found else None, "last": found[-1] if found else None}


def _policy(job: Job, settings: PreferenceSettings, found: Checkpoint | None) -> tuple[Any, str, Any]:
    """The model to train, the weights below its adapter, and the adapter to lay on it (None: it has one, or none)."""
    if settings.method == "full":
        return load_model(found.folder if found else job.policy, settings), job.policy, None
    own = own_base(Path(job.policy)) if settings.continue_adapter else None
    _refuse_another_adapter(job, found, own is not None)
    if own is None:
        model = load_model(job.policy, settings)
        return model, job.policy, lora_config(model, settings)
    from peft import PeftModel

    adapter, base = own
    model = load_model(base, settings)
    return PeftModel.from_pretrained(model, str(adapter), is_trainable=True), str(base), None


def _refuse_another_adapter(job: Job, found: Checkpoint | None, own: bool) -> None:
    """Refuse to load the steps of the policy's own adapter into a new one, which lies on that already, or the reverse.

    TRL keeps a copy of an adapter that is trained further as "ref", the reference, and so do its checkpoints.
    """
    if found is None or not (found.folder / "adapter_config.json").is_file() or (found.folder / "ref").is_dir() is own:
        return
    then, now = ("a new adapter", "the policy's own") if own else ("the policy's own adapter", "a new one")
    below = (read_marker(Path(job.policy)) or {}).get("base")
    raise RunChanged(
        f"{str(job.work)!r} holds a training that was begun with {then} and would continue with {now}, as the weights "
        f"below the policy's ({below}) {'are there again' if own else 'are gone or others'}; put them as they were, or "
        "remove that folder to begin again"
    )


def reference_of(job: Job) -> PreTrainedModel | None:
    """The policy at the start of the round; None where the trainer keeps it as an adapter.

    Given rather than left to TRL, which would load it from where the model came from: a checkpoint, when resumed.
    """
    if job.settings.method != "full":
        return None
    model = load_model(job.policy, job.settings)
    model.requires_grad_(False)
    model.eval()
    return model
