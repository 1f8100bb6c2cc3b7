"""A fake model server that answers at once: thousands of requests a second from one core, for runs of many questions.

    python benchmarks/instant_server.py                 # prints its port

Real HTTP on loopback in the chat completions format. Replies are made beforehand and chosen by the request's seed, so
the same request always has the same reply. Paths have two steps. A share of the replies is bad: some cannot be read
once, some chains never can be (rejected paths), some requests are refused (failed paths), and some answers are wrong,
or such that no rule can decide. GET /asked tells how many requests were answered, and when the first one came.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
import zlib
from functools import cache

VARIANTS = 997
FIELDS = re.compile(rb'"seed":(\d+)(?:,"n":(\d+))?.*?"json_schema":\{"name":"(\w+)"')
TRUTH = re.compile(rb"\[truth=(\d+)\]")
PATHS = re.compile(rb"There are (\d+) paths")
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_TEXT = """axis bar height label colour legend count total compare left right top middle corner grid value table row
column first second larger smaller equal even odd shape edge blue red green grey reads reaches shows stands between
above below the of a and at with its line mark"""
WORDS = _TEXT.split()
MUDDLED, REFUSED = "Muddled", "Overlong"
"""In the title of a first step: no second step of this chain can be read; the server refuses the chain."""


def sentence(draw: random.Random, words: int) -> str:
    """Some words with a number that no other sentence has."""
    return f"{' '.join(draw.choices(WORDS, k=words))} {draw.randrange(10**9)}."


def step(number: int, variant: int) -> str:
    """The text of a step, about 300 characters."""
    draw = random.Random(f"{number} {variant}")
    title = f"Look at {draw.choice(WORDS)} {draw.choice(WORDS)}"
    if number == 0 and variant % 100 < 2:
        title = MUDDLED if variant % 2 else REFUSED
    action = "summary" if number else "continue"
    return json.dumps({"title": title, "content": sentence(draw, 45).capitalize(), "action": action})


@cache
def choice(number: int, variant: int) -> bytes:
    """A choice of a reply without its index."""
    text = "Let me think." if number and variant % 50 == 7 else step(number, variant)
    return b'"message":{"role":"assistant","content":' + json.dumps(text).encode() + b'},"finish_reason":"stop"}'


@cache
def scores(paths: int, variant: int) -> bytes:
    """The choice with the scores of that many paths."""
    draw, rows = random.Random(f"scores {variant}"), []
    for path in range(1, paths + 1):
        score = draw.randrange(30, 100)
        parts = dict.fromkeys(("logic", "grounding", "completeness"), score)
        rows.append({"path": path, **parts, "score": score, "first_error": None if score >= 60 else 2})
    return said({"scores": rows})


def said(value: object) -> bytes:
    """A choice that says a JSON value."""
    text = json.dumps(json.dumps(value)).encode()
    return b'"message":{"role":"assistant","content":' + text + b'},"finish_reason":"stop"}'


def answer(body: bytes, variant: int) -> bytes:
    """The final answer: right, wrong, or in words that no rule decides."""
    found = TRUTH.search(body)
    truth = int(found[1]) if found else 0
    lot = variant % 100
    text = str(truth) if lot < 70 else str(2 * truth + 5) if lot < 97 else f"somewhat near the grid line {lot}"
    return said({"answer": text})


def choices(body: bytes, seed: int, n: int, kind: bytes) -> list[bytes]:
    """The choices of a reply; none where the request is refused."""
    variant = zlib.crc32(b"%d" % seed) % VARIANTS
    if kind == b"reasoning_step":
        said_before = body.count(b'"role":"assistant"')
        if said_before and f'\\"title\\": \\"{REFUSED}'.encode() in body:
            return []
        if said_before and f'\\"title\\": \\"{MUDDLED}'.encode() in body:
            return [said("I cannot tell.")]
        return [choice(min(said_before, 1), (variant + place * 31) % VARIANTS) for place in range(n)]
    if kind == b"final_answer":
        return [answer(body, variant)]
    if kind == b"path_scores":
        found = PATHS.search(body)
        return [scores(int(found[1]) if found else 1, variant)]
    return [said({"correct": variant % 3 == 0, "reason": "By the grid line."})]


def reply(body: bytes) -> tuple[bytes, bytes]:
    """Status and body of the answer to a request."""
    found = FIELDS.search(body, max(body.rfind(b'"temperature"'), 0))
    if found is None:
        return b"400 Bad Request", b'{"error":{"message":"no seed and schema"}}'
    made = choices(body, int(found[1]), int(found[2] or 1), found[3])
    if not made:
        return b"400 Bad Request", b'{"error":{"message":"this chain is refused","code":"bad_request"}}'
    listed = b",".join(b'{"index":%d,%s' % pair for pair in enumerate(made))
    usage = b'{"prompt_tokens":%d,"completion_tokens":%d}' % (len(body) // 4, len(listed) // 5)
    return b"200 OK", b'{"id":"x","object":"chat.completion","choices":[%s],"usage":%s}' % (listed, usage)


class Server(asyncio.Protocol):
    """One connection. Requests are answered as soon as they are whole; nothing of them is kept."""

    asked = 0
    first: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._buffer, self._need = transport, bytearray(), 0

    def data_received(self, data: bytes) -> None:
        """Take bytes, and answer what is whole."""
        self._buffer += data
        while len(self._buffer) >= max(self._need, 1):
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end])
            found = LENGTH.search(head)
            self._need = end + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < self._need:
                return
            body = bytes(self._buffer[end + 4 : self._need])
            del self._buffer[: self._need]
            self._need = 0
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            status, said = b"200 OK", json.dumps({"asked": Server.asked, "first": Server.first}).encode()
        else:
            Server.first = Server.first or time.time()
            Server.asked += 1
            status, said = reply(body)
        head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(said))
        self._transport.write(head + said)


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
