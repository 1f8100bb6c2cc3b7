"""The `tiny` backend: the embedded model, whose weights come with the package, through `hf`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from insightv.backends.hf import HFModel
from insightv.errors import ConfigError

NAMES = ("teacher", "base")


def tiny(
    model: str = "",
    *,
    device: str | None = None,
    batch: int = 32,
    deadline_s: float = 600.0,
    cache_gb: float | None = None,
    threads: int | None = 1,
) -> HFModel:
    """The embedded model `model`: "teacher" (also ""), or the weaker "base". Options are those of `HFModel`.

    Raises:
        ConfigError: there is no such model, or its weights are not in this installation.
    """
    name = model or NAMES[0]
    if name not in NAMES:
        raise ConfigError(f"there is no embedded model {model!r}; there are: {', '.join(NAMES)}")
    folder = Path(str(files("insightv") / "tiny" / "weights" / name))
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"the weights of the embedded model {name!r} are not in this installation; make them with: make tiny"
        )
    embedded = HFModel(
        str(folder), device=device, batch=batch, deadline_s=deadline_s, cache_gb=cache_gb, threads=threads
    )
    embedded.name = f"tiny/{name}"
    return embedded
