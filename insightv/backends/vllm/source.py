"""What a `vllm/NAME` means: the model that is served, and the adapter on it where NAME is one."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import orjson

from insightv.backends.model_folder import HUB_ID, weights_digest
from insightv.backends.vllm.weight_names import needs_renaming, tensor_names, write_served
from insightv.errors import ConfigError, StorageFull

BASE = "base"
"""The name of the base model at its own server."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM makes room for."""

_OUTSIDE = re.compile(r"\.(vision_tower|vision_model|visual|multi_modal_projector|merger|connector|mm_projector)\.")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter as PEFT saves it. Its name holds a digest of its weights: what is trained anew is another one.

    `outside`: it also changes layers outside the language model.
    """

    name: str
    folder: str
    rank: int
    outside: bool

    @property
    def room(self) -> int:
        """The smallest of vLLM's ranks that has room for it."""
        return next((rank for rank in RANKS if rank >= self.rank), self.rank)


@dataclass(frozen=True)
class ModelSource:
    """A model directory or hub id, and the adapter on it."""

    model: str
    adapter: Adapter | None = None

    @property
    def served_as(self) -> str:
        """The name to ask for."""
        return self.adapter.name if self.adapter else BASE


def source_of(name: str, base: str | None = None) -> ModelSource:
    """What `name` stands for; an adapter's model is `base`, or the one that its own configuration names.

    Raises:
        ConfigError: it is neither a directory nor a hub id, or the adapter's model cannot be told.
    """
    folder = Path(name).expanduser()
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        return _adapted(folder.absolute(), base)
    if base is not None:
        raise ConfigError(
            f"base = {base!r} is given, and {name!r} is no adapter (no adapter_config.json); leave it out"
        )
    return ModelSource(_model(name))


def _model(name: str) -> str:
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigError(f"{name!r} holds no config.json and no adapter_config.json, so it is no model directory")
        return str(folder.absolute())
    if not HUB_ID.fullmatch(name) or ".." in name or folder.exists():
        raise ConfigError(f"{name!r} is neither an existing model directory nor a hub id such as 'owner/name'")
    return name


def _adapted(folder: Path, base: str | None) -> ModelSource:
    try:
        config = orjson.loads((folder / "adapter_config.json").read_bytes())
        weights = folder / "adapter_model.safetensors"
        names = tensor_names(weights)
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError(f"the adapter {str(folder)!r} cannot be read ({error}); save it again with PEFT") from error
    below = base or config.get("base_model_name_or_path")
    rank = config.get("r")
    if config.get("peft_type") != "LORA" or not isinstance(rank, int) or not 1 <= rank <= RANKS[-1]:
        raise ConfigError(
            f"the adapter {str(folder)!r} is of type {config.get('peft_type')!r} and rank {rank!r}; vLLM serves LoRA "
            f"adapters of rank 1 to {RANKS[-1]}: merge it into its model, and name that"
        )
    if not isinstance(below, str) or not below:
        raise ConfigError(f"the adapter {str(folder)!r} does not name its model; give it as the option `base`")
    digest = (weights_digest(f"vllm/{folder}") or "")[:8]
    outside = any(_OUTSIDE.search(name) for name in names)
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", folder.parent.name if folder.name == "adapter" else folder.name)
    return ModelSource(_model(below), Adapter(f"{plain}-{digest}", str(folder), rank, outside))


def servable(model: str) -> str:
    """The directory to hand to vLLM: the model's own, or a copy with vLLM's names, made once and kept.

    Copies lie in `$XDG_CACHE_HOME/insightv/served` (by default below ~/.cache) under the digest of the original.

    Raises:
        StorageFull: the copy cannot be written.
        InputError: the weights cannot be read.
    """
    folder = Path(model)
    if not folder.is_dir() or not needs_renaming(folder):
        return model
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "insightv" / "served"
    copy = cache / (weights_digest(f"vllm/{folder}") or "")[:32]
    if copy.is_dir():
        return str(copy)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=cache, prefix="unfinished-"))
        try:
            write_served(folder, made)
            made.rename(copy)
        except OSError:
            shutil.rmtree(made, ignore_errors=True)
            if not copy.is_dir():  # else: another process was first
                raise
    except OSError as error:
        raise StorageFull(
            f"the copy of {model!r} with vLLM's names for its weights cannot be written to {str(copy)!r}: {error}; "
            "make room, or set XDG_CACHE_HOME to where there is"
        ) from error
    return str(copy)
