"""The server under a steady load for a long time, and then told to stop.

    python benchmarks/serve_soak.py --seconds 3600 --rate 200 --out benchmarks/results/serve_soak.json

The server (`quick_server.py`, the real one over a model that takes 10 ms for a question) is asked `rate` questions a
second on loopback, at their times, whether or not those before are answered (open loop); some have a picture. Times
count from when a question was due, so that a client that is late counts too. For each interval: memory and descriptors
of the server and of its decoders, p50 and p99. At the end `--burst` questions more are sent at once, and SIGTERM with
them: each that was sent before the signal must have its answer. Writes JSON, a table and a picture.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from insightv.testing import sample_picture

ROOT = Path(__file__).parents[1]
PANELS = (
    ("resident memory, MB", (("server", "memory_mb"), ("decoders", "decoders_mb"))),
    ("open descriptors", (("server", "descriptors"),)),
    ("ms from when a question was due", (("p50", "p50_ms"), ("p99", "p99_ms"))),
)
IDLE_S = 20
"""How long the client keeps a connection that it does not use; the server closes it after 30 s."""
COLOURS = ("#1f77b4", "#d62728")


@dataclass(frozen=True)
class Interval:
    """What was so at the end of an interval, and the answers within it."""

    at_s: float
    answered: int
    refused: int
    failed: int
    p50_ms: float
    p99_ms: float
    memory_mb: float
    decoders_mb: float
    descriptors: int


def question(picture: bool) -> bytes:
    """A whole request."""
    content: list[object] = [{"type": "text", "text": "Which bar is tallest?"}]
    if picture:
        content.append({"type": "image_url", "image_url": {"url": sample_picture().data_url}})
    body = json.dumps({"model": "insightv", "messages": [{"role": "user", "content": content}]}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass
class Load:
    """The client: kept-alive connections, as many as it needs at a time."""

    port: int
    idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    taken_ms: list[float] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    in_flight: int = 0
    stopped: bool = False

    def begin(self, request: bytes, due: float) -> None:
        """Ask, and do not wait."""
        task = asyncio.create_task(self.ask(request, due))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def ask(self, request: bytes, due: float) -> None:
        """One question. Those that have not been sent when the server is told to stop are not sent."""
        reader, writer = self._kept() or await asyncio.open_connection("127.0.0.1", self.port)
        if self.stopped:
            writer.close()
            return
        writer.write(request)
        self.in_flight += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
        except (OSError, EOFError) as error:
            self.statuses["lost" if self.stopped else type(error).__name__] += 1
            writer.close()
        else:
            self.statuses[head[9:12].decode()] += 1
            self.taken_ms.append(1000 * (time.perf_counter() - due))
            writer.close() if self.stopped else self.idle.append((time.monotonic(), reader, writer))
        finally:
            self.in_flight -= 1

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The connection that was used last; those that the server would soon close are left."""
        while self.idle and self.idle[0][0] < time.monotonic() - IDLE_S:
            self.idle.pop(0)[2].close()
        return self.idle.pop()[1:] if self.idle else None


def memory_mb(pid: int) -> float:
    """The resident memory of a process; 0 of one that is gone."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


class Soak:
    """The server, the load on it, and what was seen."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.seen: list[Interval] = []
        self.late_ms: list[float] = []
        self.failures: Counter[str] = Counter()
        self._requests = [question(True), *[question(False)] * (round(1 / options.pictures) - 1)]

    async def run(self) -> dict[str, Any]:
        """All of it."""
        arguments = [sys.executable, str(ROOT / "benchmarks" / "quick_server.py")]
        own = os.environ | {"PYTHONPATH": str(ROOT)}
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=own) as server:
            assert server.stdout is not None
            try:
                load = Load(int(server.stdout.readline().rpartition(":")[2]))
                watch = asyncio.create_task(self._watch(load, server.pid))
                await self._steadily(load)
                watch.cancel()
                drain = await self._drain(load, server)
            finally:
                server.kill()
        return self._result(drain)

    async def _steadily(self, load: Load) -> None:
        began = time.perf_counter()
        for number in range(round(self.options.seconds * self.options.rate)):
            due = began + number / self.options.rate
            await asyncio.sleep(max(0, due - time.perf_counter()))
            self.late_ms.append(1000 * (time.perf_counter() - due))
            load.begin(self._requests[number % len(self._requests)], due)

    async def _drain(self, load: Load, server: subprocess.Popen[str]) -> dict[str, Any]:
        now, before = time.perf_counter(), load.statuses.copy()
        for _ in range(self.options.burst):
            load.begin(self._requests[0], now)
        while load.in_flight < self.options.burst and time.perf_counter() < now + 0.005:
            await asyncio.sleep(0)
        in_flight, load.stopped = load.in_flight, True
        server.send_signal(signal.SIGTERM)
        told = time.perf_counter()
        while load.in_flight:
            await asyncio.sleep(0.005)
        answered_s = time.perf_counter() - told
        code = await asyncio.to_thread(server.wait, 60)
        await asyncio.gather(*load.tasks, return_exceptions=True)
        return {
            "in_flight_at_sigterm": in_flight,
            "lost": load.statuses["lost"],
            "statuses": dict(load.statuses - before),
            "last_answer_after_s": round(answered_s, 3),
            "ended_after_s": round(time.perf_counter() - told, 3),
            "exit_code": code,
        }

    async def _watch(self, load: Load, pid: int) -> None:
        began = time.perf_counter()
        while True:
            await asyncio.sleep(self.options.interval)
            taken, statuses = load.taken_ms, load.statuses.copy()
            load.taken_ms = []
            load.statuses.clear()
            quantiles = statistics.quantiles(taken, n=100) if len(taken) > 1 else [0.0] * 99
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
            answered, refused = statuses.pop("200", 0), statuses.pop("429", 0)
            self.failures += statuses
            self.seen.append(
                Interval(
                    at_s=round(time.perf_counter() - began, 1),
                    answered=answered,
                    refused=refused,
                    failed=statuses.total(),
                    p50_ms=round(quantiles[49], 2),
                    p99_ms=round(quantiles[98], 2),
                    memory_mb=round(memory_mb(pid), 1),
                    decoders_mb=round(sum(memory_mb(int(child)) for child in children), 1),
                    descriptors=len(os.listdir(f"/proc/{pid}/fd")),
                )
            )

    def _result(self, drain: dict[str, Any]) -> dict[str, Any]:
        late = [round(each, 2) for each in statistics.quantiles(self.late_ms, n=100)]
        return {
            "seconds": self.options.seconds,
            "rate": self.options.rate,
            "share_with_picture": self.options.pictures,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "load_at_the_end": os.getloadavg(),
            "client_late_ms": {"p50": late[49], "p99": late[98]},
            "answered": sum(each.answered for each in self.seen),
            "refused": sum(each.refused for each in self.seen),
            "failed": sum(each.failed for each in self.seen),
            "failures": dict(self.failures),
            "drain": drain,
            "intervals": [asdict(each) for each in self.seen],
        }


