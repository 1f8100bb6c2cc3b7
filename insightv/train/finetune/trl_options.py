"""TRL's own options in a `trl` table of the settings: which may not stand there, and whether TRL takes the others.

Nothing heavy is imported until a table is checked.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from insightv.errors import ConfigError, did_you_mean

_UNMEASURED = "a training has no data to evaluate on; `train.heldout` measures every stage"

FORBIDDEN: Mapping[str, str] = {
    "packing": "TRL cannot pack rows with images",
    "padding_free": "TRL cannot train rows with images without padding",
    "precompute_ref_log_probs": "TRL cannot compute them ahead for rows with images",
    "truncation_mode": "rows are never cut; max_length leaves long ones out",
    "max_length": "rows are never cut; the setting max_length (outside of `trl`) leaves long ones out",
    "pad_to_multiple_of": "TRL cannot pad rows with images to a multiple",
    "assistant_only_loss": "the loss is on the completion already",
    "completion_only_loss": "the loss is on the completion already",
    "chat_template_path": "the trained model keeps the chat template of its base, and is asked in it",
    "model_init_kwargs": "the model is loaded before TRL is given it, which would pass over them",
    "sync_ref_model": "the reference is the policy at the start of the round",
    "ref_model_mixup_alpha": "the reference is the policy at the start of the round",
    "trust_remote_code": "code of model folders is never run",
    "output_dir": "the job says where",
    "resume_from_checkpoint": "training resumes by itself, from its last complete checkpoint",
    "save_strategy": "a training without checkpoints begins anew when it is resumed; save_steps says how often",
    "eval_strategy": _UNMEASURED,
    "do_eval": _UNMEASURED,
    "eval_on_start": _UNMEASURED,
    "load_best_model_at_end": _UNMEASURED,
    "save_only_model": "a checkpoint without its optimizer cannot be resumed",
    "save_total_limit": "keep_checkpoints says how many",
    "ignore_data_skip": "a resumed training would see rows twice",
}
"""Options of TRL that break training on images, or resuming, and why."""

VALUES: Mapping[str, tuple[str, ...]] = {
    "train_sampling_strategy": ("random", "sequential"),
    "f_divergence_type": ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"),
    "loss_type": ("nll", "dft"),
}
"""What options may be that are looked at only when the first batch is there; rows with images have no lengths."""

NAMED: Mapping[str, str] = {
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "accumulation",
    "num_train_epochs": "epochs",
    "lr_scheduler_type": "schedule",
    "warmup_steps": "warmup",
    "use_cpu": "device",
    "logging_steps": "log_steps",
    "activation_checkpointing": "gradient_checkpointing",
}
"""Settings by the name that TRL has for them, where it is another."""


def contradiction(losses: Collection[str], options: Mapping[str, Any]) -> str | None:
    """Why TRL's DPO, once it is at it, would not take these losses with the options of a `trl` table; None: it would.

    TRL weights pairs in the place where their loss stands. torch lets it do that neither with "sft", where all stand
    on one number, nor with "hinge", whose gradient needs what stood there.
    """
    if "exo_pair" in losses and not options.get("label_smoothing"):
        return "losses names exo_pair, which TRL takes with trl.label_smoothing above 0 only, such as 1e-3"
    divergence = options.get("f_divergence_type", "reverse_kl")
    barred = {
        "trl.use_weighting": {"aot", "aot_unpaired", "hinge", "sft"} if options.get("use_weighting") else set(),
        f"trl.f_divergence_type = {divergence!r}": _OF_REVERSE_KL if divergence != "reverse_kl" else set(),
    }
    for option, kinds in barred.items():
        if found := kinds.intersection(losses):
            return f"losses names {min(found)}, which TRL does not take with {option}"
    return None


_OF_REVERSE_KL = {"nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down"}
"""Losses of more than the difference of two rewards, which another divergence does not leave as it is."""


def check_trl(agent: str, options: Mapping[str, Any], *, bf16: bool = False) -> None:
    """See that TRL knows the options of a `trl` table and takes their values.

    Raises:
        ConfigError: one is unknown (the nearest is named), or has a value that TRL refuses.
    """
    if not options:
        return
    import torch
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.sft_config import SFTConfig

    kind: Any = DPOConfig if agent == "preference" else SFTConfig
    where = f"[train] or [train.{agent}]"
    known = [field.name for field in fields(kind)]
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known, "see the options of TRL's configuration")
            raise ConfigError(f"{where}: trl.{name} is no option of TRL's; {hint}")
    # To look for the device would set up accelerate's state in this process.
    checked: Any = type(kind.__name__, (kind,), {"device": torch.device("cpu")})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checked(**{**options, "output_dir": "unused", "use_cpu": True, "bf16": bf16, "report_to": "none"})
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        raise ConfigError(f"{where}: TRL refuses the options of `trl`: {error}") from error


@contextmanager
def refused_by_trl() -> Iterator[None]:
    """Where TRL's configuration and trainer are made: what they refuse are settings.

    Raises:
        ConfigError: they do.
    """
    try:
        yield
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ConfigError(f"TRL refuses the settings of this training: {error}") from error
