"""A fake model server: real HTTP on loopback in the chat completions format, with made-up replies. For tests only.

    with FakeServer(Settings(wrong=0.3, faults={"500": 0.05})) as server:
        ... openai("fake", base_url=server.base_url) ...
        server.log()                                     # every request, and what it was answered

or as a process of its own, which prints its port:

    python -m tests.servers.fake_openai --port 0 --settings '{"wrong": 0.3, "steps": [2, 5]}'

Beside /v1/models and /v1/chat/completions it serves GET /log, DELETE /log, and POST /settings (some settings anew).
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import threading
import time
from collections import Counter
from typing import Any, Self

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict

from tests.servers.fake_chains import ChainBook, Reading
from tests.servers.fake_faults import fail
from tests.servers.fake_replies import Replies, chance

PATHS = r"(?m)^=* ?PATH (\d+)"


class Settings(BaseModel):
    """`wrong`: share of wrong final answers. `steps`: shortest and longest path. `faults`: share of each fault, drawn
    from seed, messages and try. `script`: faults of the first requests in order of arrival ("ok" for none). `piece_s`:
    the time between the pieces of a stream. A client that went away before its reply was whole is `gone` in the log."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    wrong: float = 0.0
    steps: tuple[int, int] = (2, 4)
    path_pattern: str = PATHS
    latency_s: float = 0.0
    piece_s: float = 0.0
    key: str | None = None
    models: tuple[str, ...] = ()
    models_status: int = 200
    most_choices: int = 64
    faults: dict[str, float] = {}
    script: tuple[str, ...] = ()
    stream_fault: str = ""


