"""What a model to train from must be: whole, and in safetensors."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from insightv.errors import InputError
from insightv.train.models import load_model

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
