"""What each worker does: it holds the models of a run and asks them. It knows no Ray and no run.

What comes back is plain: replies, or a `Fault` that says which error it was; errors themselves do not survive the way
between processes. What the models log is handed over as well, since the run's log is where the run is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import socket
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from insightv import __version__, errors
from insightv.backends.jobs import JobModel
from insightv.errors import ConfigError, InsightvError, ModelError, StopRun
from insightv.interfaces import ChatModel
from insightv.plugin_guard import code_of, cost_of, error_text, stored
from insightv.records import Completion, Message, Picture, Sampling, Schema, Usage

Line = tuple[int, str, str]
"""A line of the log: level, logger, message."""

PICTURES = 256
"""Pictures kept for the next call about them, which then need not be encoded again."""
_LINES = 1000


class ModelSpec(Protocol):
    """How a model is made (`insightv.config.factories.ModelSpec`)."""

    @property
    def name(self) -> str:
        """Its name in the settings."""

    def make(self) -> ChatModel:
        """The model."""


@dataclass(frozen=True)
class Fault:
    """An error, to be raised where the run is. `kind` is its class in `insightv.errors`, "" for any other."""

    kind: str
    text: str
    code: str = ""
    usage: Usage = field(default_factory=Usage)
    kept: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Fault:
        """What is to be known of an error; its text has no secrets of this process."""
        if isinstance(error, ModelError):
            return cls("ModelError", error_text(error, kind=False), code_of(error), cost_of(error), error.kept)
        if isinstance(error, InsightvError):
            kind = next(each.__name__ for each in type(error).__mro__ if hasattr(errors, each.__name__))
            usage = cost_of(error) if isinstance(error, StopRun) else Usage()
            return cls(kind, error_text(error, kind=False), usage=usage)
        return cls("", error_text(error), "backend_error", Usage(requests=1))

    def error(self) -> InsightvError:
        """The error anew."""
        if self.kind in ("", "ModelError"):
            return ModelError(self.code, self.text, usage=self.usage, kept=self.kept)
        error: InsightvError = getattr(errors, self.kind)(self.text)
        if isinstance(error, StopRun):
            error.usage = self.usage
        return error


@dataclass(frozen=True)
class About:
    """Which worker this is, and what it runs."""

    host: str
    pid: int
    python: str
    insightv: str


def about_here() -> About:
    """This process."""
    return About(socket.gethostname(), os.getpid(), platform.python_version(), __version__)


class Worker:
    """The models of a run, by the order in which the run names them."""

    def __init__(self) -> None:
        self._models: list[ChatModel] = []
        self._pictures: OrderedDict[str, Picture] = OrderedDict()
        self._log = _Lines()

    async def hello(self) -> About:
        """Which worker this is."""
        logging.getLogger("insightv").addHandler(self._log)
        logging.getLogger("insightv").setLevel(logging.INFO)
        return about_here()

    async def prepare(
        self, specs: Sequence[ModelSpec], environment: Mapping[str, str], folder: str
    ) -> list[str] | Fault:
        """Make the models, and see that they can be asked; their names.

        `environment` is set first. `folder` is the one that paths in options start from, where this node has it.
        """
        os.environ.update(environment)
        if os.path.isdir(folder):
            os.chdir(folder)
        try:
            for spec in specs:
                model = spec.make()
                self._models.append(model)
                if isinstance(model, JobModel):
                    raise ConfigError(f'{spec.name} sends jobs, which a worker cannot keep; use executor = "local"')
            await asyncio.gather(*(model.check() for model in self._models))
        # A backend may be a plugin's; whatever it raises says why there is no model.
        except (Exception, SystemExit) as error:
            return Fault.of(error)
        return [model.name for model in self._models]

    async def chat(
        self, place: int, messages: Sequence[Message], sampling: Sampling, n: int, schema: Schema | None
    ) -> list[Completion] | Fault:
        """The replies of the model at `place`."""
        try:
            known = [self._known(message) for message in messages]
            return await self._models[place].chat(known, sampling, n=n, schema=schema)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return Fault.of(error)
        # As in the journal: whatever a plugin's backend raises is a call that was not answered.
        except (Exception, SystemExit) as error:
            return Fault.of(error)

    async def said(self) -> list[Line]:
        """What was logged since the last time; waits until something is."""
        return await self._log.take()

    async def close(self) -> None:
        """Let go of connections, processes and memory."""
        await asyncio.gather(*(model.aclose() for model in self._models), return_exceptions=True)

    def _known(self, message: Message) -> Message:
        """The message with pictures that were here before, encoded as they are."""
        if not any(isinstance(part, Picture) for part in message.parts):
            return message
        return message.model_copy(update={"content": tuple(self._kept(part) for part in message.parts)})

    def _kept(self, part: str | Picture) -> str | Picture:
        if isinstance(part, str):
            return part
        kept = self._pictures.setdefault(part.sha256, part)
        self._pictures.move_to_end(part.sha256)
        if len(self._pictures) > PICTURES:
            self._pictures.popitem(last=False)
        return kept


class _Lines(logging.Handler):
    """Keeps what is logged, by any thread, until it is taken; the oldest lines give way."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[Line] = asyncio.Queue(_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        line = (record.levelno, record.name, stored(record.getMessage()))
        self._loop.call_soon_threadsafe(self._put, line)

    def _put(self, line: Line) -> None:
        if self._lines.full():
            self._lines.get_nowait()
        self._lines.put_nowait(line)

    async def take(self) -> list[Line]:
        lines = [await self._lines.get()]
        while not self._lines.empty():
            lines.append(self._lines.get_nowait())
        return lines
