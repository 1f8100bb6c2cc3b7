"""Which model is meant, and what can be seen to be wrong with it before anything heavy is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from insightv.backends.model_folder import HUB_ID, reaches_out
from insightv.errors import ConfigError, InputError
from insightv.inputs.plain_file import read_plain

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ModelSource:
    """A model and how it is to be loaded. Models of equal sources share one engine."""

    model: str
    revision: str | None = None
    device: str | None = None
    dtype: str = "auto"
    attn_implementation: str | None = None

    def check(self) -> None:
        """Look at the name, and at the directory where it is one.

        Raises:
            ConfigError: it cannot be loaded; the text has the cure.
        """
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype {self.dtype!r} is not known; choose one of {', '.join(DTYPES)}")
        for name in ("revision", "device", "attn_implementation"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"{name} = {value!r} of model {self.model!r} is not a text")
        folder = Path(self.model).expanduser()
        if self.model and folder.is_dir():
            _check_folder(folder)
        elif self.model and folder.exists():
            raise ConfigError(f"{self.model!r} is a file; give the directory that holds config.json")
        elif not HUB_ID.fullmatch(self.model) or ".." in self.model:
            raise ConfigError(f"{self.model!r} is neither an existing directory nor a hub id such as 'owner/name'")


def _check_folder(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names:
        if "adapter_config.json" in names:
            raise ConfigError(f"{folder} holds a LoRA adapter without its model; merge it into the base model first")
        raise ConfigError(f"{folder} holds no config.json, so it is no model directory of transformers")
    try:
        config = json.loads(read_plain(folder / "config.json"))
    except (OSError, ValueError, RecursionError, InputError) as error:
        raise ConfigError(f"{folder / 'config.json'} cannot be read as JSON ({error}); save the model again") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise ConfigError(f"{folder / 'config.json'} names no model_type; save the model with save_pretrained")
    if any(name.endswith(".safetensors") for name in names):
        if wrong := reaches_out(folder):
            raise ConfigError(f"{folder} {wrong}")
        return
    pickles = sorted(name for name in names if name.endswith(_PICKLES))
    if pickles:
        raise ConfigError(
            f"{folder} has its weights as pickle only ({pickles[0]}), and loading a pickle can run any code; convert"
            " them: load the model where you trust it and call save_pretrained(), which writes safetensors"
        )
    raise ConfigError(f"{folder} holds no weights (*.safetensors)")
