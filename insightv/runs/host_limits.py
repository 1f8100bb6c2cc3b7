"""What a run or a server takes of the machine: open files, and space on the disk."""

from __future__ import annotations

import logging
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from insightv.errors import ConfigError, TooManyOpenFiles

log = logging.getLogger("insightv")

PATH_BYTES = 4096
"""What a path takes in run.db, with its calls and scores (3.7 kB were measured over 400,000 paths)."""


_FILES_A_CALL = 3
"""A connection, or a picture and its folder while they are read; and idle connections to other servers."""
_OTHER_FILES = 32
"""Of the database, the log, the event loop, name look-ups, and what libraries open."""
_FEW = 4
_FILES_TO_ASK_FOR = 1024


def allow_open_files(count: int) -> int:
    """See that this process may have `count` files open, or as many as the system allows. Returns how many it may."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now == resource.RLIM_INFINITY or now >= count:
        return count
    wanted = count if most == resource.RLIM_INFINITY else min(count, most)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    except (OSError, ValueError):
        log.debug("the limit of open files stays as it is")
        return now
    return wanted


def calls_that_fit(concurrency: int) -> int:
    """How many of `concurrency` calls may be in flight at once by the limit of open files; fewer are told as a warning.

    Raises:
        ConfigError: not even a few may.
        TooManyOpenFiles: all that this process may have are open.
    """
    taken = _open_files() + _OTHER_FILES
    most = allow_open_files(taken + _FILES_A_CALL * concurrency)
    fitting = min(concurrency, (most - taken) // _FILES_A_CALL)
    cure = f"raise it, with: ulimit -n {max(_FILES_TO_ASK_FOR, taken + _FILES_A_CALL * concurrency)}"
    if fitting < min(concurrency, _FEW):
        needed = taken + _FILES_A_CALL * min(concurrency, _FEW)
        raise ConfigError(f"the limit of open files is {most}, and {needed} are needed for a few calls at once: {cure}")
    if fitting < concurrency:
        log.warning(
            "the limit of open files is %d: run.concurrency = %d is lowered to %d; %s", most, concurrency, fitting, cure
        )
    return fitting


def _open_files() -> int:
    """How many files this process has open now; on a system that does not list them, as many as a command has."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(folder))
        except OSError as error:
            TooManyOpenFiles.raise_if_behind(error, folder)
    return _FEW


class SpareFiles:
    """`count` descriptors in reserve, for what must be opened when nothing else can be any more."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[int] = []
        self._fill()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let go of them for the time of the block; afterwards as many are taken back as there are."""
        self.close()
        try:
            yield
        finally:
            self._fill()

    def close(self) -> None:
        """Let go of them."""
        while self._held:
            os.close(self._held.pop())

    def _fill(self) -> None:
        with suppress(OSError):
            while len(self._held) < self._count:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


def check_space(folder: Path, paths: int) -> None:
    """Warn where the disk of `folder` has less room than `paths` more paths take; their pictures are not counted."""
    free, needed = shutil.disk_usage(folder).free, paths * PATH_BYTES
    if free < needed:
        log.warning(
            "%s has %.1f MB free, and %d paths take about %.1f MB: free some space, or the run stops (and is resumed)",
            folder,
            free / 1e6,
            paths,
            needed / 1e6,
        )
