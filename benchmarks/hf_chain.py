"""Chains on the `hf` backend against plain `generate`: N paths of T steps about one picture.

    python benchmarks/hf_chain.py --out benchmarks/results/hf_chain.json

Three ways do the same work on the embedded model (every reply has the same forced length, sampled):

- hf: the backend; the first step of all paths is one request, then every path goes on by itself;
- plain: `generate` afresh for each step of each path, as a script does it;
- plain, batched: `generate` afresh for each step, all paths of the step in one batch.

"Unavoidable" prompt tokens are those that no earlier pass has computed: the first prompt once, then of each step the
last token of the reply before it and the new turn. On a machine that is busy with other things compare the processor
seconds, not the seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from insightv.records import Message, Picture, Sampling

SYSTEM = 'Think step by step. Reply in JSON: {"title": ..., "content": ..., "action": "continue" or "summary"}.'
Chain = list[Message]
WIDTHS = (26, 10, 15, 12, 9, 8, 9)


def forced(source: Path | None, folder: Path) -> Path:
    """A copy of the model (None: random weights) in which no token ends a reply and all but padding have texts.

    So all replies have the forced length, and a reply that is sent back has as many tokens as were drawn.
    """
    if source is None:
        _random(folder)
    else:
        for name in ("config", "generation_config", "processor_config", "tokenizer", "tokenizer_config"):
            (folder / f"{name}.json").write_bytes((source / f"{name}.json").read_bytes())
        for name in ("model.safetensors", "chat_template.jinja"):
            (folder / name).write_bytes((source / name).read_bytes())
    for name, change in (
        ("tokenizer_config.json", {"eos_token": "<pad>", "additional_special_tokens": [], "extra_special_tokens": {}}),
        ("generation_config.json", {"eos_token_id": 0}),
    ):
        settings = json.loads((folder / name).read_text("utf-8"))
        (folder / name).write_text(json.dumps(settings | change), "utf-8")
    tokens = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    for token in tokens["added_tokens"]:
        token["special"] = token["content"] == "<pad>"
    (folder / "tokenizer.json").write_text(json.dumps(tokens), "utf-8")
    return folder


def _random(folder: Path) -> None:
    import torch

    from tools.tiny import model

    tokenizer = model.build_tokenizer()
    net = model.build_model(tokenizer)
    with torch.no_grad():
        weight = net.get_input_embeddings().weight
        weight.normal_(0, 0.3)  # decided enough that the zeros below are never drawn
        weight[: len(model.SPECIAL)] = 0
    model.save(net, model.build_processor(tokenizer), folder)


def picture(seed: int) -> Picture:
    """A picture of bars, another one for each seed: no repeat profits from the one before it."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (84, 84), (255, 255, 255))
    for i in range(5):
        height = (seed * 7919 + i * 104729) % 70 + 5
        ImageDraw.Draw(image).rectangle((6 + 15 * i, 80 - height, 16 + 15 * i, 80), fill=(40 * i, 90, seed % 256))
    file = io.BytesIO()
    image.save(file, "PNG")
    data = file.getvalue()
    return Picture(data=data, mime="image/png", sha256=sha256(data).hexdigest(), width=84, height=84)


def opening(seed: int) -> Chain:
    """The conversation that all paths begin with."""
    return [
        Message(role="system", content=SYSTEM),
        Message(role="user", content=(picture(seed), f"What is the sum of bar A and bar B? ({seed})")),
    ]


def onward(chain: Chain, reply: str) -> Chain:
    """The conversation at the next step."""
    return [*chain, Message(role="assistant", content=reply), Message(role="user", content="Give the next step.")]


class Work:
    """The work of one repeat, done in three ways. `tokens` are the prompt tokens that each way computed."""

    def __init__(self, folder: Path, paths: int, steps: int, length: int) -> None:
        from insightv.backends.hf.load import load
        from insightv.backends.hf.model import HFModel
        from insightv.backends.hf.source import ModelSource

        self.paths, self.steps, self.length = paths, steps, length
        self.model = HFModel(str(folder))
        self.loaded = load(ModelSource(str(folder)))
        self.tokens = {"hf": 0, "plain": 0, "plain, batched": 0, "unavoidable": 0}

    async def hf(self, seed: int) -> None:
        """Through the backend."""
        before = self.model.counts.computed
        start = opening(seed)
        replies = await self.model.chat(start, self._sampling(seed), n=self.paths)
        first = replies[0].usage.prompt_tokens
        self.tokens["unavoidable"] += first

        async def raise_if_stopped(chain: Chain, reply: str, index: int) -> None:
            last = first
            for step in range(1, self.steps):
                chain = onward(chain, reply)
                [completion] = await self.model.chat(chain, self._sampling(seed + 1000 * index + step))
                self.tokens["unavoidable"] += completion.usage.prompt_tokens - last - (self.length - 1)
                last, reply = completion.usage.prompt_tokens, completion.text

        await asyncio.gather(*(raise_if_stopped(start, reply.text, i) for i, reply in enumerate(replies)))
        self.tokens["hf"] += self.model.counts.computed - before

    def plain(self, seed: int) -> None:
        """A script's way: one `generate` per step and path."""
        for _ in range(self.paths):
            chain = opening(seed)
            for _ in range(self.steps):
                [reply] = self._generate([chain], "plain")
                chain = onward(chain, reply)

    def batched(self, seed: int) -> None:
        """One `generate` per step, with a batch of all paths."""
        chains = [opening(seed) for _ in range(self.paths)]
        for _ in range(self.steps):
            replies = self._generate(chains, "plain, batched")
            chains = [onward(chain, reply) for chain, reply in zip(chains, replies, strict=True)]

    def _sampling(self, seed: int) -> Sampling:
        return Sampling(temperature=0.7, top_p=0.95, max_tokens=self.length, seed=seed)

    def _generate(self, chains: list[Chain], way: str) -> list[str]:
        import torch

        from insightv.backends.hf.plain_generate import model_inputs

        inputs = model_inputs(self.loaded, chains)
        self.tokens[way] += int(inputs["attention_mask"].sum())
        model: Any = self.loaded.model
        with torch.inference_mode():
            ids = model.generate(
                **inputs, do_sample=True, temperature=0.7, top_p=0.95, top_k=0,
                min_new_tokens=self.length, max_new_tokens=self.length,
            )  # fmt: skip
        new = ids[:, inputs["input_ids"].shape[1] :]
        return [self.loaded.tokenizer.decode(row, skip_special_tokens=True) for row in new]


