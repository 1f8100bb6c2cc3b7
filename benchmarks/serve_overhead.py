"""What `Reasoner` and the server add to the two calls that they make.

    python benchmarks/serve_overhead.py --out benchmarks/results/serve_overhead.json

A fake model server in a process of its own answers each call after a fixed time. Three ways answer the same questions
about a picture, in turn, `concurrency` at once:

- bare: the two calls of the `openai` backend, with the same messages, the picture opened and encoded once;
- reasoner: `Reasoner.aanswer`, which opens the picture anew for each question;
- server: `insightv serve` in a process of its own, asked over HTTP, the picture as a data URL in each request.

Then: the time to the first streamed step, bare and through the server, in turn; and the answers to one client while a
thousand others hold connections that say nothing or never finish their request. Last, and alone with
`serve_keep_alive.py`: the time of requests over one kept-alive connection, to a server as it is and to one whose
listening socket is that of before (without TCP_NODELAY), in turn; the model takes 10 ms for a question.

Fake server, server and client share the processor. On a machine that is busy with other things, waiting for it is in
all times, and most in those of the way with the most processes; compare the least times there, and the processor
milliseconds, which count the client, the server and its children.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from serve_keep_alive import keep_alive, machine, started

from insightv.agents.reasoning import ThoughtsReasoner, reasoning_messages
from insightv.agents.replies.transcript import from_text
from insightv.agents.replies.transcript_stream import StepReader
from insightv.agents.summary import summary_messages
from insightv.backends.openai.factory import openai
from insightv.backends.openai.model import OpenAIModel
from insightv.events import StepStarted
from insightv.inputs.images import question_about
from insightv.reasoner.reasoner import Reasoner
from insightv.records import Picture, Question, ReasoningPath, Sampling
from insightv.testing import sample_picture

ROOT = Path(__file__).parents[1]
THOUGHT, SAID = Sampling(temperature=0.2, max_tokens=4096), Sampling(temperature=0.2, max_tokens=1024)
Way = Callable[[int], Awaitable[None]]


def text(number: int) -> str:
    """A question of which the fake server knows the answer."""
    return f"What is {number} + 1? [truth={number + 1}] [steps=5]"


class Work:
    """The three ways to answer a question."""

    def __init__(self, backend: str, server: str, session: aiohttp.ClientSession) -> None:
        self.model: OpenAIModel = openai("fake", base_url=backend)
        self.reasoner = Reasoner.of(self.model)
        self.picture: Picture = sample_picture()
        self._session, self._server = session, server

    async def bare(self, number: int) -> None:
        """Two calls."""
        question = Question(id="asked", question=text(number), images=(self.picture,))
        [thought] = await self.model.chat(reasoning_messages(question), THOUGHT)
        steps, _ = from_text(thought.text)
        path = ReasoningPath(question_id="asked", index=0, status="ok", steps=steps)
        [said] = await self.model.chat(summary_messages(question, path), SAID)
        assert str(number + 1) in said.text

    async def reason(self, number: int) -> None:
        """The reasoner."""
        answer = await self.reasoner.aanswer(self.picture.data, text(number))
        assert str(number + 1) in answer.text

    async def serve(self, number: int) -> None:
        """The server."""
        async with self._session.post(f"{self._server}/v1/chat/completions", json=self.body(number)) as reply:
            form = await reply.json()
        assert str(number + 1) in form["choices"][0]["message"]["content"], form

    def body(self, number: int, **fields: Any) -> dict[str, Any]:
        """A request."""
        parts = [
            {"type": "text", "text": text(number)},
            {"type": "image_url", "image_url": {"url": self.picture.data_url}},
        ]
        return {"model": "insightv", "messages": [{"role": "user", "content": parts}], **fields}

    async def bare_first_step(self, number: int) -> float:
        """Seconds to the first step of the backend's stream."""
        began, reader = time.perf_counter(), StepReader()
        question = await question_about([self.picture], text(number))
        async for piece in ThoughtsReasoner(self.model).stream_reason(question):
            if isinstance(piece, str) and any(isinstance(e, StepStarted) for e in reader.feed(piece)):
                return time.perf_counter() - began
        raise AssertionError("no step came")

    async def served_first_step(self, number: int) -> float:
        """Seconds to the first step of the server's stream."""
        began = time.perf_counter()
        body = self.body(number, stream=True)
        async with self._session.post(f"{self._server}/v1/chat/completions", json=body) as reply:
            async for line in reply.content:
                if b'"reasoning_content"' in line:
                    return time.perf_counter() - began
        raise AssertionError("no step came")


async def together(way: Way, questions: int, concurrency: int) -> float:
    """Seconds for all questions, `concurrency` at once."""
    numbers = iter(range(questions))

    async def work() -> None:
        for number in numbers:
            await way(number)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    return time.perf_counter() - began


