"""A run's `config.toml`: the settings as resolved, and which file they were made from.

The file is remembered by place and digest, so that a run is not silently continued as it was made when the file that
its settings came from says something else by now.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import tomli_w

from insightv.atomic_files import new_file
from insightv.config.settings import Settings
from insightv.errors import ConfigError, StorageFull
from insightv.inputs.plain_file import open_plain, read_plain

_ORIGIN = re.compile(r'# from (".*"), sha256 ([0-9a-f]{64})')


def write_settings(settings: Settings, path: Path, origin: str = "") -> None:
    """Write settings as TOML, whole or not at all; they hold no secrets (see `check_settings`).

    `origin` is what `origin_of` says of the file that they were made from.

    Raises:
        StorageFull: the file cannot be written.
    """
    text = tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True))
    try:
        with new_file(path, 0o600) as file:
            file.write((f"{origin}\n{text}" if origin else text).encode())
    except (OSError, ConfigError) as error:
        raise StorageFull(f"{path} cannot be written: {error}") from error


def origin_of(source: str | Path | None, kept: Path) -> str:
    """The line that says which file settings were made from: `source`, or what the run's own file `kept` says."""
    if source is not None and (not kept.is_file() or not kept.samefile(source)):
        return f"# from {json.dumps(str(Path(source).absolute()))}, sha256 {_digest(Path(source))}"
    return line if (line := _first_line(kept)) and _ORIGIN.fullmatch(line) else ""


def edited_origin(kept: Path) -> Path | None:
    """The file that a run's settings were made from, if it is there and says something else by now."""
    found = _ORIGIN.fullmatch(_first_line(kept))
    if found is None:
        return None
    source = Path(json.loads(found[1]))
    return source if source.is_file() and _digest(source) != found[2] else None


def _first_line(path: Path) -> str:
    if not path.is_file():
        return ""
    with open_plain(path) as file:
        return file.readline(10_000).decode("utf-8", "replace").rstrip("\n")


def _digest(path: Path) -> str:
    return hashlib.sha256(read_plain(path)).hexdigest()
