"""How much of what a training changed is left once its weights are written in a coarser type.

Training keeps weights in float32; a model directory is mostly written in bfloat16, whose steps are 1/256 of a number.
What a short training at a low rate adds to a weight may be less than half a step, and is then gone from the directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insightv.backends.vllm.weight_names import tensor_names

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FEW = 0.5
"""A share of the change below which it is worth a warning."""


def kept_share(weights: Iterable[tuple[Tensor, Tensor]], dtype: torch.dtype) -> float | None:
    """The share of the change that `dtype` keeps, of pairs of weights before and after in float32; None: no change.

    It is the part of the change on disk that lies along the true one: 1 where nothing is lost, 0 where all is.
    """
    kept = whole = 0.0
    for before, after in weights:
        change = after - before
        written = after.to(dtype).float() - before.to(dtype).float()
        kept += float((written * change).sum())
        whole += float(change.square().sum())
    return round(kept / whole, 4) if whole else None


def of_adapters(model: Any, before: Path | None) -> Iterator[tuple[Tensor, Tensor]]:
    """The layers of a PEFT model before and after a training, which went on from the adapter `before` if given."""
    from peft.tuners.lora import LoraLayer

    if before is not None:
        model.load_adapter(str(before), "before")
    for module in model.modules():
        if isinstance(module, LoraLayer) and "default" in module.lora_A:
            below: Any = module.get_base_layer()
            make: Any = module
            old = make.get_delta_weight("before") if before is not None else 0
            weight = below.weight.detach()
            yield weight + old, weight + make.get_delta_weight("default").detach()
    if before is not None:
        model.delete_adapter("before")


def of_files(policy: Path, trained: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """The weights of two model directories that have the same name and shape, one at a time."""
    from safetensors import safe_open

    places = {name: file for file in sorted(policy.glob("*.safetensors")) for name in tensor_names(file)}
    for file in sorted(trained.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as after:
            for name in after.keys():  # noqa: SIM118  # no mapping
                if name in places:
                    with safe_open(str(places[name]), framework="pt") as before:
                        one, other = before.get_tensor(name).float(), after.get_tensor(name).float()
                    if one.shape == other.shape:
                        yield one, other


def rounding_warning(share: float | None, dtype: str) -> str | None:
    """What to say of a share; None where enough is kept."""
    if share is None or share >= FEW:
        return None
    return (
        f"of what this training changed {max(share, 0):.0%} is left in the {dtype} that the model is written in; set "
        'save_dtype = "float32", or raise learning_rate or the number of steps'
    )
