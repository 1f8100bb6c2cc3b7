"""How a model is trained: the settings of both kinds of training, their presets, and one training as a job of files.

    settings_of("reason", preset="paper")                       # 2 epochs, learning rate 5e-6, full, cosine, ...
    settings_of("preference", preset="default", beta=0.05)

Nothing heavy is imported. What the settings mean to TRL, `fit` and its neighbours know.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

from pydantic import ConfigDict, Field, SerializeAsAny, ValidationError, field_validator, model_validator

from insightv.errors import ConfigError, did_you_mean
from insightv.records import Record
from insightv.train.finetune.trl_options import FORBIDDEN, NAMED, VALUES, contradiction

Stage = Literal["reason", "summary", "preference"]
Method = Literal["lora", "full", "qlora"]

_FREE = ("keep_checkpoints", "log_steps", "save_steps", "memory_gib")


class TrainSettings(Record):
    """Settings of supervised training.

    `method` "lora" trains adapters of rank `lora_rank` on every linear layer of the language model, "full" all its
    weights, "qlora" adapters on weights of 4 bits (needs bitsandbytes). The vision tower is always frozen;
    `train_projector` says whether the layer between it and the language model is trained too. `batch_size` rows per
    device and `accumulation` such batches make a step. `warmup` is a share of all steps. `bf16` None: where the device
    can. `max_length` (tokens, those of images included) is the longest row that is trained on, at most what the model
    can hold; longer ones end the training before it begins, or are left out with `bad_rows = "skip"`; none is ever
    cut. `memory_gib` is the memory of a device that a row may be estimated to need (None: all of a GPU's, no limit
    on a CPU or with an accelerate file of your own). `num_processes` None: as `accelerate_config` says, a file of
    accelerate's or the name of one of ours; one without. `save_steps` steps lie between checkpoints. `save_dtype`
    is the type of the trained model's weights on disk (None: that of the base). bfloat16 rounds small changes away; the
    report says how much of the change is left (`change_kept`). `trl` holds further options of TRL's configuration.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(allow_inf_nan=False)

    _named: ClassVar[Mapping[str, str]] = NAMED

    method: Method = "lora"
    epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    batch_size: int = Field(default=4, ge=1)
    accumulation: int = Field(default=4, ge=1)
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    train_projector: bool = True
    lora_rank: int = Field(default=16, ge=1)
    lora_alpha: int = Field(default=32, ge=1)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    bf16: bool | None = None
    gradient_checkpointing: bool = False
    max_length: int | None = Field(default=None, ge=1)
    bad_rows: Literal["stop", "skip"] = "stop"
    memory_gib: float | None = Field(default=None, gt=0)
    device: Literal["auto", "cpu"] = "auto"
    num_processes: int | None = Field(default=None, ge=1)
    accelerate_config: str | None = None
    save_steps: int = Field(default=200, ge=1)
    keep_checkpoints: int = Field(default=1, ge=1)
    log_steps: int = Field(default=10, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    save_dtype: Literal["float32", "bfloat16"] | None = None
    trl: dict[str, Any] = Field(default_factory=dict)

    @field_validator("trl")
    @classmethod
    def _allowed(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name, value in options.items():
            if name in FORBIDDEN:
                raise ValueError(f"trl.{name} cannot be set: {FORBIDDEN[name]}")
            if name in cls.model_fields or name in cls._named:
                raise ValueError(f"trl.{name} cannot be set: use the setting {cls._named.get(name, name)}")
            if name in VALUES and value not in VALUES[name]:
                raise ValueError(f"trl.{name} = {value!r} cannot be trained with; it may be {', '.join(VALUES[name])}")
        return options

    def identity(self) -> dict[str, Any]:
        """The settings that change what is trained; a training is resumed only with the same ones."""
        return self.model_dump(mode="json", exclude=set(_FREE))


LOSSES = (
    *("sigmoid", "sft", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot"),
    *("aot_unpaired", "apo_zero", "apo_down", "discopop", "sigmoid_norm"),
)
"""The loss types of TRL's DPO, which looks at their names only when the first batch is there."""


class PreferenceSettings(TrainSettings):
    """Settings of preference training: DPO as Insight-V's code runs it, sigmoid plus cross-entropy on the chosen path.

    `losses` are loss types of TRL's DPO with their `loss_weights` (1 where not given); `beta` is DPO's temperature.
    With adapters, a policy that was trained with one itself continues with it where `continue_adapter` is set and the
    weights below it are still there; otherwise a new one is laid on the policy.
    """

    _named: ClassVar[Mapping[str, str]] = {**NAMED, "loss_type": "losses"}

    learning_rate: float = Field(default=5e-7, gt=0)
    beta: float = Field(default=0.1, gt=0)
    losses: tuple[str, ...] = ("sigmoid", "sft")
    loss_weights: tuple[float, ...] = ()
    continue_adapter: bool = True

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        if not self.losses:
            raise ValueError("losses is empty; give at least one, such as sigmoid")
        for unknown in set(self.losses) - set(LOSSES):
            hint = did_you_mean(unknown, LOSSES, f"known are {', '.join(LOSSES)}")
            raise ValueError(f"losses names {unknown!r}, which TRL does not know; {hint}")
        if len(set(self.losses)) < len(self.losses):
            raise ValueError(f"losses {', '.join(self.losses)} names one twice; give it a weight instead")
        if self.loss_weights and len(self.loss_weights) != len(self.losses):
            raise ValueError(f"{len(self.loss_weights)} loss_weights for {len(self.losses)} losses")
        if wrong := contradiction(self.losses, self.trl):
            raise ValueError(wrong)
        return self

    @property
    def weights(self) -> tuple[float, ...]:
        """A weight for each loss."""
        return self.loss_weights or (1.0,) * len(self.losses)


_LONG = {"max_length": 12288, "gradient_checkpointing": True, "bf16": True, "warmup": 0.05, "weight_decay": 0.0}
_PAPER = _LONG | {"method": "full", "schedule": "cosine"}
PRESETS: Mapping[str, Mapping[Stage, Mapping[str, Any]]] = {
    # Adapters take ten times the rate of all weights: at 5e-7 a round of them changes next to nothing.
    "default": {"reason": {"epochs": 2.0}, "summary": {}, "preference": {"learning_rate": 5e-6}},
    # Section 4 of the paper; batches per device and accumulation are those of the published scripts, for 8 GPUs.
    "paper": {
        "reason": _PAPER | {"epochs": 2.0, "learning_rate": 5e-6, "batch_size": 2, "accumulation": 4},
        "summary": _PAPER | {"epochs": 1.0, "learning_rate": 1e-5, "batch_size": 2, "accumulation": 1},
        "preference": _PAPER | {"epochs": 1.0, "learning_rate": 5e-7, "batch_size": 2, "accumulation": 4},
    },
}


def settings_of(stage: Stage, preset: str = "default", **changes: Any) -> TrainSettings:
    """The settings of a stage by preset ("default" or "paper"), with changes; a PreferenceSettings for "preference".

    Raises:
        ConfigError: an unknown stage, preset or setting, or a value out of range.
    """
    if stage not in get_args(Stage):
        raise ConfigError(f"unknown stage {stage!r}; known are {', '.join(get_args(Stage))}")
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}; known are {', '.join(PRESETS)}")
    return checked(stage, {**PRESETS[preset][stage], **changes})


def checked(stage: str, values: Mapping[str, Any]) -> TrainSettings:
    """Settings from plain values, with errors as the configuration reports them."""
    make = PreferenceSettings if stage == "preference" else TrainSettings
    try:
        return make.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(_told(error, make)) from error


def _told(error: ValidationError, made: type[TrainSettings]) -> str:
    parts = []
    for one in error.errors():
        name = ".".join(str(part) for part in one["loc"]) or "settings"
        if one["type"] == "extra_forbidden":
            known = did_you_mean(name, made.model_fields, f"known are {', '.join(sorted(made.model_fields))}")
            why = FORBIDDEN.get(name) or f"unknown; {known}"
            parts.append(f"training setting {name}: {why}")
        else:
            why = one["msg"].removeprefix("Value error, ")
            # A conflict of two settings is reported without the value, which would be all settings.
            parts.append(
                f"training setting {name} = {one['input']!r}: {why}" if one["loc"] else f"training {name}: {why}"
            )
    return "; ".join(parts)


class Job(Record):
    """One training from files to a directory: what a child process is given.

    `policy` is a model directory or hub id, `data` a folder of Parquet files in TRL's form, `out` the directory that
    the trained model becomes. Beside it stands `<out>.training` with checkpoints, log and report. `title` is that of
    the model's card, where it is not the stage's.
    """

    stage: Stage
    policy: str
    data: Path
    out: Path
    settings: SerializeAsAny[TrainSettings]
    title: str = ""

    @model_validator(mode="before")
    @classmethod
    def _settings_of_stage(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("settings"), dict):
            return values | {"settings": checked(str(values.get("stage")), values["settings"])}
        return values

    @property
    def work(self) -> Path:
        """The folder of checkpoints, log and report."""
        return self.out.with_name(f"{self.out.name}.training")

    @property
    def preference(self) -> PreferenceSettings:
        """The settings of a preference job."""
        if not isinstance(self.settings, PreferenceSettings):
            raise ConfigError(f"a job of stage {self.stage!r} has no settings for preferences")
        return self.settings
