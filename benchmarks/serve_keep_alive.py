"""Requests over one kept-alive connection to the server as it is, and to one with the listening socket of before.

    python benchmarks/serve_keep_alive.py --out benchmarks/results/serve_keep_alive.json

Both servers are asked in turn. The socket of before leaves connections without TCP_NODELAY, so that the body of a reply
waits until the client's kernel acknowledges its head. The model takes 10 ms for a question. `serve_overhead.py` has the
same figures among its own.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
QUICK = str(ROOT / "benchmarks" / "quick_server.py")


def keep_alive(repeats: int) -> dict[str, Any]:
    """Milliseconds of a request over one kept-alive connection, before and after, in turn; 10 ms of it the model's."""
    asked = json.dumps({"model": "insightv", "messages": [{"role": "user", "content": "Which bar is tallest?"}]})
    what = {"GET /v1/models": ("GET", "/v1/models", None), "a question": ("POST", "/v1/chat/completions", asked)}
    servers = {"before": started(QUICK, "--held-back"), "after": started(QUICK)}
    taken: dict[str, dict[str, list[float]]] = {name: {way: [] for way in servers} for name in what}
    try:
        lines = {way: http.client.HTTPConnection(url.strip()[7:], timeout=60) for way, (_, url) in servers.items()}
        for _ in range(repeats + 5):
            for name, (method, path, body) in what.items():
                for way, connection in lines.items():
                    began = time.perf_counter()
                    connection.request(method, path, body, {"Content-Type": "application/json"})
                    reply = connection.getresponse()
                    assert reply.status == 200, reply.read()
                    reply.read()
                    taken[name][way].append(1000 * (time.perf_counter() - began))
    finally:
        for process, _ in servers.values():
            process.terminate()
            process.wait(60)
    return {name: {way: spread(found[5:]) for way, found in each.items()} for name, each in taken.items()}


def spread(milliseconds: list[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    return {"p50_ms": statistics.median(milliseconds), "p99_ms": statistics.quantiles(milliseconds, n=100)[98]}


def started(*command: str) -> tuple[subprocess.Popen[str], str]:
    """A process, and the first line that it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    assert process.stdout is not None
    return process, process.stdout.readline()


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {"cpus": os.cpu_count(), "own_cpus": len(os.sched_getaffinity(0)), "load": os.getloadavg()}


def main() -> None:
    """Measure, print and, with `--out`, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=300, help="requests of each kind to each server")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = {"machine": machine(), "keep_alive": keep_alive(options.repeats)}
    print(json.dumps(result, indent=2))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
