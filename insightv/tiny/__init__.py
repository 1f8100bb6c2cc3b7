"""The embedded model and its world: charts to ask about, a small vision model, a scorer that knows the truth.

Nothing heavy is imported here: `world`, `draw`, `model`, `batches`, `recipe` and `measure` are loaded on use.
"""

from __future__ import annotations

from pathlib import Path

WEIGHTS = ("teacher", "base")
"""The embedded models: the teacher writes paths, the base is what agents are trained from."""


def weights(name: str = "teacher") -> Path:
    """The directory of an embedded model, as `from_pretrained` takes it.

    Raises:
        ValueError: there is no such model.
    """
    if name not in WEIGHTS:
        raise ValueError(f"there is no embedded model {name!r}; there are: {', '.join(WEIGHTS)}")
    return Path(__file__).parent / "weights" / name
