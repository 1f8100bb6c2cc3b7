"""Models and adapters for the tests of the `vllm` backend: folders with the files that it looks at, no more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

WITHIN = "base_model.model.model.language_model.layers.0.mlp.up_proj.lora_A.weight"
PROJECTOR = "base_model.model.model.multi_modal_projector.linear_1.lora_A.weight"


def model_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def adapter_folder(folder: Path, base: Path, *, rank: int = 4, seed: int = 0, name: str = WITHIN) -> Path:
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": rank, "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    weights = np.random.default_rng(seed).normal(size=(rank, 8)).astype(np.float32)
    save_file({name: weights}, folder / "adapter_model.safetensors")
    return folder
