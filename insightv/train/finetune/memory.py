"""About how much memory training takes on one device, from a model's configuration. A rule of thumb, said as such.

Weights, gradients and Adam's two moments; for each token the activations of a transformer layer in half precision, 34
bytes for each number of the hidden state (Korthikanti et al., arXiv 2205.05198; attention itself is fused and adds
none), of all layers or, with gradient checkpointing, of one layer and the inputs of all. A full preference training
holds its reference besides. What our files of accelerate's share out over the processes counts once for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from insightv.train.finetune.models import adapted_layers, freeze, trained_weights, uses_bf16
from insightv.train.finetune.preflight import Memory
from insightv.train.finetune.settings import PreferenceSettings, TrainSettings

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

_SHARED = {"fsdp2": ("weights", "training"), "zero3": ("weights", "training"), "zero2": ("training",)}
"""What each of our files of accelerate's shares out: weights; gradients and moments."""

_BYTES_PER_NUMBER = 34
_GRADIENT_AND_MOMENTS = 4 + 8


def job_memory(config: PretrainedConfig, settings: TrainSettings, processes: int | None = None) -> Memory | None:
    """What training a model of this configuration takes of a device; None where there is no limit. Loads no weights.

    `processes` are those that train (None: as the settings say, or one).
    """
    import torch
    from transformers import AutoModelForImageTextToText

    limit = _limit(settings)
    if limit is None:
        return None
    make: Any = AutoModelForImageTextToText
    with torch.device("meta"):
        model = make.from_config(config)
    freeze(model, settings)
    weights = sum(weight.numel() for weight in model.parameters())
    half = uses_bf16(settings)
    held = weights * {"full": 4.0, "lora": 2.0 if half else 4.0, "qlora": 0.6}[settings.method]
    if settings.method == "full" and isinstance(settings, PreferenceSettings):
        held *= 2  # the reference; with adapters it is an adapter
    moving: float = _trained(model, settings) * _GRADIENT_AND_MOMENTS
    shared, by = _SHARED.get(settings.accelerate_config or "", ()), processes or settings.num_processes or 1
    held, moving = held / (by if "weights" in shared else 1), moving / (by if "training" in shared else 1)
    text: Any = config.get_text_config()
    width, layers = int(text.hidden_size), int(text.num_hidden_layers)
    unit = _BYTES_PER_NUMBER * width * (1 if half else 2)
    per_token = unit + layers * width * (2 if half else 4) if settings.gradient_checkpointing else unit * layers
    return Memory(int(held + moving), per_token, limit)


def _limit(settings: TrainSettings) -> int | None:
    import torch

    if settings.memory_gib is not None:
        return int(settings.memory_gib * 2**30)
    if settings.accelerate_config not in (None, *_SHARED):
        return None  # what a file of somebody else's shares out is not known
    if settings.device == "auto" and torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return None


def _trained(model: nn.Module, settings: TrainSettings) -> int:
    """How many numbers are trained."""
    if settings.method == "full":
        return sum(weight.numel() for weight in trained_weights(model).values())
    layers = adapted_layers(model, settings).values()
    return sum(settings.lora_rank * (layer.in_features + layer.out_features) for layer in layers)