def table(result: dict[str, Any], seen: list[Interval], picture: str) -> str:
    """The figures in words: ten of the intervals, and the end."""
    drain = result["drain"]
    rows = [
        f"| {each.at_s:.0f} | {each.answered} | {each.refused} | {each.failed} | {each.p50_ms:.1f} | {each.p99_ms:.1f} "
        f"| {each.memory_mb:.1f} | {each.decoders_mb:.1f} | {each.descriptors} |"
        for each in seen[:: max(1, len(seen) // 10)]
    ]
    end = (
        f"SIGTERM with {drain['in_flight_at_sigterm']} questions in flight. Lost: {drain['lost']}. Answers by status: "
        f"{drain['statuses']}. The last one came after {drain['last_answer_after_s']} s, and the process ended after "
        f"{drain['ended_after_s']} s with {drain['exit_code']}."
    )
    return f"""# The server under {result["rate"]:g} questions a second

`benchmarks/serve_soak.py --seconds {result["seconds"]:g} --rate {result["rate"]:g}`, {result["machine"]}.
The model takes 10 ms for a question; one question in {1 / result["share_with_picture"]:.0f} has a picture.
Client, server, decoders and whatever else runs on this machine share its cores (load {result["load_at_the_end"][0]:.1f}
at the end): waiting for a core is in all times. The client itself sent its questions
late by {result["client_late_ms"]["p50"]} ms in the median, {result["client_late_ms"]["p99"]} in the 99th percentile.

{result["answered"]} answered, {result["refused"]} refused (429), {result["failed"]} failed. At this rate, 64 are in
flight, and more are refused, once the server does not get a core for a third of a second.

| s | answered | refused | failed | p50 ms | p99 ms | server MB | decoders MB | descriptors |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}

{end}

![memory, descriptors and times]({picture})
"""


def drawing(seen: list[Interval]) -> str:
    """The curves as SVG, one panel above the other."""
    wide, high, left = 760, 150, 60
    parts = []
    for number, (title, curves) in enumerate(PANELS):
        top = 30 + number * (high + 45)
        most = max(getattr(each, name) for each in seen for _, name in curves) or 1
        parts.append(f'<text x="{left}" y="{top - 8}">{title} (up to {most:.0f})</text>')
        parts.append(f'<rect x="{left}" y="{top}" width="{wide}" height="{high}" fill="none" stroke="#999"/>')
        for place, (label, name) in enumerate(curves):
            points = " ".join(
                f"{left + wide * each.at_s / seen[-1].at_s:.1f},{top + high * (1 - getattr(each, name) / most):.1f}"
                for each in seen
            )
            colour = COLOURS[place]
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
            parts.append(f'<text x="{left + 480 + 90 * place}" y="{top - 8}" fill="{colour}">{label}</text>')
    foot = 30 + len(PANELS) * (high + 45)
    parts.append(f'<text x="{left}" y="{foot - 18}">0 to {seen[-1].at_s:.0f} s</text>')
    how = f'width="{left + wide + 20}" height="{foot}" font-family="sans-serif" font-size="13"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {how}>\n' + "\n".join(parts) + "\n</svg>\n"


def main() -> None:
    """Run, write the figures, and say by the exit code whether an answer was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--rate", type=float, default=200, help="questions a second")
    parser.add_argument("--pictures", type=float, default=0.05, help="the share of questions with a picture")
    parser.add_argument("--burst", type=int, default=60, help="questions that are in flight when it is told to stop")
    parser.add_argument("--interval", type=float, default=5, help="seconds between two lines")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "serve_soak.json")
    options = parser.parse_args()
    soak = Soak(options)
    result = asyncio.run(soak.run())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    options.out.with_suffix(".md").write_text(table(result, soak.seen, options.out.with_suffix(".svg").name), "utf-8")
    options.out.with_suffix(".svg").write_text(drawing(soak.seen), "utf-8")
    print(json.dumps({name: value for name, value in result.items() if name != "intervals"}, indent=1))
    sys.exit(1 if result["drain"]["lost"] or result["failed"] else 0)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
