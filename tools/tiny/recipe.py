"""Training the embedded models from nothing: `python -m tools.tiny.recipe` (`make tiny`).

First the model learns from text alone to find a value in what is written (`tell.drill`) and to work with it. Then it
learns to write down every value of a chart, with a little text between, until it reads; mixed from the start it learns
the formats and never the picture. Then come values that are asked for singly, and last all formats together, where
replies of all lengths are weighed alike in the end: the one token of a direct answer would be lost among a path's.
The base sees few whole paths about a picture: it learns to look under every format, to work in text, and to judge.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, TextIO

import torch

from tools.tiny import batches, fitting, measure, model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STATE, LOG = "state.pt", "training.jsonl"
_ASKED = ("perceive", "perceive", "direct", "direct")
MIXES: dict[str, tuple[tuple[str, ...], ...]] = {
    "describe": (("describe",),),
    "mixed": (
        ("steps", "steps", "direct", "direct", "direct"),
        ("steps", "reason", "judge", "describe", "direct"),
        ("steps", "reason", "direct", "direct", "judge"),
    ),
    "drill": (("drill",),),
    "asked": (
        ("steps", "steps", *_ASKED),
        ("steps", "judge", *_ASKED),
        ("steps", "reason", *_ASKED),
        ("reason", "judge", "describe", *_ASKED),
    ),
    "described": (("describe", *_ASKED),),
    "looked": (("look", "look", "look", "look", "describe", "perceive", "direct"),),
    "judged": (("judge", "judge", "judge", "describe", "direct"), ("judge", "judge", "look", "perceive")),
}
"""Which conversations share a picture, by the mix of a stage."""
TEXTS: dict[str, tuple[str, ...]] = {"text drill": ("drill",), "text steps": ("steps", "steps", "reason")}
"""Mixes of conversations without a picture (`batches.make_texts`)."""


@dataclass(frozen=True)
class Stage:
    """A stretch of training: `steps` batches of `batch` charts, the learning rate falling from `high` to `low`.

    `mix` names the mixes that follow each other, a batch each, over and over. `alike`: every reply weighs by the root
    of its length; else every token weighs the same.
    """

    mix: tuple[str, ...]
    steps: int
    high: float
    low: float
    batch: int = 32
    alike: bool = False


@dataclass
class Progress:
    """Where a training run stands; `save` and `load` keep it in a file of the output folder until the run is done."""

    net: Any
    optimizers: list[torch.optim.Optimizer]
    stage: int = 0
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Write everything that a later process needs to continue; the old file stays whole until the new one is."""
        state = {"net": self.net.state_dict(), "optimizers": [one.state_dict() for one in self.optimizers]}
        torch.save({**state, "stage": self.stage, "step": self.step, "seconds": self.seconds}, f"{path}.part")
        Path(f"{path}.part").replace(path)

    def load(self, path: Path) -> None:
        """Continue from where `save` was called."""
        state = torch.load(path, weights_only=True)
        self.net.load_state_dict(state["net"])
        for one, kept in zip(self.optimizers, state["optimizers"], strict=True):
            one.load_state_dict(kept)
        self.stage, self.step, self.seconds = state["stage"], state["step"], state["seconds"]


def train(net: Any, processor: Any, stages: Sequence[Stage], out: Path, seed: int, keep_s: float = 150.0) -> None:
    """Train `net` through `stages` into `out`: the model directory, and the log.

    Every `keep_s` seconds all is kept in `out`, so that a run that was stopped continues from there when called again.
    The state stays there after the last stage, for a run with more stages.
    """
    out.mkdir(parents=True, exist_ok=True)
    progress, state = Progress(net, fitting.optimizers(net)), out / STATE
    if state.exists():
        progress.load(state)
    with (out / LOG).open("a" if state.exists() else "w", encoding="utf-8") as log, ThreadPoolExecutor(1) as maker:
        while progress.stage < len(stages):
            _stage(progress, processor, stages, seed, log, maker, out, keep_s)
            progress.stage, progress.step = progress.stage + 1, 0
            progress.save(state)
            model.save(net, processor, out)


