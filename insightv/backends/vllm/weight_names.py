"""A model directory under the names that vLLM looks for, without torch: only headers are rewritten.

transformers 5 writes a LLaVA model's CLIP weights as `vision_tower.embeddings...`; vLLM 0.32 wants the older
`vision_tower.vision_model.embeddings...` and refuses anything else. transformers reads both. The safetensors format
is 8 bytes of length, that many bytes of JSON, and the data, to which the JSON's offsets are relative.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import orjson

from insightv.errors import InputError

_OLD_LAYOUT = {"clip_vision_model", "siglip_vision_model"}
_TOWER = re.compile(r"^((?:model\.)?vision_tower\.)(?!vision_model\.)")
_LONGEST_HEADER = 100 * 1024 * 1024


def served_name(name: str) -> str:
    """The name of a weight that vLLM looks for."""
    return _TOWER.sub(r"\1vision_model.", name)


def tensor_names(file: Path) -> list[str]:
    """The names of the weights in a safetensors file.

    Raises:
        InputError: it is none.
    """
    return [name for name in _header(file) if name != "__metadata__"]


def needs_renaming(model: Path) -> bool:
    """Whether vLLM would refuse the directory's weights for their names.

    Raises:
        InputError: a file of weights cannot be read.
    """
    return _old_layout(model) and any(
        served_name(name) != name for path in sorted(model.glob("*.safetensors")) for name in tensor_names(path)
    )


def write_served(model: Path, folder: Path) -> None:
    """Copy the files of `model` into the folder, renamed where that must be; folders are left out.

    Raises:
        InputError: a file of weights cannot be read.
    """
    renamed = _old_layout(model)
    for path in sorted(model.iterdir()):
        if path.is_dir():
            continue
        if renamed and path.suffix == ".safetensors":
            _rename(path, folder / path.name)
        elif renamed and path.name.endswith(".safetensors.index.json"):
            index = orjson.loads(path.read_bytes())
            index["weight_map"] = {served_name(name): file for name, file in index["weight_map"].items()}
            (folder / path.name).write_bytes(orjson.dumps(index, option=orjson.OPT_INDENT_2))
        else:
            shutil.copyfile(path, folder / path.name)


def _old_layout(model: Path) -> bool:
    config: dict[str, Any] = orjson.loads((model / "config.json").read_bytes())
    return (config.get("vision_config") or {}).get("model_type") in _OLD_LAYOUT


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        try:
            header = orjson.loads(opened.read(size) if size <= _LONGEST_HEADER else b"")
        except orjson.JSONDecodeError:
            header = None
    if not isinstance(header, dict):
        raise InputError(f"{str(file)!r} is no safetensors file, or is cut; save or copy the model again")
    return header


def _rename(source: Path, target: Path) -> None:
    header = {served_name(name): place for name, place in _header(source).items()}
    text = orjson.dumps(header)
    text += b" " * (-len(text) % 8)  # the data stays aligned
    with source.open("rb") as old, target.open("wb") as new:
        new.write(len(text).to_bytes(8, "little") + text)
        old.seek(8 + int.from_bytes(old.read(8), "little"))
        shutil.copyfileobj(old, new, 8 * 1024 * 1024)
