"""A trained model under the names that vLLM looks for, as a directory of its own.

    for_vllm(Path("checkpoints/reasoning"), Path("served/reasoning"))

What is renamed, `insightv.backends.vllm.weight_names` knows.
"""

from __future__ import annotations

from pathlib import Path

from insightv.atomic_files import CARD, MARK, new_folder
from insightv.backends.checkpoints import MARKER, mark, read_marker
from insightv.backends.vllm.weight_names import write_served
from insightv.errors import InputError


def for_vllm(model: Path, out: Path) -> Path:
    """Copy a model directory to `out` with its vision tower's weights renamed for vLLM; other models as they are.

    Raises:
        InputError: `model` holds no safetensors.
        ConfigError, StorageFull: `out` cannot be written, or holds what insightv did not write.
    """
    if not list(model.glob("*.safetensors")):
        raise InputError(f"{str(model)!r} holds no *.safetensors; name a merged model directory, not an adapter")
    with new_folder(out) as folder:
        write_served(model, folder, without=MARKER)
        if not (folder / CARD).is_file():
            (folder / CARD).write_text(f"---\nlicense: other{MARK}  served: vllm\n---\n", encoding="utf-8")
        mark(folder, served="vllm", identity=(read_marker(model) or {}).get("identity"))
    return out