class FakeModel:
    """The application: its settings, its log, and its handlers."""

    def __init__(self, settings: Settings) -> None:
        self.log: list[dict[str, Any]] = []
        self.set(settings)
        self.forget()

    def set(self, settings: Settings) -> None:
        self.settings = settings
        self._script = list(settings.script)
        self._replies = Replies(settings.seed, settings.wrong, settings.steps, settings.path_pattern)

    def forget(self) -> None:
        self.log.clear()
        self._book = ChainBook()
        self._tries: Counter[tuple[str, object, object]] = Counter()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=256 * 1024 * 1024)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/log", self._get_log)
        app.router.add_delete("/log", self._delete_log)
        app.router.add_post("/settings", self._post_settings)
        return app

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        entry: dict[str, Any] = {"time": time.time(), "path": request.path, "fault": None, "done": None, "gone": False}
        try:
            return await self._reply(request, entry)
        except (asyncio.CancelledError, ConnectionError):
            entry["gone"] = True
            raise

    async def _reply(self, request: web.Request, entry: dict[str, Any]) -> web.StreamResponse:
        body = await request.read()
        number = entry["number"] = len(self.log)
        self.log.append(entry)
        if self._locked(request):
            entry["fault"] = "401"
            return await fail(request, "401", {})
        try:
            reading = self._book.read(body, number)
        except (ValueError, IndexError) as error:
            entry["fault"] = "bad request"
            return web.json_response({"error": {"message": str(error)}}, status=400)
        entry.update(self._line(reading))
        if self.settings.models and reading.fields.get("model") not in self.settings.models:
            entry["fault"] = "404"
            return await fail(request, "404", {})
        entry["fault"] = fault = self._fault(reading)
        form, entry["said"] = self._form(reading, number)
        if self.settings.latency_s:
            await asyncio.sleep(self.settings.latency_s)
        entry["done"] = time.time()
        if fault:
            return await fail(request, fault, form)
        if reading.fields.get("stream"):
            return await self._stream(request, form)
        return web.Response(body=orjson.dumps(form), content_type="application/json")

    def _locked(self, request: web.Request) -> bool:
        key = self.settings.key
        return key is not None and request.headers.get("Authorization") != f"Bearer {key}"

    def _line(self, reading: Reading) -> dict[str, Any]:
        fields = reading.fields
        return {
            "model": fields.get("model"),
            "seed": fields.get("seed"),
            "n": fields.get("n", 1),
            "schema": reading.schema,
            "fields": {name: value for name, value in fields.items() if name not in ("messages", "response_format")},
            "messages": len(reading.messages),
            "sha": reading.sha,
            "extends": reading.extends,
            "repeats": reading.repeats,
            "cached": reading.cached,
            "size": reading.size,
        }

    def _fault(self, reading: Reading) -> str | None:
        if self._script:
            fault = self._script.pop(0)
            return None if fault == "ok" else fault
        if not self.settings.faults:
            return None
        key = (reading.sha, reading.fields.get("seed"), reading.schema)
        self._tries[key] += 1
        draw = chance(self.settings.seed, "fault", *key, self._tries[key])
        for fault, share in self.settings.faults.items():
            draw -= share
            if draw < 0:
                return fault
        return None

    def _form(self, reading: Reading, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        count = min(int(reading.fields.get("n") or 1), self.settings.most_choices)
        texts, said = zip(*(self._replies.reply(reading, index) for index in range(count)), strict=True)
        choices = [
            {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for index, text in enumerate(texts)
        ]
        usage = {
            "prompt_tokens": reading.size // 4,
            "completion_tokens": sum(map(len, texts)) // 4,
            "prompt_tokens_details": {"cached_tokens": reading.cached // 4},
        }
        form = {"id": f"fake-{number}", "object": "chat.completion", "created": int(time.time()), "choices": choices}
        return {**form, "model": reading.fields.get("model"), "usage": usage}, list(said)

    async def _stream(self, request: web.Request, form: dict[str, Any]) -> web.StreamResponse:
        fault, _, value = self.settings.stream_fault.partition("=")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        text: str = form["choices"][0]["message"]["content"]
        events: list[dict[str, Any]] = [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]
        events += [{"delta": {"content": text[i : i + 5]}, "finish_reason": None} for i in range(0, len(text), 5)]
        events.append({"delta": {}, "finish_reason": "stop"})
        for place, event in enumerate(events):
            if self.settings.piece_s:
                await asyncio.sleep(self.settings.piece_s)
            await response.write(b": still here\n\ndata: " + orjson.dumps({"choices": [event]}) + b"\n\n")
            if place == 2 and fault == "stall":
                await asyncio.sleep(float(value))
            if place == 2 and fault == "cut" and request.transport is not None:
                request.transport.abort()
                return response
            if place == 2 and fault == "error":
                await response.write(b'data: {"error":{"message":"engine died"}}\n\n')
                return response
        await response.write(b"data: " + orjson.dumps({"choices": [], "usage": form["usage"]}) + b"\r\n\r\n")
        if fault != "no_done":
            await response.write(b"data: [DONE]\n\n")
        return response

    async def _models(self, request: web.Request) -> web.Response:
        if self._locked(request):
            return web.json_response({"error": {"message": "no such key"}}, status=401)
        if self.settings.models_status != 200:
            return web.json_response({"error": {"message": "scripted"}}, status=self.settings.models_status)
        data = [{"id": model, "object": "model"} for model in self.settings.models or ("fake",)]
        return web.json_response({"object": "list", "data": data})

    async def _get_log(self, _: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(self.log), content_type="application/json")

    async def _delete_log(self, _: web.Request) -> web.Response:
        self.forget()
        return web.Response()

    async def _post_settings(self, request: web.Request) -> web.Response:
        self.set(Settings(**{**self.settings.model_dump(), **await request.json()}))
        return web.Response()


class FakeServer:
    """The server on a thread of its own, or with `run` in this one. `down` and `up` are an outage on the same port."""

    def __init__(self, settings: Settings | None = None, port: int = 0) -> None:
        self.model = FakeModel(settings or Settings())
        self.port = port
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def log(self) -> list[dict[str, Any]]:
        """What was asked and answered so far."""
        return list(self.model.log)

    def change(self, **settings: Any) -> None:
        """Replace some settings."""
        self.model.set(Settings(**{**self.model.settings.model_dump(), **settings}))

    def up(self) -> None:
        """Listen."""
        asyncio.run_coroutine_threadsafe(self.start(), self._loop).result(10)

    def down(self) -> None:
        """Stop listening, and break all connections."""
        asyncio.run_coroutine_threadsafe(self.stop(), self._loop).result(10)

    async def start(self) -> None:
        self._runner = web.AppRunner(
            self.model.app(), access_log=None, shutdown_timeout=0, handle_signals=False, handler_cancellation=True
        )
        await self._runner.setup()
        self._socket = socket.create_server(("127.0.0.1", self.port), backlog=1024)
        await web.SockSite(self._runner, self._socket, backlog=1024).start()
        self.port = self._socket.getsockname()[1]

    async def stop(self) -> None:
        if self._runner is None or self._runner.server is None:
            return
        # asyncio loses a connection that comes in while it stops listening, and never closes it.
        asyncio.get_running_loop().remove_reader(self._socket)
        await asyncio.sleep(0.01)
        for connection in list(self._runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await self._runner.cleanup()
        self._runner = None


async def _serve(server: FakeServer) -> None:
    await server.start()
    print(server.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--settings", default="{}", help="JSON of fields of Settings")
    arguments = parser.parse_args()
    asyncio.run(_serve(FakeServer(Settings.model_validate_json(arguments.settings), arguments.port)))