def timed(call: Callable[[int], object], seed: int) -> tuple[float, float]:
    """Seconds, and seconds of the processor in all threads, that a call takes."""
    start, cpu = time.perf_counter(), time.process_time()
    call(seed)
    return time.perf_counter() - start, time.process_time() - cpu


def measure(folder: Path, paths: int, steps: int, length: int, repeats: int) -> dict[str, Any]:
    """Times of all three ways, taken in turn, after one round to warm up."""
    import torch
    import transformers

    work = Work(folder, paths, steps, length)
    with asyncio.Runner() as runner:
        ways: dict[str, Callable[[int], object]] = {
            "hf": lambda seed: runner.run(work.hf(seed)),
            "plain": work.plain,
            "plain, batched": work.batched,
        }
        for call in ways.values():
            call(0)
        work.tokens = dict.fromkeys(work.tokens, 0)
        times: dict[str, list[float]] = {way: [] for way in ways}
        cpu: dict[str, list[float]] = {way: [] for way in ways}
        for repeat in range(1, repeats + 1):
            for way, call in ways.items():
                seconds, processor = timed(call, repeat)
                times[way].append(seconds)
                cpu[way].append(processor)
        runner.run(work.model.aclose())
    drawn = paths * steps * length
    return {
        "paths": paths, "steps": steps, "tokens_per_step": length, "repeats": repeats,
        "parameters": work.loaded.model.num_parameters(),
        "machine": {"cpus": os.cpu_count(), "threads": torch.get_num_threads(), "load": os.getloadavg()[0]},
        "torch": torch.__version__, "transformers": transformers.__version__,
        "unavoidable_prompt_tokens": work.tokens["unavoidable"] // repeats,
        "ways": {
            way: {
                "seconds": {"median": statistics.median(taken), "least": min(taken), "most": max(taken)},
                "all_seconds": taken,
                "processor_seconds": statistics.median(cpu[way]),
                "drawn_per_second": drawn / statistics.median(taken),
                "prompt_tokens": work.tokens[way] // repeats,
                "prompt_over_unavoidable": work.tokens[way] / work.tokens["unavoidable"],
                "times_faster_with_hf": statistics.median(taken) / statistics.median(times["hf"]),
                "times_less_processor_with_hf": statistics.median(cpu[way]) / statistics.median(cpu["hf"]),
            }
            for way, taken in times.items()
        },
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    names = ("seconds (least..most)", "tokens/s", "prompt tokens", "over least", "hf is", "cpu s", "hf is")
    head = " " * 16 + "".join(f"{name:>{width}}" for name, width in zip(names, WIDTHS, strict=True))
    lines = [
        "{paths} paths of {steps} steps of {tokens_per_step} tokens, {repeats} repeats".format(**result),
        f"unavoidable prompt tokens: {result['unavoidable_prompt_tokens']}",
        head,
    ]
    for way, row in result["ways"].items():
        seconds = "{median:.2f} ({least:.2f}..{most:.2f})".format(**row["seconds"])
        cells = (
            seconds,
            f"{row['drawn_per_second']:.0f}",
            str(row["prompt_tokens"]),
            f"{row['prompt_over_unavoidable']:.3f}",
            f"{row['times_faster_with_hf']:.2f}x",
            f"{row['processor_seconds']:.2f}",
            f"{row['times_less_processor_with_hf']:.2f}x",
        )
        lines.append(f"{way:16}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True)))
    return "\n".join(lines)


def main() -> None:
    """Measure, print and, with `--out`, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=Path(str(files("insightv") / "tiny" / "weights" / "teacher")))
    parser.add_argument("--random", action="store_true", help="random weights in the shape of the embedded model")
    parser.add_argument("--paths", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=32, help="tokens of each reply")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="torch's threads, for all three ways")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = forced(None if options.random else options.model, Path(scratch))
        result = measure(folder, options.paths, options.steps, options.tokens, options.repeats)
    result["model"] = "random weights" if options.random else options.model.name
    print(table(result))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
