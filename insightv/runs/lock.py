"""Who may write a run: one process at a time, by a lock of the operating system."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from pathlib import Path

import filelock

from insightv.atomic_files import CreatedFiles, new_file
from insightv.errors import InsightvError, RunHeld, StorageFull
from insightv.inputs.plain_file import read_plain
from insightv.runs.reader import check_places

_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs", "sshfs"}
log = logging.getLogger("insightv")


class RunLock:
    """The right to write a run: an OS lock that dies with its holder. `created` notes the files that it makes."""

    def __init__(self, folder: Path, created: CreatedFiles | None = None) -> None:
        self._created = created or CreatedFiles()
        self._holder = folder / "holder.json"
        self._file = folder / "run.lock"
        self._lock = filelock.FileLock(self._file, timeout=0, mode=0o600)

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            RunHeld: another process has it; the text names it.
            InputError: something in the folder would have what is written end up elsewhere.
            StorageFull: the folder cannot be written.
        """
        folder = self._holder.parent
        check_places(folder)
        try:
            fresh = not self._file.exists()
            self._lock.acquire()
            if fresh:
                self._created.add(self._file)
            started = time.strftime("%Y-%m-%d %H:%M:%S")
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
            with new_file(self._holder, 0o600) as file:
                file.write(json.dumps(holder).encode())
            self._created.add(self._holder)
        except filelock.Timeout:
            raise RunHeld(f"{folder} is held by {self._who()}; wait for it, or stop it") from None
        except (OSError, InsightvError) as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise StorageFull.of(folder, error) from error
            raise StorageFull(f"{error}, then resume the run") from error
        if kind := network_file_system(folder):
            log.warning("%s is on a network file system (%s): locks of other machines may not hold there", folder, kind)

    def release(self) -> None:
        """Give the lock back."""
        # Where the folder cannot be written any more the name is stale, the lock is not.
        self._created.remove(self._holder)
        self._lock.release()

    def _who(self) -> str:
        """The holder by name. One that has just begun has a moment to write it."""
        for _ in range(20):
            try:
                holder = json.loads(read_plain(self._holder, 10_000))
                elsewhere = holder["host"] != socket.gethostname()
                if elsewhere or _alive(int(holder["pid"])):
                    return f"process {holder['pid']} on {holder['host']}, started {holder['started']}"
            except (OSError, InsightvError, ValueError, KeyError, TypeError):
                pass
            time.sleep(0.05)
        return "another process (it has not written its name yet)"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def network_file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """The type of the network file system that a folder is on; None where it is on none, or that cannot be told."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    place, kind = folder.resolve(), None
    deepest = -1
    for line in lines:
        _, mounted, found, *_ = [*line.split(), "", "", ""]
        root = Path(mounted.replace("\\040", " "))
        if place.is_relative_to(root) and len(root.parts) >= deepest:
            deepest, kind = len(root.parts), found
    return kind if kind is not None and kind.removeprefix("fuse.") in _NETWORK else None
