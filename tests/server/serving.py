"""The real server for tests: uvicorn on loopback in a thread of its own, over any reasoner."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from typing import Any, Self

from insightv.config.sections import ServeSection
from insightv.reasoner.reasoner import Reasoner
from insightv.server.app import make_app
from insightv.server.listen import DrainingServer, listen
from insightv.testing import sample_picture
from tests.world import wait_for

LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Reply:
    """A whole reply."""

    status: int
    headers: Message
    text: str

    def getheader(self, name: str) -> str | None:
        """A header, in whatever case."""
        return self.headers.get(name)


class Served:
    """A server for a reasoner that is made on the server's own loop."""

    def __init__(self, make: Callable[[], Reasoner], *, key: str | None = None, **limits: Any) -> None:
        self.limits = ServeSection(port=0, **limits)
        self._make = make
        self._key = key
        self._socket = listen(self.limits)
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server: DrainingServer | None = None
        self._thread.start()
        wait_for(lambda: self._server is not None and self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.reasoner = self._make()
        app = make_app(self.reasoner, limits=self.limits, key=self._key, hosts=LOOPBACK)
        self._server = DrainingServer(app, self.limits)
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            await app.aclose()
            await self.reasoner.aclose()

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """One request; of headers, `_` in a name stands for `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            named.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, data, named)
            found = connection.getresponse()
            return Reply(found.status, found.headers, found.read().decode())
        finally:
            connection.close()

    def form(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """The status and the JSON of one request."""
        reply = self.request(method, path, body, **headers)
        return reply.status, json.loads(reply.text)


def chat(text: str = "What is 3 + 4? [truth=7] [steps=3]", image: str | None = None, **fields: Any) -> dict[str, Any]:
    """The body of a request with a picture."""
    url = sample_picture().data_url if image is None else image
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    content += [{"type": "image_url", "image_url": {"url": url}}] if url else []
    return {"model": "insightv", "messages": [{"role": "user", "content": content}], **fields}
