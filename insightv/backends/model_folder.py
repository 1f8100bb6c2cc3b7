"""Model directories on this machine: the embedded ones by name, what one holds, as a digest, whether it may be used.

A checkpoint that was trained on is another model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from insightv.errors import ConfigError, InputError
from insightv.inputs.plain_file import read_plain

EMBEDDED = ("teacher", "base")
"""The embedded models: the teacher writes paths, the weaker base is what agents are trained from."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
"""The name of a model of the hub; `..` may not stand in it either."""
_PIECES, _PIECE = 64, 64 * 1024


def weights_digest(model: str) -> str | None:
    """The digest of the directory that `provider/DIRECTORY` names; None where it names none.

    It is over the names and sizes of all files and up to 64 pieces of 64 kB of each, spread evenly: training changes
    weights everywhere, and reading all of them would take minutes for a large model.
    """
    _, _, rest = model.partition("/")
    folder = Path(rest)
    if not rest or not folder.is_dir():
        return None
    hasher = hashlib.sha256()
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        size = path.stat().st_size
        hasher.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode("utf-8", "surrogateescape"))
        with path.open("rb") as file:
            for number in range(min(_PIECES, -(-size // _PIECE))):
                file.seek(
                    max(0, size - _PIECE) * number // (_PIECES - 1) if size > _PIECES * _PIECE else number * _PIECE
                )
                hasher.update(file.read(_PIECE))
    return hasher.hexdigest()


def embedded_weights(name: str) -> Path:
    """The directory of the embedded model `name`.

    Raises:
        ConfigError: there is no such model, or its weights are not in this installation.
    """
    if name not in EMBEDDED:
        raise ConfigError(f"there is no embedded model {name!r}; there are: {', '.join(EMBEDDED)}")
    folder = Path(str(files("insightv") / "tiny" / "weights" / name))
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"the weights of the embedded model {name!r} are not in this installation; make them with: make tiny"
        )
    return folder


def misfit(report: Mapping[str, Any]) -> str:
    """How weights do not fit the model's configuration, by what transformers reports of loading them; "" where they do.

    Weights that are missing or of another shape are random numbers afterwards.
    """
    unset = sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"]))
    if not unset:
        return ""
    return (
        f"do not fit its configuration ({len(unset)} tensors missing or of another shape, the first is {unset[0]}), "
        "and would be random; save or copy the model again"
    )


def reaches_out(folder: Path) -> str:
    """What a model directory would load that is not in it, or never was; "" where it is whole by itself.

    transformers opens whatever file an index of weights names, and lays an adapter beside a model on it where peft is
    installed.
    """
    if (folder / "adapter_config.json").exists():
        return "holds an adapter beside the model (adapter_config.json); merge it into the model, or move it elsewhere"
    try:
        config = _object(folder / "config.json") if (folder / "config.json").exists() else {}
        if beyond := _beyond_measure(config):
            return f"has {beyond} in its config.json, and would be built before its weights are seen; get it again"
        chosen = config.get("transformers_weights")
        if chosen is not None and not _is_bare(chosen, (".safetensors", ".safetensors.index.json")):
            return f"names {str(chosen)[:100]!r} as its weights (transformers_weights), which is no file of its own"
        for index in sorted(folder.glob("*.safetensors.index.json")):
            for name in set(_object(index)["weight_map"].values()):
                if not _is_bare(name, (".safetensors",)):
                    return f"names {str(name)[:100]!r} in {index.name}, which is no file of its own (NAME.safetensors)"
                if not (folder / name).is_file() and not (folder / "model.safetensors").is_file():
                    return f"lacks {name!r}, which {index.name} names; copy the model again, whole"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError) as error:
        return f"has settings or an index that cannot be read ({type(error).__name__}: {error}); save the model again"
    return ""


_COUNTS = re.compile(r"(?:^|_)n?_?(?:layers?|depths?|blocks?|stages?|experts?)(?:_|$)")
_SIZES = re.compile(r"(?:_|^)(?:size|dim|heads|width|channels|embd|inner)$")
_MOST_COUNT, _MOST_SIZE = 4096, 2**24
"""Layers and the like are built one by one; the largest models have some hundred, and a vocabulary of 262,144."""


def _beyond_measure(config: object, name: str = "", depth: int = 0) -> str:
    """A number of a configuration with which no model could be built, with its name and the limit; "" without one."""
    if isinstance(config, dict | list) and depth < 20:
        parts = config.items() if isinstance(config, dict) else ((name, value) for value in config)
        return next((found for key, value in parts if (found := _beyond_measure(value, str(key), depth + 1))), "")
    most = _MOST_SIZE if _SIZES.search(name) else _MOST_COUNT if _COUNTS.search(name) else None
    if most is None or isinstance(config, bool) or not isinstance(config, int | float) or config <= most:
        return ""
    return f"{name} = {str(config)[:30]} (at most {most})"


def _object(path: Path) -> dict[str, Any]:
    value = json.loads(read_plain(path))
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return value


def _is_bare(name: object, ends: tuple[str, ...]) -> bool:
    """Whether it can only be the name of a file in the directory itself."""
    return isinstance(name, str) and name.endswith(ends) and not {"/", "\\", ":", "\0"} & set(name)


def foreign_code(*parts: object) -> str:
    """The module of the first part of a loaded model that is made of code that came with it; "" where none is."""
    for part in parts:
        modules = getattr(part, "modules", None)
        for one in (part, *getattr(part, "__dict__", {}).values(), *(modules() if callable(modules) else ())):
            module = type(one).__module__
            if module.partition(".")[0] == "transformers_modules":
                return module
    return ""
