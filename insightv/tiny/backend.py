"""The `tiny` backend: the embedded model, whose weights come with the package, through `hf`."""

from __future__ import annotations

from insightv.backends.hf.model import HFModel
from insightv.backends.model_folder import EMBEDDED, embedded_weights


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
    name = model or EMBEDDED[0]
    folder = embedded_weights(name)
    embedded = HFModel(
        str(folder), device=device, batch=batch, deadline_s=deadline_s, cache_gb=cache_gb, threads=threads
    )
    embedded.name = f"tiny/{name}"
    return embedded
