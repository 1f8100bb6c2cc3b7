"""Files and folders that are there whole or not at all: written beside their place, synced, then renamed into it.

A failure while writing leaves what was there before. Knows nothing of what is written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from insightv.errors import ConfigError, StorageFull

CARD = "README.md"
MARK = "\ninsightv:\n"
"""Stands in the YAML header of every card; a folder whose card lacks it is not ours to replace."""


class CreatedFiles:
    """What this process has made, by name, device and inode; nothing that somebody else has made is removed."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[int, int]] = {}

    def add(self, path: Path) -> None:
        """Remember a file or folder that this process has just made."""
        found = os.lstat(path)
        self._made[os.path.abspath(path)] = (found.st_dev, found.st_ino)

    def remove(self, path: Path) -> None:
        """Remove a file that was made here, where it is still in its place; of a folder only an empty one."""
        made = self._made.pop(os.path.abspath(path), None)
        with suppress(OSError):
            found = os.lstat(path)
            if (found.st_dev, found.st_ino) == made:
                os.rmdir(path) if stat.S_ISDIR(found.st_mode) else os.unlink(path)

    def remove_all(self) -> None:
        """Remove all that was made here, the last one first."""
        for path in reversed(list(self._made)):
            self.remove(Path(path))


@contextmanager
def new_file(target: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `target` when the block ends well; a link there is replaced.

    Raises:
        ConfigError: `target` is a folder or cannot be written.
        StorageFull: the disk is full or broken.
    """
    target = _absolute(target)
    if target.is_dir():
        raise ConfigError(f"{str(target)!r} is a folder; name a file to write")
    with _storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(target)
        fresh = _beside(target, "new")
        try:
            with open(fresh, "xb", opener=partial(os.open, mode=mode)) as file:  # exclusive: follows no link
                yield file
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(target)
        finally:
            fresh.unlink(missing_ok=True)
        _sync(target.parent)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `target` when the block ends well.

    Raises:
        ConfigError: `target` holds something that insightv did not write, or cannot be written.
        StorageFull: the disk is full or broken.
    """
    target = _absolute(target)
    with _storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _restore(target)
        refuse_foreign(target)
        _clear_leftovers(target)
        fresh = _beside(target, "new")
        try:
            fresh.mkdir()
            yield fresh
            for path in sorted(fresh.rglob("*")):
                _sync(path)
            _sync(fresh)
            _swap(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        _sync(target.parent)


def copy_folder(source: Path, target: Path) -> None:
    """Put a copy of a folder that insightv wrote in the place of `target`. Raises as `new_folder`.

    No file is linked: a byte that is changed in one of both would be changed in the other.
    """
    with new_folder(target) as fresh:
        shutil.copytree(source, fresh, dirs_exist_ok=True, copy_function=_copy_file)


_FICLONE = 0x40049409
"""Linux: share the blocks of another file until one of both is written (Btrfs, XFS, bcachefs); `fcntl` has no name."""


def _copy_file(source: str, target: str) -> None:
    with open(source, "rb") as read, open(target, "wb") as written:
        try:
            fcntl.ioctl(written, _FICLONE, read.fileno())
        except OSError:  # a file system that cannot share blocks, or two of them
            shutil.copyfileobj(read, written, 2**20)
    shutil.copystat(source, target)


def remove(folder: Path) -> None:
    """Remove a folder and all in it; one that is not there is fine. A kill in between leaves no half of it there."""
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.is_dir():
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _absolute(target: Path) -> Path:
    """The target with a name of its own, also where it was given as `.`."""
    whole = Path(os.path.abspath(target))
    if not whole.name:
        raise ConfigError(f"{str(target)!r} cannot be written; name a file or folder in it")
    return whole


def _swap(fresh: Path, target: Path) -> None:
    """Put `fresh` in the place of `target`. A kill between the two renames is repaired by `_restore`."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    try:
        fresh.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _restore(target: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    if old.is_dir() and not target.exists():
        old.rename(target)


def refuse_foreign(target: Path) -> None:
    """Check that a folder may be replaced: it is new, empty or written by insightv.

    Raises:
        ConfigError: it is not.
    """
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        raise ConfigError(f"{str(target)!r} is not a folder; name a folder that is new, or one that insightv wrote")
    card = target / CARD
    ours = card.is_file() and MARK in card.read_text(encoding="utf-8", errors="replace")
    if not ours and any(target.iterdir()):
        raise ConfigError(f"{str(target)!r} holds files that insightv did not write; name another folder, or empty it")


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.{kind}-{os.getpid()}")


def _clear_leftovers(target: Path) -> None:
    """Remove what a killed process left half written, which may be as large as the whole."""
    prefix = f".{target.name}.new-"
    for path in target.parent.glob("." + "*"):
        owner = path.name.removeprefix(prefix)
        if not path.name.startswith(prefix) or not owner.isdecimal() or _alive(int(owner)):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@contextmanager
def full_disk_told(target: Path) -> Iterator[None]:
    """Around what other libraries write: their ways to say that the disk is full, as one error.

    safetensors names the system's error in a text of its own, and torch says only that its writer failed.

    Raises:
        StorageFull: the disk is full or broken.
    """
    try:
        yield
    except Exception as error:
        if (number := _no_room(error)) is None:
            raise
        raise _full(target, number) from error


def _no_room(error: BaseException | None) -> int | None:
    """The number of the system's error that an error comes from, where that is a full or broken disk."""
    while error is not None:
        if isinstance(error, OSError):
            return error.errno if error.errno in _NO_ROOM else None
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            return int(found[1]) if int(found[1]) in _NO_ROOM else None
        if _TORCH_WROTE.search(str(error)):
            return errno.ENOSPC
        error = error.__cause__ or error.__context__
    return None


_TORCH_WROTE = re.compile(r"PytorchStreamWriter failed writing|inline_container\.cc\S* . unexpected pos")


def _full(target: Path, number: int) -> StorageFull:
    return StorageFull(f"cannot write {str(target)!r}: {os.strerror(number)}; make room and run again, nothing is lost")


@contextmanager
def _storage_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise _full(target, error.errno) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG):
            raise ConfigError(
                f"cannot write {str(target)!r}: {os.strerror(error.errno)}; name another place"
            ) from error
        raise
