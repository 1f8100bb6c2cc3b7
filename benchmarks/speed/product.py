"""The product at the same work: `Pipeline.build` with the `openai` backend, the answer check and the path judge.

Prints one line of JSON: processor and clock seconds of the build (imports apart), peak memory, bytes written.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from insightv.config.settings import Settings, check_settings
from insightv.pipeline import Pipeline


def settings(base_url: str, concurrency: int) -> Settings:
    """The settings of the run: as people have them, but for the server and its slots."""
    model = {"model": "openai/speed", "base_url": base_url}
    table = {
        "generator": {**model, "paths": 4},
        "scorers": [{"use": "answer", **model}, {"use": "path", **model}],
        "run": {"concurrency": concurrency},
    }
    return check_settings(table)


def _written() -> int:
    """Bytes that this process has handed to files (sockets do not count here)."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    pipeline = Pipeline(run=options.run, settings=settings(options.base_url, options.concurrency))
    began, processor, written = time.perf_counter(), time.process_time(), _written()
    status = asyncio.run(pipeline.abuild(options.questions, datasets=False))
    seconds, processor_s = time.perf_counter() - began, time.process_time() - processor
    return {
        "seconds": seconds,
        "processor_s": processor_s,
        "written_bytes": _written() - written,
        "image_bytes": sum(file.stat().st_size for file in (options.run / "images").iterdir()),
        "database_bytes": (options.run / "run.db").stat().st_size,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "requests": status.requests,
        "done": status.questions.done,
        "paths": status.paths.model_dump(),
        "unjudged": status.unjudged,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, default=96)
    parser.add_argument("--cpu", type=int)
    parser.add_argument("--profile", type=Path, help="write cProfile's figures of the main thread there")
    arguments = parser.parse_args()
    if arguments.cpu is not None:
        os.sched_setaffinity(0, {arguments.cpu})
    if arguments.profile:
        import cProfile

        with cProfile.Profile() as profile:
            result = _measured(arguments)
        profile.dump_stats(arguments.profile)
    else:
        result = _measured(arguments)
    json.dump(result, sys.stdout)
