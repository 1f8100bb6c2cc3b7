"""Both agents as LoRA adapters on one vLLM engine, against two engines with merged models: the memory they hold.

    make vllm-env
    INSIGHTV_VLLM=.venv-vllm/bin/vllm python benchmarks/vllm_memory.py --out benchmarks/results/vllm_memory.json

A LLaVA-NeXT of a few hundred million parameters is made with random weights, and two adapters on it. Each way is asked
the same questions about pictures, then the memory of all processes of its engines is read: the resident set, and the
proportional one (PSS), in which what processes share counts once in all. Each engine reserves the same room for its
cache of keys and values, the least that vLLM's CPU build takes, so the figures are given without it too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from insightv.backends.vllm.model import VllmModel, vllm
from insightv.records import Message, Sampling
from insightv.testing import sample_picture

SAYS = ("What is the largest value?", "Which bar is smallest?", "How many bars are there?", "What is B plus C?")
AGENTS = ("reason", "summary")
CACHE_GB = 1


def make_base(folder: Path) -> int:
    """A model of the embedded one's kind, wider and deeper, with random weights; returns its number of parameters."""
    from tools.tiny.model import Shape, build_model, build_processor, build_tokenizer, save

    tokenizer = build_tokenizer()
    shape = Shape(vision_width=768, vision_layers=9, text_width=1280, text_layers=16, text_inner=3584)
    model = build_model(tokenizer, shape)
    save(model, build_processor(tokenizer), folder)
    return sum(weight.numel() for weight in model.parameters())


def make_adapter(
    folder: Path, base: str, seed: int, *, rank: int = 4, projector: bool = False, dtype: str = "float32"
) -> Path:
    """A LoRA adapter with random weights, and the merged model beside it (`FOLDER-merged`) for comparison."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText, AutoProcessor

    torch.manual_seed(seed)
    load: Any = AutoModelForImageTextToText
    layers = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    layers = f"({layers}|.*multi_modal_projector.*linear_.*)" if projector else layers
    chosen = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers)
    model: Any = get_peft_model(load.from_pretrained(base, dtype=getattr(torch, dtype)), chosen)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    model.save_pretrained(folder)
    merged = folder.with_name(f"{folder.name}-merged")
    model.merge_and_unload().save_pretrained(merged)
    processor: Any = AutoProcessor.from_pretrained(base)
    processor.save_pretrained(merged)
    return folder


def options(folder: Path) -> dict[str, Any]:
    """How every engine of this comparison is started."""
    arguments = ["--dtype", "bfloat16", "--enforce-eager", "--block-size", "32", "--max-num-seqs", "8"]
    arguments += ["--limit-mm-per-prompt", '{"image":1}']
    room = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": str(CACHE_GB)}
    return {"arguments": arguments, "environment": room, "deadline_s": 900.0, "log_folder": str(folder)}


async def ask(model: VllmModel) -> list[str]:
    """The greedy replies to the questions."""
    said = []
    for place, text in enumerate(SAYS):
        picture = sample_picture((10 + 12 * place, 50, 35))
        messages = [Message(role="user", content=(picture, text))]
        [reply] = await model.chat(messages, Sampling(temperature=0, max_tokens=32, seed=1))
        said.append(reply.text)
    return said


def memory_mb(groups: set[int]) -> dict[str, Any]:
    """The memory of all processes of these process groups."""
    found: dict[str, float] = {"Rss": 0.0, "Pss": 0.0}
    names = []
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or int((entry / "stat").read_text().rsplit(")", 1)[1].split()[2]) not in groups:
                continue
            rollup = (entry / "smaps_rollup").read_text()
            names.append((entry / "comm").read_text().strip())
        except (FileNotFoundError, ProcessLookupError):
            continue
        for kind in found:
            line = re.search(rf"^{kind}:\s+(\d+) kB", rollup, re.MULTILINE)
            found[kind] += int(line[1]) / 1024 if line else 0
    return {"rss_mb": round(found["Rss"]), "pss_mb": round(found["Pss"]), "processes": sorted(names)}


async def measured(models: list[VllmModel]) -> dict[str, Any]:
    """Start the models' engines, ask each model, read the memory, and stop the engines."""
    began = time.monotonic()
    try:
        await asyncio.gather(*(model.check() for model in models))
        ready = time.monotonic() - began
        replies = [await ask(model) for model in models]
        groups = {model.engine.group for model in models if model.engine.group is not None}
        found = memory_mb(groups)
    finally:
        for model in models:
            await model.aclose()
    without = found["pss_mb"] - 1024 * CACHE_GB * len(groups)
    return {
        "engines": len(groups),
        "ready_s": round(ready, 1),
        **found,
        "pss_mb_without_caches": without,
        "replies": replies,
    }


def main() -> None:
    """Measure both ways, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rank", type=int, default=16)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = make_base(folder / "base")
        adapters = [
            make_adapter(folder / agent, str(folder / "base"), seed, rank=chosen.rank, dtype="bfloat16")
            for seed, agent in enumerate(AGENTS)
        ]
        ways = {"two adapters, one engine": adapters}
        ways["two merged models, two engines"] = [path.with_name(f"{path.name}-merged") for path in adapters]
        found = {}
        for way, paths in ways.items():
            (folder / way).mkdir()
            given = options(folder / way)
            found[way] = asyncio.run(measured([vllm(str(path), **given) for path in paths]))
        sizes = {path.name: (path / "adapter_model.safetensors").stat().st_size for path in adapters}
        weights = (folder / "base" / "model.safetensors").stat().st_size
    one, two = found.values()
    replies = [reply for way in (one, two) for said in way.pop("replies") for reply in said]
    assert all(replies), replies
    result = {
        "machine": f"{platform.machine()}, vLLM 0.32.0 on the CPU, bfloat16, Python {platform.python_version()}",
        "parameters": count,
        "weights_mb": round(weights / 2**20),
        "adapter_mb": {name: round(size / 2**20, 1) for name, size in sizes.items()},
        "adapter_rank": chosen.rank,
        "cache_mb_per_engine": 1024 * CACHE_GB,
        **found,
        "ratio_pss": round(two["pss_mb"] / one["pss_mb"], 3),
        "ratio_pss_without_caches": round(two["pss_mb_without_caches"] / one["pss_mb_without_caches"], 3),
    }
    chosen.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
