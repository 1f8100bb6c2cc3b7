"""Files that somebody else may have put there: only plain ones are read and written, and no more than they may hold.

A link, a FIFO or a device in the place of a file would lead elsewhere, or never end.
"""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

from insightv.errors import InputError

MOST_TEXT = 64 * 2**20
"""The most bytes of a file that is read whole: settings, a marker, an index of weights."""
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
}


def open_plain(path: str | Path) -> BufferedReader:
    """The file, open for reading; one that a link leads to is as good.

    Raises:
        InputError: it is no file.
        OSError: it cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise _not_plain(path, mode, "a file")
    return open(handle, "rb")


def read_plain(path: str | Path, most: int = MOST_TEXT) -> bytes:
    """All of a file of at most that many bytes. Raises as `open_plain`, and InputError where it holds more."""
    with open_plain(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise InputError(f"{str(path)!r} holds more than {most} bytes, which no such file does; remove or restore it")
    return data


def refuse_strange(path: Path, *, folder: bool = False) -> None:
    """See that what is written at `path` is written there: it is not there yet, or a file (or a `folder`) itself.

    Raises:
        InputError: it is something else, such as a link.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_IFMT(mode) != (stat.S_IFDIR if folder else stat.S_IFREG):
        raise _not_plain(path, mode, "a folder" if folder else "a file")


def refuse_strange_within(folder: Path) -> None:
    """See that there are only files and folders in a folder, which is itself one or not there.

    Raises:
        InputError: something else is, such as a link.
    """
    refuse_strange(folder, folder=True)
    for within, folders, files in os.walk(folder):
        for name in (*folders, *files):
            mode = os.lstat(os.path.join(within, name)).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise _not_plain(os.path.join(within, name), mode, "a file or folder")


def _not_plain(path: str | Path, mode: int, needed: str) -> InputError:
    found = _KINDS.get(stat.S_IFMT(mode), "no file")
    cure = "put what it leads to in its place" if stat.S_ISLNK(mode) else "remove it, or restore it from a copy"
    return InputError(f"{str(path)!r} is {found}, and {needed} is needed there; {cure}")
