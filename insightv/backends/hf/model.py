"""The `hf` backend: any image-text-to-text model of transformers, in this process.

    model = HFModel("HuggingFaceTB/SmolVLM-500M-Instruct")
    [completion] = await model.chat([Message(role="user", content=(picture, "What is this?"))], Sampling())

Calls made at the same time run in one batch, which rows join and leave between tokens. The key-value states of
conversations are kept: samples of one prompt share its computation, and a chain of steps looks at its picture once. A
schema is not enforced while drawing (prompts say the format); replies that break it come back as they are.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from insightv.backends.hf.source import ModelSource
from insightv.errors import ConfigError, ModelError, require
from insightv.interfaces import ChatModel
from insightv.records import Completion, Message, Sampling, Schema

if TYPE_CHECKING:
    from insightv.backends.hf.engine import Engine
    from insightv.backends.hf.prompt import Prompts
    from insightv.backends.hf.rows import Counts, Request

Outcome = list[Completion] | BaseException
T = TypeVar("T")

_engines: dict[tuple[ModelSource, int, float | None, int | None], tuple[Engine, int]] = {}
_engines_lock = threading.Lock()


class HFModel(ChatModel):
    """A model of the hub or of a directory; loaded at the first call, shared by equal instances.

    `dtype` "auto" is the weights' own, but float32 for small models on a CPU. `batch`: most replies drawn at once.
    `cache_gb` limits the kept key-value states (default: 1 GB, or a fifth of the free GPU memory). `deadline_s` bounds
    one call with its waiting. A `revision` pins a model of the hub. Weights are read from safetensors only, and code
    that comes with a model is never run. `threads` sets the processor threads of torch for the whole process (None:
    left as they are); a small model on a busy machine is several times faster with one, as threads wait for each other.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str | None = None,
        dtype: str = "auto",
        batch: int = 32,
        revision: str | None = None,
        deadline_s: float = 600.0,
        cache_gb: float | None = None,
        attn_implementation: str | None = None,
        threads: int | None = None,
    ) -> None:
        for package in ("torch", "transformers"):
            require(package, "hf")
        for name, value, least, whole in (
            ("batch", batch, 1, True),
            ("deadline_s", deadline_s, 0, False),
            ("cache_gb", cache_gb or 0, 0, False),
            ("threads", 1 if threads is None else threads, 1, True),
        ):
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                kind = "a whole number" if whole else "a number"
                raise ConfigError(f"{name} = {value!r} of model 'hf/{model}' is not {kind}")
            if not value >= least:
                raise ConfigError(f"{name} = {value!r} of model 'hf/{model}' is too small; the least is {least}")
        self.name: str = f"hf/{model}"
        self._source = ModelSource(model, revision, device, dtype, attn_implementation)
        self._source.check()
        self._key = (self._source, batch, cache_gb, threads)
        self._deadline_s = deadline_s
        self._engine: Engine | None = None
        self._closed = False
        # Rendering and opening pictures; the engine's own thread continues to draw meanwhile.
        self._desk = ThreadPoolExecutor(1, thread_name_prefix="hf prompts")

    @property
    def counts(self) -> Counts:
        """What the engine behind this model has done since it was loaded."""
        return self._started().counts

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        """See `ChatModel.chat`.

        Raises:
            ModelError: `too_long`, `bad_request`, `oom`, `timeout`, `malformed` (NaN) or `worker_crash`.
            ConfigError: the model cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Outcome] = loop.create_future()
        async with _deadline(self._deadline_s):
            request = await self._submit(messages, sampling, n, _into(loop, outcome))
            try:
                result = await outcome
            finally:
                request.cancelled = True
        if isinstance(result, BaseException):
            raise result
        return result

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling, *, schema: Schema | None = None
    ) -> AsyncIterator[str | Completion]:
        """See `ChatModel.stream`: text as it is drawn, in whole characters."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | Outcome] = asyncio.Queue()

        def put(piece: str | Outcome) -> None:
            _soon(loop, pieces.put_nowait, piece)

        request: Request | None = None
        started = loop.time()
        try:
            async with _deadline(self._deadline_s):
                request = await self._submit(messages, sampling, 1, put, on_text=put)
            while True:
                async with _deadline(self._deadline_s - (loop.time() - started)):
                    piece = await pieces.get()
                if isinstance(piece, str):
                    yield piece
                elif isinstance(piece, BaseException):
                    raise piece
                else:
                    yield piece[0]
                    return
        finally:
            if request is not None:
                request.cancelled = True

    async def check(self) -> None:
        """Load the model, and see that its engine still runs.

        Raises:
            ConfigError: it cannot be loaded, or its engine has ended.
        """
        engine, _ = await self._ready()
        if not engine.alive:
            raise ConfigError(f"the engine of {self.name} has ended; start the process anew")

    async def aclose(self) -> None:
        """Stop the engine and free the model, once no other instance uses it."""
        self._closed = True
        self._desk.shutdown(wait=False, cancel_futures=True)
        with _engines_lock:
            if self._engine is None or self._key not in _engines:
                return
            engine, users = _engines.pop(self._key)
            if users > 1:
                _engines[self._key] = (engine, users - 1)
            self._engine = None
        if users == 1:
            await asyncio.to_thread(engine.close)

    async def _submit(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        n: int,
        deliver: Callable[[Outcome], None],
        on_text: Callable[[str], None] | None = None,
    ) -> Request:
        if n < 1:
            raise ValueError(f"n = {n}: at least one reply must be asked for")
        if sampling.extra:
            raise ModelError(
                "bad_request",
                f"sampling options {sorted(sampling.extra)} are not known to the hf backend, which draws by"
                " temperature, top_p and max_tokens; leave them out",
            )
        engine, prompter = await self._ready()
        prompt = await self._at_desk(partial(prompter.prompt, tuple(messages)))
        if len(prompt.tokens) >= engine.context:
            raise ModelError(
                "too_long",
                f"the conversation has {len(prompt.tokens)} tokens, and {self.name} takes {engine.context} in all",
            )
        from insightv.backends.hf.rows import Request

        request = Request(tuple(messages), prompt, sampling, n, deliver, on_text)
        engine.submit(request)
        return request

    async def _ready(self) -> tuple[Engine, Prompts]:
        engine = await self._at_desk(self._started)
        return engine, await asyncio.shield(asyncio.wrap_future(engine.ready))

    async def _at_desk(self, work: Callable[[], T]) -> T:
        """Have something done at the desk, which may be closed before or meanwhile."""
        closed = ModelError("connection", f"{self.name} has been closed")
        try:
            done = self._desk.submit(work)
        except RuntimeError:  # it takes nothing any more
            raise closed from None
        try:
            return await asyncio.wrap_future(done)
        except asyncio.CancelledError:
            if self._closed and not _is_cancelled():
                raise closed from None
            raise

    def _started(self) -> Engine:
        with _engines_lock:
            if self._engine is None:
                from insightv.backends.hf.engine import Engine

                engine, users = _engines.get(self._key) or (Engine(*self._key), 0)
                _engines[self._key] = (engine, users + 1)
                self._engine = engine
            return self._engine


def _is_cancelled() -> bool:
    """Whether it is the task that is being cancelled, not what it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    """`asyncio.timeout` whose end is a ModelError."""
    try:
        async with asyncio.timeout(max(0.0, seconds)) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise ModelError("timeout", "no reply within deadline_s; raise it, or ask for fewer tokens") from None


def _into(loop: asyncio.AbstractEventLoop, outcome: asyncio.Future[Outcome]) -> Callable[[Outcome], None]:
    def settle(result: Outcome) -> None:
        if not outcome.done():
            outcome.set_result(result)

    return lambda result: _soon(loop, settle, result)


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[T], None], value: T) -> None:
    if not loop.is_closed():  # a loop that has ended has nobody waiting
        loop.call_soon_threadsafe(call, value)
