"""Processor time of a call of the `openai` backend, in two checkouts side by side.

    git worktree add /tmp/before COMMIT
    python benchmarks/http_client.py --before /tmp/before

`instant_server.py` answers at once in a process of its own. The same calls (a picture of 25 KB, a short text, a schema;
64 at a time) are made by a fresh process of either checkout in turn; printed is the processor time of that process
alone, for a call, and the difference within each pair of runs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
AT_ONCE, FIRST = 64, 200


async def calls(url: str, number: int) -> float:
    """Milliseconds of processor time for a call."""
    from insightv.backends.openai import openai
    from insightv.records import Message, Picture, Sampling, Schema

    data = os.urandom(25_000)
    picture = Picture(data=data, mime="image/png", sha256="0" * 64, width=9, height=9)
    messages = [Message(role="system", content="Look."), Message(role="user", content=(picture, "Which? [truth=7]"))]
    schema = Schema(name="reasoning_step", definition={"type": "object"})
    model = openai("speed", base_url=url)

    async def worker(seeds: Iterator[int]) -> None:
        for seed in seeds:
            await model.chat(messages, Sampling(seed=seed), schema=schema)

    async def make(seeds: Iterator[int]) -> None:
        await asyncio.gather(*(worker(seeds) for _ in range(AT_ONCE)))

    await make(iter(range(FIRST)))
    began = time.process_time()
    await make(iter(range(FIRST, FIRST + number)))
    spent = time.process_time() - began
    await model.aclose()
    return 1000 * spent / number


def spread(values: list[float]) -> str:
    """The median with the least and the most."""
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f}, n = {len(values)})"


def measured(checkout: Path, url: str, number: int) -> float:
    """What a process of a checkout finds."""
    command = [sys.executable, str(HERE / "http_client.py"), "--url", url, "--calls", str(number)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measure either checkout in turn, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", type=Path, help="the other checkout")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.url:
        print(asyncio.run(calls(options.url, options.calls)))
        return
    server = subprocess.Popen([sys.executable, str(HERE / "instant_server.py")], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        pairs = [
            tuple(measured(tree, url, options.calls) for tree in (options.before, HERE.parent))
            for _ in range(options.repeats)
        ]
    finally:
        server.kill()
        server.wait()
    before, after = map(list, zip(*pairs, strict=True))
    print("| ms of processor time for a call | median (least to most) |\n|---|---|")
    print(f"| before | {spread(before)} |\n| after | {spread(after)} |")
    print(f"| after - before, by pairs | {spread([late - early for early, late in pairs])} |")


if __name__ == "__main__":
    main()