def _stage(
    progress: Progress,
    processor: Any,
    stages: Sequence[Stage],
    seed: int,
    log: TextIO,
    maker: ThreadPoolExecutor,
    out: Path,
    keep_s: float,
) -> None:
    """The rest of the stage that `progress` stands in. Batches are made beside the training, one ahead."""
    stage, number = stages[progress.stage], progress.stage + 1
    began, kept, before = time.monotonic(), time.monotonic(), progress.seconds

    def make(step: int) -> batches.Batch:
        rng, mix = random.Random(f"recipe {seed} {number} {step}"), stage.mix[step % len(stage.mix)]
        if mix in TEXTS:
            return batches.make_texts(processor.tokenizer, TEXTS[mix], stage.batch, rng)
        return batches.make_batch(processor.tokenizer, MIXES[mix], stage.batch, rng)

    seen: dict[str, list[tuple[float, float]]] = {}
    if progress.step == 0:
        _write(log, {"stage": number, **asdict(stage)})
    pending = maker.submit(make, progress.step + 1)
    for step in range(progress.step + 1, stage.steps + 1):
        batch = pending.result()
        pending = maker.submit(make, step + 1)
        rate = stage.low + (stage.high - stage.low) * (1 + math.cos(math.pi * step / stage.steps)) / 2
        fitting.set_rate(progress.optimizers, rate * min(1.0, step / 50))
        loss, right = fitting.update(progress.net, progress.optimizers, batch, stage.alike)
        progress.step, progress.seconds = step, before + time.monotonic() - began
        seen.setdefault(stage.mix[step % len(stage.mix)], []).append((loss, right))
        if step % 25 == 0 or step == stage.steps:
            _write(log, {"stage": number, "step": step, "seconds": round(progress.seconds, 1), **_means(seen)})
            seen.clear()
        if time.monotonic() - kept > keep_s:
            kept = time.monotonic()
            progress.save(out / STATE)
            model.save(progress.net, processor, out)


def _means(seen: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Any]:
    """Mean loss and share of right tokens since the last line, of each mix."""
    return {mix: [round(fmean(column), 4) for column in zip(*found, strict=True)] for mix, found in seen.items()}


def _write(log: TextIO, row: dict[str, Any]) -> None:
    line = json.dumps(row)
    log.write(line + "\n")
    log.flush()
    print(line, flush=True)


SHARED = (
    Stage(("text drill", "text drill", "text steps"), 400, 1e-3, 3e-4),
    Stage(("describe", "describe", "describe", "text drill"), 900, 1e-3, 2e-4),
    Stage(("described", "described", "described", "text steps"), 250, 8e-4, 2e-4, alike=True),
)
RECIPES: dict[str, tuple[Stage, ...]] = {
    "shared": SHARED,
    "teacher": (
        *SHARED,
        Stage(("asked", "describe", "asked", "text steps"), 440, 8e-4, 1e-4),
        Stage(("asked", "describe"), 120, 2e-4, 1e-5, alike=True),
    ),
    "base": (
        *SHARED,
        Stage(("asked", "described", "text steps"), 160, 6e-4, 1e-5, alike=True),
        Stage(("looked", "looked", "described"), 240, 4e-4, 1e-5, alike=True),
        Stage(("looked", "looked", "described"), 240, 6e-4, 1e-5, alike=True),
        Stage(("text steps", "text drill", "looked"), 200, 5e-4, 1e-5, alike=True),
        Stage(("judged", "text steps", "judged", "text drill", "looked"), 250, 5e-4, 1e-5, alike=True),
    ),
}
"""The stages of each model. The two begin with the same ones, which are done once."""


def make(name: str, out: Path, seed: int = 0, questions: int = 256) -> None:
    """Make the model `name` in the folder `out / name`, from nothing or from where an earlier call was stopped.

    `teacher` and `base` start from `out / "shared"`, which has to be there. Their held-out figures, on so many
    `questions` of each sort, are written into `measured.json` beside the log.
    """
    folder, shared = out / name, out / "shared"
    if name != "shared" and not (folder / STATE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        for kept in (STATE, LOG):
            shutil.copyfile(shared / kept, folder / kept)
    tokenizer = model.build_tokenizer()
    processor, net = model.build_processor(tokenizer), model.build_model(tokenizer, seed=seed)
    fitting.prepare(net)
    train(net, processor, RECIPES[name], folder, seed)
    if name != "shared":
        (folder / STATE).unlink()
        figures = json.dumps(measure.measure(folder, questions), indent=2)
        (folder / "measured.json").write_text(figures + "\n", "utf-8")
        print(figures, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the embedded models of insightv.")
    parser.add_argument("names", nargs="*", default=list(RECIPES), help=f"which, in order: {', '.join(RECIPES)}")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model directories")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--questions", type=int, default=256, help="held-out questions of each sort, to measure")
    options = parser.parse_args()
    for wanted in options.names:
        make(wanted, options.out, options.seed, options.questions)
