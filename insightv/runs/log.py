"""`log.jsonl` of a run: what happened, one JSON object a line, without secrets."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path

from insightv.atomic_files import CreatedFiles
from insightv.redact import Redactor, environment_secrets

_MOST_BYTES = 8192


class JsonLines(logging.Formatter):
    """A record as one line of JSON: at (UTC), level, logger, message, and the trace where there is one."""

    def __init__(self) -> None:
        super().__init__()
        self._redactor = Redactor(environment_secrets())

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._redactor.clean(record.getMessage(), _MOST_BYTES, lines=True),
        }
        if record.exc_info:
            line["trace"] = self._redactor.clean(self.formatException(record.exc_info), _MOST_BYTES, lines=True)
        return json.dumps(line, ensure_ascii=False)


class _RunLogFile(logging.FileHandler):
    def __init__(self, path: Path, created: CreatedFiles | None) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self._created = created
        # Opened now: whatever is in the folder's place when the first line comes is not the run's.
        self._folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)

    def _open(self) -> TextIOWrapper:
        """The file, for its owner alone: it quotes what models say."""
        path = Path(self.baseFilename)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
        try:
            handle = os.open(path.name, flags | os.O_EXCL, 0o600, dir_fd=self._folder)
            with suppress(OSError):
                if self._created is not None and os.path.samestat(os.fstat(handle), os.lstat(path)):
                    self._created.add(path)
        except FileExistsError:
            handle = os.open(path.name, flags, 0o600, dir_fd=self._folder)
        return open(handle, "a", encoding="utf-8")

    def close(self) -> None:
        """Let go of the file and its folder."""
        super().close()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk stops the run by way of its database; the log then only falls silent."""
        logging.getLogger("insightv").removeHandler(self)


@contextmanager
def run_log(path: Path, created: CreatedFiles | None = None) -> Iterator[None]:
    """Send what insightv logs, from INFO up, to `path` as well; `created` notes the file where that makes it."""
    logger = logging.getLogger("insightv")
    handler = _RunLogFile(path, created)
    handler.setFormatter(JsonLines())
    before = logger.level
    logger.setLevel(min(before or logging.INFO, logging.INFO))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        handler.close()
