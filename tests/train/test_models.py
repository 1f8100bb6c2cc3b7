"""What a model to train from must be: whole, and in safetensors."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from insightv.errors import InputError
from insightv.train.finetune.models import load_model, load_processor, uses_bf16

from .small import quick

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch, about its own insides


class Bomb:
    """A pickle that makes a file where it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def test_pickled_weights_are_never_loaded(copy: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(canary)))
    with pytest.raises(InputError, match="only safetensors are loaded"):
        load_model(copy, quick())
    assert not canary.exists()


def test_weights_that_are_cut_are_named(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="copy' cannot be loaded"):
        load_model(copy, quick())


def test_weights_that_lack_a_part_are_not_made_up(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "multi_modal_projector" not in name}
    assert len(kept) < len(weights)
    save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="would be random"):
        load_model(copy, quick())


@pytest.mark.parametrize("name", ["../outside.safetensors", "missing.safetensors"])
def test_weights_are_taken_from_the_directory_only(copy: Path, name: str) -> None:
    from safetensors.torch import load_file

    names = list(load_file(copy / "model.safetensors"))
    (copy / "model.safetensors").rename(copy.parent / "outside.safetensors")
    (copy / "other.safetensors").touch()
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, name)}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=name):
        load_model(copy, quick())


def test_an_adapter_beside_the_model_is_not_laid_on_it(copy: Path) -> None:
    (copy / "adapter_config.json").write_text('{"peft_type": "LORA", "megatron_core": "antigravity"}')
    with pytest.raises(InputError, match="adapter beside the model"):
        load_model(copy, quick())


@pytest.mark.parametrize("nested", [False, True])
def test_code_of_a_model_directory_is_never_run(copy: Path, tmp_path: Path, nested: bool) -> None:
    canary = tmp_path / "canary"
    (copy / "evil.py").write_text(f"import pathlib; pathlib.Path({str(canary)!r}).touch()")
    config = json.loads((copy / "config.json").read_text())
    own = {"model_type": "strange", "trust_remote_code": True}
    own["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "evil.Model"}
    changed = config | ({"text_config": config["text_config"] | own} if nested else own)
    (copy / "config.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(copy, quick())
    assert not canary.exists()


def test_code_that_came_with_a_model_is_refused_after_loading_too(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import nn
    from transformers import AutoModelForImageTextToText, AutoProcessor

    foreign = type("Foreign", (nn.Module,), {"__module__": "transformers_modules.evil.code"})()
    real: Any = AutoModelForImageTextToText.from_pretrained
    read: Any = AutoProcessor.from_pretrained

    def bypassed(*args: Any, **options: Any) -> Any:
        model, report = real(*args, **options)
        model.odd = foreign
        return model, report

    def with_own(*args: Any, **options: Any) -> Any:
        processor = read(*args, **options)
        processor.odd = foreign
        return processor

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", bypassed)
    with pytest.raises(InputError, match="brought its own code"):
        load_model(copy, quick())
    monkeypatch.setattr(AutoProcessor, "from_pretrained", with_own)
    with pytest.raises(InputError, match="brought its own code"):
        load_processor(copy)


def test_half_precision_is_bfloat16_unless_float16_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert uses_bf16(quick(device="auto"))
    assert not uses_bf16(quick(device="auto", trl={"fp16": True}))
    assert not uses_bf16(quick(device="cpu"))
    assert uses_bf16(quick(device="cpu", bf16=True))
