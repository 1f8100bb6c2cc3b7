"""Small trainings on the CPU, and looking into what they changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from insightv.train.finetune.fit import train
from insightv.train.finetune.settings import Job, Stage, TrainSettings, settings_of


def quick(stage: Stage = "reason", **changes: Any) -> TrainSettings:
    """Settings for a few steps that move small weights far enough to be seen."""
    chosen: dict[str, Any] = {"device": "cpu", "batch_size": 2, "accumulation": 1, "max_steps": 2, "log_steps": 1}
    chosen |= {"learning_rate": 1e-3, "save_steps": 100}
    return settings_of(stage, **(chosen | changes))


def train_agent(
    base: str | Path, data: Path, out: Path, *, stage: Stage = "reason", settings: TrainSettings | None = None
) -> Path:
    """Train the model `base` on the rows of `data` into `out`, in this process."""
    job = Job(stage=stage, policy=str(base), data=data, out=out, settings=settings or settings_of(stage))
    return train(job)


def weights(folder: Path) -> dict[str, Any]:
    """All weights of a model directory as transformers loads them."""
    from transformers import AutoModelForImageTextToText

    model: Any = AutoModelForImageTextToText.from_pretrained(str(folder))
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def moved(before: Path, after: Path) -> set[str]:
    """The names of the weights that differ between two model directories."""
    old, new = weights(before), weights(after)
    assert old.keys() == new.keys()
    return {name for name in old if not old[name].equal(new[name])}


def apart(one: Path, other: Path) -> float:
    """The largest difference of any weight between two model directories."""
    old, new = weights(one), weights(other)
    return max(float((old[name] - new[name]).abs().max()) for name in old)


def part(name: str) -> str:
    return next(
        (part for part in ("vision_tower", "multi_modal_projector", "image_newline") if part in name), "language"
    )
