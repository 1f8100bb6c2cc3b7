"""What tests of a stranger's folder share: the command line in this process, and ways to spoil what a run has."""

from __future__ import annotations

import os
import resource
import sqlite3
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from insightv.cli.main import main

ARCHIVE = Path(__file__).with_name("run_0_1_0.tar.gz")
DOCUMENTED = (0, 2, 3, 4)


def unpack(folder: Path) -> Path:
    """A trained run of release 0.1.0, as somebody else may hand it on, and what stands outside of it."""
    with tarfile.open(ARCHIVE) as archive:
        safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since Python 3.11.4
        archive.extractall(folder, **safely)
    (folder / "outside").mkdir()
    (folder / "outside" / "mine.txt").write_text("mine\n")
    return folder / "run"


def outside(folder: Path) -> dict[str, object]:
    """All that stands outside of the run, to be compared."""
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else "folder"
        for path in sorted((folder / "outside").rglob("*"))
    }


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, what it said, its seconds, and by how many bytes the process grew."""

    code: int
    said: str
    seconds: float
    grown: int

    def wrong(self) -> str:
        """What is not as documented: an exit code of the list, no traceback, within 10 s and 1 GB; "" if all is."""
        told = self.code in DOCUMENTED and "Traceback" not in self.said
        fits = self.seconds < 10 and self.grown < 10**9
        return "" if told and fits else f"{self.code} in {self.seconds:.1f} s, {self.grown} bytes: {self.said[-1500:]}"

    def check(self) -> None:
        """See that nothing is wrong."""
        assert not self.wrong(), self.wrong()


def run(capsys: pytest.CaptureFixture[str], *args: object) -> Ended:
    """The command line, in this process."""
    before, peak = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kept, sys.argv = sys.argv, ["insightv", *map(str, args)]
    capsys.readouterr()
    try:
        main()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 0
    finally:
        sys.argv = kept
    said = capsys.readouterr()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024
    return Ended(code, said.err + said.out, time.monotonic() - before, grown)


def gone(path: Path) -> None:
    """Make room for something else."""
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(path.name + ".gone"))
    else:
        path.unlink(missing_ok=True)


def _link(path: Path) -> None:
    target = path.parents[len(path.parents) - 1]
    target = next(parent for parent in path.parents if (parent / "outside").is_dir()) / "outside"
    folder = path.is_dir()
    gone(path)
    path.symlink_to(target if folder else target / "mine.txt")


def _fifo(path: Path) -> None:
    gone(path)
    os.mkfifo(path)


def _device(path: Path) -> None:
    gone(path)
    path.symlink_to("/dev/zero")


def _other(path: Path) -> None:
    folder = path.is_dir()
    gone(path)
    path.write_bytes(b"a file") if folder else path.mkdir()


def _endless(path: Path) -> None:
    gone(path)
    with path.open("wb") as file:
        file.truncate(2 * 2**30)


def _junk(path: Path) -> None:
    gone(path)
    path.write_bytes(b"\0\xff\xfe{[" * 300)


def _empty(path: Path) -> None:
    gone(path)
    path.write_bytes(b"")


SPOIL: dict[str, Callable[[Path], None]] = {
    "a link": _link,
    "a FIFO": _fifo,
    "a device": _device,
    "of the other kind": _other,
    "endless": _endless,
    "junk": _junk,
    "empty": _empty,
}


def columns(database: Path) -> list[tuple[str, str]]:
    """Every column of a run's database."""
    connection = sqlite3.connect(database)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = [(table, row[1]) for table in tables for row in connection.execute(f"PRAGMA table_info({table})")]
    connection.close()
    return found


def change(database: Path, *statements: str) -> None:
    """Change a database as a stranger may, its schema too."""
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA writable_schema = ON")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
