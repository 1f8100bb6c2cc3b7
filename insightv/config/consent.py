"""What the user has consented to, by the run's folder: kept in the user's own state, never in the folder itself.

`$XDG_STATE_HOME/insightv/trusted.json` (by default below ~/.local/state) holds, for the absolute path of a folder, the
digests of the values that may count there, and the user's own files that its settings were made from.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import filelock
import orjson
from pydantic import BaseModel, ValidationError

from insightv.atomic_files import new_file
from insightv.errors import InsightvError

log = logging.getLogger("insightv")
_MOST_FOLDERS, _MOST_DIGESTS, _MOST_BYTES = 5000, 500, 50_000_000


class Consent(BaseModel):
    """What was consented to for one folder; the newest is last."""

    digests: list[str] = []
    sources: list[str] = []

    def holds(self, text: str) -> bool:
        """Whether a value, as `Ask.text` tells it, is consented to."""
        return _digest(text) in self.digests

    def made_from(self, source: Path) -> bool:
        """Whether settings of the folder were made from this file by the user's own doing."""
        return str(source.absolute()) in self.sources


class _Trusted(BaseModel):
    folders: dict[str, Consent] = {}


def state_file() -> Path:
    """The file that keeps consent."""
    local = os.environ.get("LOCALAPPDATA") if os.name == "nt" else None
    state = os.environ.get("XDG_STATE_HOME") or local or os.path.expanduser("~/.local/state")
    return Path(state).absolute() / "insightv" / "trusted.json"


def consented(folder: str | Path) -> Consent:
    """What was consented to for a folder."""
    return _read(state_file()).folders.get(os.path.realpath(folder), Consent())


def keep_consent(folder: str | Path, texts: Iterable[str], source: str | Path | None = None) -> None:
    """Add to what is consented to for a folder; `source` is the user's own file that its settings were made from.

    Where it cannot be kept a warning says so: the next process will ask again.
    """
    digests = [_digest(text) for text in texts]
    sources = [] if source is None else [str(Path(source).absolute())]
    file, place = state_file(), os.path.realpath(folder)
    known = consented(folder)
    if set(digests) <= set(known.digests) and set(sources) <= set(known.sources):
        return
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with filelock.FileLock(file.with_suffix(".lock"), timeout=10, mode=0o600):
            kept = _read(file).folders
            known = kept.pop(place, Consent())
            kept[place] = Consent(
                digests=_last([*known.digests, *digests], _MOST_DIGESTS), sources=_last([*known.sources, *sources], 20)
            )
            newest = dict(list(kept.items())[-_MOST_FOLDERS:])
            with new_file(file, 0o600) as out:
                out.write(_Trusted(folders=newest).model_dump_json(indent=1).encode())
    except (OSError, filelock.Timeout, InsightvError) as error:
        log.warning("what is trusted cannot be kept in %s (%s); it will be asked for again", file, error)


def _is_own(found: os.stat_result) -> bool:
    """Whether a file is the user's own and nobody else's to write."""
    own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return stat.S_ISREG(found.st_mode) and own and not found.st_mode & 0o022 and found.st_size <= _MOST_BYTES


def _read(file: Path) -> _Trusted:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with open(os.open(file, flags), "rb") as opened:
            if not _is_own(os.fstat(opened.fileno())):
                log.warning("%s is not a file that only you can write, and is not believed", file)
                return _Trusted()
            return _Trusted.model_validate(orjson.loads(opened.read()))
    except FileNotFoundError:
        return _Trusted()
    except (OSError, ValidationError, orjson.JSONDecodeError) as error:
        log.warning("what is trusted cannot be read from %s (%s)", file, str(error).splitlines()[0])
        return _Trusted()


def _last(values: list[str], most: int) -> list[str]:
    return list(dict.fromkeys(values))[-most:]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
