"""What a run or a server takes of the machine: open files, and space on the disk."""

from __future__ import annotations

import logging
import resource
import shutil
from pathlib import Path

log = logging.getLogger("insightv")

PATH_BYTES = 4096
"""What a path takes in run.db, with its calls and scores (3.7 kB were measured over 400,000 paths)."""


def allow_open_files(count: int) -> None:
    """See that this process may have `count` files open, or as many as the system allows: each connection takes one."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now >= count:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, most), most))
    except (OSError, ValueError):
        log.debug("the limit of open files stays as it is")


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
