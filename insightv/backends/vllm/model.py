"""The `vllm` backend: a `vllm serve` that is started at the first use, watched, and stopped with this process.

    reasoning, summary = vllm("checkpoints/reasoning/adapter"), vllm("checkpoints/summary/adapter")   # one server

Models of the same base, and adapters on it, share one server. What is asked and answered goes through the `openai`
backend; `supervisor` owns the process, `source` knows what a name stands for.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

from insightv.backends.openai.address import Address, check_amounts
from insightv.backends.openai.fit import Fit, Structured
from insightv.backends.openai.http import HttpTransport
from insightv.backends.openai.model import MAX_REPLY_BYTES, OpenAIModel
from insightv.backends.vllm.launch import Launch
from insightv.backends.vllm.source import Adapter, ModelSource, source_of
from insightv.backends.vllm.supervisor import Engine
from insightv.errors import ConfigError, ModelError
from insightv.interfaces import ChatModel
from insightv.records import Completion, Message, Sampling, Schema, Usage

PROGRAM = "INSIGHTV_VLLM"
"""The environment variable that names the program `vllm` where it is not in PATH."""
CRASHES = 3
"""A call that was in flight when the server died as often is not asked again: it may be what kills it."""
OWN_FLAGS = (
    "--host", "--port", "--uds", "--api-key", "--served-model-name", "--enable-lora", "--max-loras", "--max-lora-rank",
    "--lora-modules", "--enable-tower-connector-lora", "--model",
)  # fmt: skip
"""What is set here; `arguments` may hold anything else."""

_LOOK_S = 0.25
Result = TypeVar("Result")


class VllmModel(ChatModel):
    """One name at a server of our own: the base model, or an adapter on it."""

    def __init__(self, source: ModelSource, engine: Engine, **asking: Any) -> None:
        self.engine = engine
        self._source = source
        self._asking = asking
        self._model: OpenAIModel | None = None
        self._closed = False

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        """See `ChatModel.chat`. While the server is started again the call waits, and is then asked anew.

        Raises:
            ModelError: also "worker_crash": the server died again and again while this call was in flight.
            ConfigError: the server cannot be started, or died too often.
        """
        model = await self._ready()
        replies = await self._watched(model.chat(messages, sampling, n=n, schema=schema))
        self.engine.answered()
        return replies

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling, *, schema: Schema | None = None
    ) -> AsyncIterator[str | Completion]:
        """See `ChatModel.stream`. A stream that has begun is not begun again: the server's death is a ModelError."""
        model = await self._ready()
        async with aclosing(model.stream(messages, sampling, schema=schema)) as pieces:  # type: ignore[type-var]  # an async generator in fact
            first = await self._watched(_first(pieces))
            self.engine.answered()
            yield first
            async for piece in pieces:
                yield piece

    async def check(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            ConfigError: it cannot be started; the text has the reason from its log and the cure.
        """
        await self._ready()

    async def aclose(self) -> None:
        """Let go of the server; the last model that uses it stops it."""
        if self._closed:
            return
        self._closed = True
        if self._model is not None:
            await self._model.aclose()
        await asyncio.to_thread(leave, self.engine, self._source.adapter)

    async def _ready(self) -> OpenAIModel:
        if self._closed:
            raise ModelError("connection", f"{self.name} has been closed")
        await self.engine.ready(self._source.adapter)
        if self._model is None:
            key = self.engine.key
            address = Address(f"{self.engine.url}/v1", {"Authorization": f"Bearer {key}"}, (key,))
            self._model = OpenAIModel(self._source.served_as, addresses=[address], **self._asking)
        return self._model

    async def _watched(self, call: Coroutine[Any, Any, Result]) -> Result:
        """The call's result. The `openai` backend asks again by itself; here is seen when there is no sense in that.

        The thread that watches the server has no event loop, so its state is looked at a few times a second.
        """
        before, task = self.engine.deaths, asyncio.ensure_future(call)
        try:
            while not (await asyncio.wait({task}, timeout=_LOOK_S))[0]:
                if self.engine.fault is not None:
                    raise ConfigError(self.engine.fault)
                crashes = self.engine.deaths - before
                if crashes >= CRASHES:
                    text = f"the server of {self.name} died {crashes} times while this call was in flight"
                    raise ModelError(
                        "worker_crash", f"{text} (its log: {str(self.engine.log)!r})", usage=Usage(requests=crashes)
                    )
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


async def _first(pieces: AsyncIterator[str | Completion]) -> str | Completion:
    return await anext(pieces)


def vllm(
    model: str,
    *,
    base: str | None = None,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    program: str | None = None,
    structured: Structured = "schema",
    deadline_s: float = 600.0,
    connections: int = 1024,
    start_s: float = 1800.0,
    restarts: int = 4,
    log_folder: str | None = None,
) -> VllmModel:
    """A model directory, a hub id, or the directory of a LoRA adapter, served by a vLLM of our own on this machine.

    vLLM lives in an environment of its own: `program` is its command (by default $INSIGHTV_VLLM, or `vllm` in PATH).
    `base` replaces the model that an adapter's configuration names. `arguments` and `environment` are handed to
    `vllm serve`. `start_s` bounds its start, `restarts` how often it may die in a row without answering a call.
    `deadline_s` bounds a call with its tries, without starts. The log goes to `log_folder` (a run sets its own folder).

    Raises:
        ConfigError: the name, the program or a setting cannot be used.
    """
    source = source_of(model, base)
    texts = [*arguments, *(environment or {}), *(environment or {}).values()]
    if isinstance(arguments, str) or not all(isinstance(text, str) for text in texts):
        raise ConfigError('arguments is a list of texts like ["--max-model-len", "8192"], environment a table of texts')
    for argument in arguments:
        if argument.split("=")[0] in OWN_FLAGS:
            raise ConfigError(f"arguments holds {argument!r}, which insightv sets itself; leave it out")
    check_amounts(start_s=start_s, deadline_s=deadline_s, connections=connections)
    set_to = tuple(sorted((environment or {}).items()))
    launch = Launch(_program(program), source.model, tuple(arguments), set_to, start_s, restarts)
    made = VllmModel(
        source,
        join(launch, source.adapter, log_folder),
        transport=HttpTransport(max_reply_bytes=MAX_REPLY_BYTES),
        fit=Fit(structured=structured),
        deadline_s=deadline_s,
        connections=connections,
    )
    made.name = f"vllm/{model}"
    return made


def _program(program: str | None) -> str:
    name = program or os.environ.get(PROGRAM) or "vllm"
    found = shutil.which(str(Path(name).expanduser()))
    if found is None:
        raise ConfigError(
            f"the program {name!r} is not there: install vLLM in an environment of its own (python -m venv vllm-env && "
            f"vllm-env/bin/pip install vllm; it cannot share insightv's), and name its bin/vllm as `program`, or in "
            f"the environment variable {PROGRAM}"
        )
    return str(Path(found).absolute())


_engines: dict[Launch, tuple[Engine, int]] = {}
_engines_lock = threading.Lock()


def join(launch: Launch, adapter: Adapter | None, log_folder: str | None) -> Engine:
    """The engine of this launch, shared by all models of equal launches; each of them leaves it once."""
    with _engines_lock:
        engine, users = _engines.get(launch) or (Engine(launch, log_folder), 0)
        if engine.fault is not None:
            engine, users = Engine(launch, log_folder), 0
        _engines[launch] = (engine, users + 1)
        engine.want(adapter)
        return engine


def leave(engine: Engine, adapter: Adapter | None) -> None:
    """Give an engine back; the last one stops it."""
    with _engines_lock:
        engine.unwant(adapter)
        known, users = _engines.get(engine.launch, (None, 0))
        if known is engine and users > 1:
            _engines[engine.launch] = (engine, users - 1)
            return
        if known is engine:
            del _engines[engine.launch]
    engine.close()


@atexit.register
def _close_all() -> None:
    """An interpreter that ends without closing its models takes its servers with it."""
    for engine, _ in list(_engines.values()):
        engine.close()
