"""What the tests of the HTTP backend have in common: a question, a schema, and a model that is closed again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from insightv.backends.openai.factory import openai
from insightv.backends.openai.model import OpenAIModel
from insightv.records import Completion, Message, Picture, Sampling, Schema
from tests.servers.fake_openai import FakeServer

Result = TypeVar("Result")

STEP = Schema(name="reasoning_step", definition={"type": "object", "properties": {"title": {"type": "string"}}})
ANSWER = Schema(name="final_answer", definition={"type": "object"})
SAMPLING = Sampling(seed=7)


def picture(size: int = 3000, fill: bytes = b"\x00\xff~") -> Picture:
    data = (fill * size)[:size]
    return Picture(data=data, mime="image/png", sha256=f"{size}-{fill.hex()}", width=3, height=4)


def question(text: str = "What is 3 + 4? [truth=7] [steps=3]") -> list[Message]:
    return [Message(role="system", content="You look closely."), Message(role="user", content=(picture(), text))]


def open_sockets() -> int:
    """How many sockets this process has open."""
    links = (entry.readlink() for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink())
    return sum(str(link).startswith("socket:") for link in links)


def sockets_back_to(count: int) -> bool:
    """Whether no more sockets are open than that, at once or soon: the server's side closes on its own thread."""
    end = time.monotonic() + 3
    while open_sockets() > count and time.monotonic() < end:
        time.sleep(0.02)
    return open_sockets() <= count


@asynccontextmanager
async def model_at(server: FakeServer | str, **options: Any) -> AsyncIterator[OpenAIModel]:
    base_url = server if isinstance(server, str) else server.base_url
    model = openai("fake", base_url=base_url, **options)
    try:
        yield model
    finally:
        await model.aclose()


def with_model(server: FakeServer | str, work: Callable[[OpenAIModel], Awaitable[Result]], **options: Any) -> Result:
    async def whole() -> Result:
        async with model_at(server, **options) as model:
            return await work(model)

    return asyncio.run(whole())


def ask(server: FakeServer | str, *, n: int = 1, schema: Schema | None = ANSWER, **options: Any) -> list[Completion]:
    """One call, with a model of its own."""
    return with_model(server, lambda model: model.chat(question(), SAMPLING, n=n, schema=schema), **options)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_server(serve: Serve) -> AsyncIterator[str]:
    """A server that is nothing but what `serve` does with each connection; its URL."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has left, or the test is over
        finally:
            writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
