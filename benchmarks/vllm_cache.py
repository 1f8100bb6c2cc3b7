"""How much of what a build could share does vLLM's prefix cache serve? Read from the server's own `/metrics`.

    make vllm-env
    INSIGHTV_VLLM=.venv-vllm/bin/vllm python benchmarks/vllm_cache.py --out benchmarks/results/vllm_cache.json

A build of chart questions on the embedded model, generator to final answers. The prompt tokens that could be shared are
those of the longest beginning that a prompt has in common with anything sent or answered before it, but for its last
token, which is always computed; of the n samples of one request all but the first could share all. A cache of blocks
serves whole blocks only, so both are given: of the tokens, and of the tokens in whole blocks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from insightv import Pipeline
from insightv.agents.generator import ProgressiveGenerator
from insightv.backends.vllm.model import VllmModel, vllm
from insightv.config.settings import check_settings
from insightv.interfaces import ChatModel
from insightv.records import Completion, Message, Sampling, Schema

BLOCK = 32
"""Tokens of a block; the smallest that vLLM's CPU build takes."""
TEACHER = str(files("insightv") / "tiny" / "weights" / "teacher")


def small_server() -> dict[str, Any]:
    """Options of a server of the embedded model that is easy on a small machine: one core, 1 GB for the cache."""
    core = str(max(os.sched_getaffinity(0)))
    arguments = ["--dtype", "float32", "--enforce-eager", "--block-size", str(BLOCK), "--max-num-seqs", "32"]
    arguments += ["--limit-mm-per-prompt", '{"image":1}']
    one = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": core, "VLLM_CPU_KVCACHE_SPACE": "1"}
    return {"arguments": arguments, "environment": one, "deadline_s": 900.0}


class Recorder(ChatModel):
    """A model that notes what is asked and answered, in the order of asking."""

    def __init__(self, model: ChatModel) -> None:
        self.model = model
        self.name = model.name
        self.calls: list[tuple[tuple[Message, ...], int, list[str]]] = []

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        """See `ChatModel.chat`."""
        said: list[str] = []
        self.calls.append((tuple(messages), n, said))
        replies = await self.model.chat(messages, sampling, n=n, schema=schema)
        said.extend(reply.text for reply in replies)
        return replies


def counters(model: VllmModel) -> dict[str, float]:
    """The server's counters of its prefix cache, in tokens."""
    request = urllib.request.Request(f"{model.engine.url}/metrics")
    with urllib.request.urlopen(request, timeout=60) as reply:
        text = reply.read().decode()
    found = re.findall(r"^vllm:prefix_cache_(queries|hits)_total\{.*\} ([\d.e+]+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def shareable(recorder: Recorder) -> dict[str, int]:
    """The prompt tokens asked, and how many of them could be shared, in all and in whole blocks."""
    from insightv.backends.hf.load import load
    from insightv.backends.hf.prompt import Prompter
    from insightv.backends.hf.source import ModelSource

    prompter = Prompter(load(ModelSource(TEACHER, device="cpu")))
    known: list[list[int]] = []
    found = {"prompt_tokens": 0, "tokens": 0, "block_tokens": 0}
    for messages, n, said in recorder.calls:
        keys = prompter.prompt(messages).keys
        first = min(max((_common(keys, other) for other in known), default=0), len(keys) - 1)
        for could in [first, *[len(keys) - 1] * (n - 1)]:
            found["prompt_tokens"] += len(keys)
            found["tokens"] += could
            found["block_tokens"] += could - could % BLOCK
        known.append(keys)
        known += [prompter.prompt([*messages, Message(role="assistant", content=text)]).keys for text in said]
    return found


def _common(one: list[int], other: list[int]) -> int:
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def measure(model: VllmModel, folder: Path, questions: int, paths: int = 4) -> dict[str, Any]:
    """Build with the model, and hold the cache's counters against what could be shared."""
    from insightv.tiny.world import write_questions

    before = counters(model)
    recorder = Recorder(model)
    generator = ProgressiveGenerator(recorder, max_steps=6, max_tokens=96, temperature=0.8)
    scorers: list[dict[str, Any]] = [{"use": "answer", "tolerance": 0.0, "exact_text": True}, {"use": "chart-steps"}]
    settings = check_settings({"seed": 7, "generator": {"paths": paths}, "run": {"concurrency": 8}})
    pipeline = Pipeline(run=folder / "run", generator=generator, scorers=scorers, settings=settings)
    began = time.monotonic()
    status = pipeline.build(write_questions(folder / "questions", questions, seed=7, split="heldout"), datasets=False)
    after, could = counters(model), shareable(recorder)
    hits = after["hits"] - before["hits"]
    return {
        "questions": questions,
        "paths": status.paths.model_dump(),
        "requests": status.requests,
        "seconds": round(time.monotonic() - began, 1),
        "prompt_tokens": after["queries"] - before["queries"],
        "prompt_tokens_by_our_count": could["prompt_tokens"],
        "hits": hits,
        "could_be_shared": could["tokens"],
        "could_be_shared_in_whole_blocks": could["block_tokens"],
        "block": BLOCK,
        "hits_of_shareable": round(hits / could["tokens"], 4),
        "hits_of_shareable_in_whole_blocks": round(hits / could["block_tokens"], 4),
    }


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=12)
    chosen = parser.parse_args()
    model = vllm(TEACHER, **small_server())
    try:
        asyncio.run(model.check())
        with tempfile.TemporaryDirectory() as folder:
            found = measure(model, Path(folder), chosen.questions)
    finally:
        asyncio.run(model.aclose())
    where = {"machine": f"{platform.machine()}, {os.cpu_count()} cores, vLLM 0.32.0 on the CPU, one core, float32"}
    chosen.out.write_text(json.dumps(where | found, indent=1) + "\n", "utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