def processor_s(pid: int) -> float:
    """Processor seconds of a process and of those that it has started and that still run."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
    return own + sum(processor_s(int(child)) for child in children)


async def overhead(work: Work, server: int, concurrency: int, rounds: int, repeats: int) -> dict[str, Any]:
    """The three ways in turn; ratios are medians over the repeats of the ratio within a repeat."""
    ways: dict[str, Way] = {"bare": work.bare, "reasoner": work.reason, "server": work.serve}
    questions = concurrency * rounds
    for way in ways.values():
        await together(way, concurrency, concurrency)
    times: dict[str, list[float]] = {name: [] for name in ways}
    processor = dict.fromkeys(ways, 0.0)
    for _ in range(repeats):
        for name, way in ways.items():
            before = time.process_time() + processor_s(server)
            times[name].append(await together(way, questions, concurrency))
            processor[name] += time.process_time() + processor_s(server) - before
    ratios = {name: [a / b for a, b in zip(times[name], times["bare"], strict=True)] for name in ("reasoner", "server")}
    return {
        "concurrency": concurrency,
        "questions": questions,
        "seconds": {name: statistics.median(taken) for name, taken in times.items()},
        "ratio_to_bare": {name: statistics.median(found) for name, found in ratios.items()},
        "ratios": ratios,
        "least_seconds": {name: min(taken) for name, taken in times.items()},
        "ratio_of_least": {name: min(times[name]) / min(times["bare"]) for name in ratios},
        "processor_ms_per_question": {name: 1000 * s / (questions * repeats) for name, s in processor.items()},
    }


async def first_step(work: Work, repeats: int) -> dict[str, Any]:
    """Milliseconds to the first step, one question at a time."""
    bare, served = [], []
    for number in range(repeats + 2):
        bare.append(await work.bare_first_step(number))
        served.append(await work.served_first_step(number))
    added = [1000 * (b - a) for a, b in zip(bare, served, strict=True)][2:]
    return {
        "repeats": repeats,
        "bare_ms": 1000 * statistics.median(bare[2:]),
        "server_ms": 1000 * statistics.median(served[2:]),
        "added_ms": {"median": statistics.median(added), "least": min(added), "most": max(added)},
    }


async def crowded(work: Work, server: str, clients: int, questions: int) -> dict[str, Any]:
    """One good client's seconds per question, without and with others that say nothing or never end."""
    host, port = server.removeprefix("http://").split(":")
    alone = [await together(work.serve, 1, 1) for _ in range(questions)]
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    starts = (b"", b"POST /v1/ch", f"{head}Content-Length: 1000\r\n\r\n{{".encode())
    readers, writers = [], []
    for number in range(clients):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(starts[number % len(starts)])
        readers.append(reader)
        writers.append(writer)
    among = [await together(work.serve, 1, 1) for _ in range(questions)]
    still = sum(not reader.at_eof() for reader in readers)
    for writer in writers:
        writer.close()
    return {
        "other_clients": clients,
        "still_connected_at_the_end": still,
        "questions": questions,
        "seconds_alone": statistics.median(alone),
        "seconds_among_them": statistics.median(among),
        "most_seconds_among_them": max(among),
    }


async def measure(options: argparse.Namespace, backend: str, server: str, pid: int) -> dict[str, Any]:
    """Everything, one after the other."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        work = Work(backend, server, session)
        try:
            rows = [
                await overhead(work, pid, concurrency, rounds, options.repeats)
                for concurrency, rounds in ((1, 4), (16, 2), (128, 1))
            ]
            quick = {"latency_s": 0.05}
            await session.post(backend.removesuffix("/v1") + "/settings", json=quick)
            return {
                "latency_s": options.latency,
                "machine": machine(),
                "overhead": rows,
                "first_step": quick | await first_step(work, options.steps),
                "crowded": quick | await crowded(work, server, options.clients, 15),
            }
        finally:
            await work.model.aclose()


def all_of_it(options: argparse.Namespace) -> dict[str, Any]:
    """Every part, with a fake model server and the command in processes of their own."""
    settings = json.dumps({"latency_s": options.latency})
    fake, port = started("-m", "tests.servers.fake_openai", "--settings", settings)
    backend = f"http://127.0.0.1:{int(port)}/v1"
    limits = ("--set", "serve.concurrency=256")
    arguments = ("serve", "--model", "openai/fake", "--base-url", backend, "--port", "0", "--json", *limits)
    server, line = started("-m", "insightv.cli", *arguments)
    try:
        return asyncio.run(measure(options, backend, json.loads(line)["url"], server.pid))
    finally:
        server.terminate()
        server.wait(60)
        fake.kill()


def main() -> None:
    """Measure, print and, with `--out`, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--latency", type=float, default=1.0, help="seconds that the fake server takes for a reply")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="repeats of the first step")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument(
        "--kept-alive", type=int, default=300, help="requests of each kind over a kept-alive connection"
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    result = all_of_it(options) | {"keep_alive": keep_alive(options.kept_alive)}
    print(json.dumps(result, indent=2))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
