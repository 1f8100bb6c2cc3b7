"""A model for vLLM has the names that vLLM looks for, and is the same model to transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from insightv.backends.checkpoints import is_complete
from insightv.backends.vllm.weight_names import needs_renaming, served_name
from insightv.errors import InputError
from insightv.train.finetune.served import for_vllm

from .small import moved

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch, about its own insides


def names(folder: Path) -> set[str]:
    found: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(str(path), framework="pt") as file:
            found |= set(file.keys())
    return found


def test_the_vision_tower_is_renamed_and_nothing_is_lost(base: Path, tmp_path: Path) -> None:
    out = for_vllm(base, tmp_path / "served")
    tower = {name for name in names(out) if "vision_tower" in name}
    assert tower
    assert all("vision_tower.vision_model." in name for name in tower)
    assert len(names(out)) == len(names(base))
    assert is_complete(out)
    assert needs_renaming(base)
    assert not needs_renaming(out)
    assert not moved(base, out)
    assert {path.name for path in base.iterdir()} <= {path.name for path in out.iterdir()}


def test_a_sharded_model_has_its_index_renamed_too(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(str(base))
    model.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    out = for_vllm(tmp_path / "shards", tmp_path / "served")
    assert all("vision_model" in name for name in names(out) if "vision_tower" in name)
    assert not moved(base, out)


def test_names_that_are_right_stay() -> None:
    right = "vision_tower.vision_model.embeddings.class_embedding"
    assert served_name(right) == right
    assert served_name("language_model.model.norm.weight") == "language_model.model.norm.weight"
    assert served_name("model.vision_tower.encoder.x") == "model.vision_tower.vision_model.encoder.x"


def test_an_adapter_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="safetensors"):
        for_vllm(tmp_path, tmp_path / "out")
