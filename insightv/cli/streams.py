"""Standard output and error as a command has them: an encoding that lacks letters, a pipe that closed, a full disk.

Answers are written with replacement where the encoding cannot hold them. What stdout does not take ends the command:
quietly where nobody reads any more, with the reason where the disk is full. What stderr does not take is lost.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

NOBODY_READS = 141
"""The exit code of a program that writes into a closed pipe: 128 plus the number of SIGPIPE."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class StdoutLost(Exception):
    """Stdout takes nothing more; `exit_code` is what the command ends with, and the text is empty where none is due."""

    def __init__(self, error: OSError) -> None:
        full = error.errno in _NO_ROOM
        cure = "make room and run it again; what a run has recorded is kept"
        super().__init__(f"stdout cannot be written: {os.strerror(error.errno or 0)}; {cure}" if full else "")
        self.exit_code = 3 if full else NOBODY_READS


class _Stdout(io.TextIOWrapper):
    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise _lost(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise _lost(error) from error


class _Stderr(io.TextIOWrapper):
    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            _to_nowhere(2)


def _lost(error: OSError) -> StdoutLost:
    _to_nowhere(1)  # else the interpreter would fail once more with what is left, when it ends
    return StdoutLost(error)


def _to_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


@contextmanager
def own_streams() -> Iterator[None]:
    """Write to stdout and stderr as said above, for the time of the block; all is written at its end.

    Raises:
        StdoutLost: stdout takes nothing more.
    """
    for number in range(3):
        _occupy(number)
    before = sys.stdout, sys.stderr
    stdout, stderr = _wrapped(sys.stdout, 1, _Stdout), _wrapped(sys.stderr, 2, _Stderr)
    sys.stdout, sys.stderr = stdout or sys.stdout, stderr or sys.stderr
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = before
        for stream in (stdout, stderr):
            if stream is not None:
                stream.detach()


def _occupy(number: int) -> None:
    """Put a file that takes nothing in the place of a stream that is closed: the next file opened would take it."""
    try:
        os.fstat(number)
    except OSError:
        nothing = os.open(os.devnull, os.O_RDONLY)
        if nothing != number:
            os.dup2(nothing, number)
            os.close(nothing)


def _wrapped(stream: TextIO | None, number: int, kind: type[_Stdout] | type[_Stderr]) -> io.TextIOWrapper | None:
    """A stream of the process over the same buffer; None for one that somebody has put in its place."""
    if stream is None:
        return kind(open(number, "wb", closefd=False), errors="backslashreplace", line_buffering=True)
    try:
        if stream.fileno() != number or not isinstance(stream, io.TextIOWrapper):
            return None
    except (OSError, ValueError):
        return None
    return kind(
        stream.buffer,
        encoding=stream.encoding,
        errors="backslashreplace" if number == 2 else "replace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
