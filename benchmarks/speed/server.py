"""The benchmark's model server, in a process of its own: `python -m benchmarks.speed.server` prints its port.

HTTP by hand, for it must be much quicker than what is measured. `POST /reset` with the settings begins anew, `GET
/counts` says what happened since. With `instant` a reply goes out at once, else after its service.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from hashlib import blake2b
from typing import Any

import orjson

from benchmarks.speed.service import Rates, Service
from benchmarks.speed.work import Reader, Request, draw

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_FAULTS = {
    429: b'{"error":{"message":"too many requests","code":"rate_limit_exceeded"}}',
    500: b'{"error":{"message":"the engine stumbled"}}',
}


@dataclass
class State:
    """What the server does, and what it has seen since the last reset."""

    rates: Rates
    instant: bool = False
    fault_share: float = 0.0
    reader: Reader = field(default_factory=Reader)
    seen: Counter[bytes] = field(default_factory=Counter)
    tries: Counter[bytes] = field(default_factory=Counter)
    requests: int = 0
    faults: int = 0
    reply_bytes: int = 0
    first: float = 0.0
    last: float = 0.0
    replied: int = 0

    def __post_init__(self) -> None:
        self.service = Service(asyncio.get_running_loop(), self.rates)
        self.loop = asyncio.get_running_loop()

    def counts(self) -> dict[str, Any]:
        """What there is to say; times in seconds, `repeats` are requests answered before with the same body."""
        return {
            "requests": self.requests,
            "replied": self.replied,
            "faults": self.faults,
            "distinct": len(self.seen),
            "repeats": self.seen.total() - len(self.seen),
            "reply_bytes": self.reply_bytes,
            "makespan_s": self.last - self.first,
            "slots": self.rates.slots,
            **asdict(self.service.counts),
            "processor_s": time.process_time(),
        }

    def fault_of(self, digest: bytes) -> int | None:
        """The status of a request that is refused, drawn anew at each try."""
        if not self.fault_share:
            return None
        self.tries[digest] += 1
        chance = draw("fault", digest.hex(), self.tries[digest])
        return None if chance >= self.fault_share else 429 if chance < self.fault_share / 2 else 500

    def answer(self, body: bytes, reply: Callable[[bytes], None]) -> None:
        """Answer a request for a reply of the model."""
        now = self.loop.time()
        self.requests += 1
        self.first = self.first or now
        digest = blake2b(body, digest_size=8).digest()
        fault = self.fault_of(digest)
        if fault is not None:
            self.faults += 1
            return reply(_http(_FAULTS[fault], b"%d Trouble" % fault))
        self.seen[digest] += 1
        request = self.reader.read(orjson.loads(body))
        if self.instant:
            return self._finish(request, reply)
        return self.service.draw(request.nodes, request.texts, partial(self._finish, request, reply))

    def _finish(self, request: Request, reply: Callable[[bytes], None]) -> None:
        choices = [
            {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for index, text in enumerate(request.texts)
        ]
        size = sum(map(len, request.texts))
        usage = {"prompt_tokens": sum(tokens for _, tokens in request.nodes), "completion_tokens": size // 4}
        form = {"id": "speed", "object": "chat.completion", "model": "speed", "choices": choices, "usage": usage}
        self.reply_bytes += size
        self.replied += 1
        self.last = self.loop.time()
        reply(_http(orjson.dumps(form)))


def _http(body: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


class Connection(asyncio.Protocol):
    """One connection: requests one after the other."""

    def __init__(self, holder: list[State]) -> None:
        self._holder = holder
        self._buffer = bytearray()
        self._needed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._buffer += data
        while len(self._buffer) >= max(self._needed, 1):
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(self._buffer, 0, end + 2)
            self._needed = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < self._needed:
                return
            head, body = bytes(self._buffer[:end]), bytes(self._buffer[end + 4 : self._needed])
            del self._buffer[: self._needed]
            self._needed = 0
            self._handle(head, body)

    def _handle(self, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1]
        if path.endswith(b"/chat/completions"):
            self._holder[0].answer(body, self._reply)
        elif path == b"/reset":
            self._holder[0] = _state(orjson.loads(body))
            self._reply(_http(b"{}"))
        elif path == b"/counts":
            self._reply(_http(orjson.dumps(self._holder[0].counts())))
        else:
            self._reply(_http(b"{}"))

    def _reply(self, reply: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(reply)


def _state(settings: dict[str, Any]) -> State:
    names = {each.name for each in fields(Rates)}
    rates = Rates(**{name: value for name, value in settings.items() if name in names})
    return State(rates, settings.get("instant", False), settings.get("fault_share", 0.0))


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    holder = [_state({})]
    server = await loop.create_server(lambda: Connection(holder), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cpu", type=int, help="the one processor to run on")
    options = parser.parse_args()
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    asyncio.run(_serve())
