"""A trained model under the names that vLLM looks for.

    for_vllm(Path("checkpoints/reasoning"), Path("served/reasoning"))

transformers 5 writes a LLaVA model's CLIP weights as `vision_tower.embeddings...`; vLLM 0.32 wants the older
`vision_tower.vision_model.embeddings...` and refuses anything else. transformers reads both.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import orjson

from insightv.errors import InputError, require
from insightv.train.checkpoints import MARKER, mark, read_marker
from insightv.train.files import CARD, MARK, new_folder

_OLD_LAYOUT = {"clip_vision_model", "siglip_vision_model"}
_TOWER = re.compile(r"^((?:model\.)?vision_tower\.)(?!vision_model\.)")


def for_vllm(model: Path, out: Path) -> Path:
    """Copy a model directory to `out` with its vision tower's weights renamed for vLLM; other models as they are.

    Raises:
        InputError: `model` holds no safetensors.
        ConfigError, StorageFull: `out` cannot be written, or holds what insightv did not write.
    """
    require("safetensors", "train")
    if not list(model.glob("*.safetensors")):
        raise InputError(f"{str(model)!r} holds no *.safetensors; name a merged model directory, not an adapter")
    config: dict[str, Any] = orjson.loads((model / "config.json").read_bytes())
    renamed = (config.get("vision_config") or {}).get("model_type") in _OLD_LAYOUT
    with new_folder(out) as folder:
        for path in sorted(model.iterdir()):
            if path.name == MARKER or path.is_dir():
                continue
            if renamed and path.suffix == ".safetensors":
                _rename(path, folder / path.name)
            elif renamed and path.name.endswith(".safetensors.index.json"):
                index = orjson.loads(path.read_bytes())
                index["weight_map"] = {served_name(name): file for name, file in index["weight_map"].items()}
                (folder / path.name).write_bytes(orjson.dumps(index, option=orjson.OPT_INDENT_2))
            else:
                shutil.copyfile(path, folder / path.name)
        if not (folder / CARD).is_file():
            (folder / CARD).write_text(f"---\nlicense: other{MARK}  served: vllm\n---\n", encoding="utf-8")
        mark(folder, served="vllm", identity=(read_marker(model) or {}).get("identity"))
    return out


def served_name(name: str) -> str:
    """The name that vLLM looks for."""
    return _TOWER.sub(r"\1vision_model.", name)


def _rename(source: Path, target: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(str(source), framework="pt") as file:
        names = list(file.keys())
        weights = {served_name(name): file.get_tensor(name) for name in names}
        save_file(weights, str(target), metadata=file.metadata())
