"""Training the embedded models from nothing: `python -m insightv.tiny.recipe` (`make tiny`).

First the model learns to write down every value of a chart and nothing else, until it reads; mixed from the start it
learns the formats and never the picture. Drills (`tell.drill`), with the picture and then as text alone, teach it to
find a value in what it has written; mixed steps put the two together. Last, replies of all lengths are weighed alike:
the teacher learns to answer and judge at once, too, and the base to describe and answer only.
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
from typing import TYPE_CHECKING, Any, TextIO

import torch
from torch.nn import functional

from insightv.tiny import batches, measure, model

if TYPE_CHECKING:
    from collections.abc import Sequence

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
}
"""Which conversations share a picture, by the mix of a stage."""
TEXTS: dict[str, tuple[str, ...]] = {"text drill": ("drill",), "text steps": ("steps", "steps", "reason")}
"""Mixes of conversations without a picture (`batches.make_texts`)."""


@dataclass(frozen=True)
class Stage:
    """A stretch of training: `steps` batches of `batch` charts, the learning rate falling from `high` to `low`.

    `alike`: every reply weighs by the root of its length; else every token weighs the same.
    """

    mix: str
    steps: int
    high: float
    low: float
    batch: int = 32
    alike: bool = False


def _pictures(inner: Any, pixels: torch.Tensor) -> torch.Tensor:
    """(b, 78, width): the image tokens of pictures (b, 3, 84, 84).

    The whole picture and its one tile are the same 84 x 84 pixels here, so the vision tower runs once for both; the
    result is that of the model's own forward pass.
    """
    hidden = inner.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    patches: torch.Tensor = inner.multi_modal_projector(hidden)
    count, side = len(patches), model.SIDE // model.PATCH
    ends = inner.image_newline.to(patches.dtype).expand(count, side, 1, -1)
    tile = torch.cat([patches.view(count, side, side, -1), ends], dim=2).flatten(1, 2)
    return torch.cat([patches, tile], dim=1)


def forward(net: Any, batch: batches.Batch, alike: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss over the reply tokens (weighed as `Stage.alike` says), and the share of them that came first."""
    inner = net.model
    ids = torch.from_numpy(batch.ids)
    if batch.pixels is None:
        embedded = inner.language_model.embed_tokens(ids)
    else:
        words = inner.language_model.embed_tokens(ids[:, batches.IMAGE_TOKENS :])
        pictures = _pictures(inner, torch.from_numpy(batch.pixels))
        embedded = torch.cat([pictures, words.to(pictures.dtype)], dim=1)
    states = inner.language_model(
        inputs_embeds=embedded,
        attention_mask=torch.from_numpy(batch.mask),
        position_ids=torch.from_numpy(batch.positions),
        use_cache=False,
    ).last_hidden_state
    labels = torch.from_numpy(batch.labels)[:, 1:]
    told = labels != -100
    scores = net.lm_head(states[:, :-1][told]).float()
    right = (scores.argmax(-1) == labels[told]).float().mean()
    losses = functional.cross_entropy(scores, labels[told], reduction="none")
    weights = torch.from_numpy(batch.weights)[:, 1:][told] if alike else torch.ones_like(losses)
    return (losses * weights).sum() / weights.sum(), right


@dataclass
class Progress:
    """Where a training run stands; `save` and `load` keep it in a file of the output folder until the run is done."""

    net: Any
    optimizer: torch.optim.Optimizer
    stage: int = 0
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Write everything that a later process needs to go on; the old file stays whole until the new one is."""
        state = {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**state, "stage": self.stage, "step": self.step, "seconds": self.seconds}, f"{path}.part")
        Path(f"{path}.part").replace(path)

    def load(self, path: Path) -> None:
        """Go on from where `save` was called."""
        state = torch.load(path, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.stage, self.step, self.seconds = state["stage"], state["step"], state["seconds"]


def train(net: Any, processor: Any, stages: Sequence[Stage], out: Path, seed: int, keep_s: float = 150.0) -> None:
    """Train `net` through `stages` into `out`: the model directory, and the log.

    Every `keep_s` seconds all is kept in `out`, so that a run that was stopped goes on from there when called again.
    The state stays there after the last stage, for a run with more stages.
    """
    out.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.02, fused=True)
    progress, state = Progress(net, optimizer), out / STATE
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
        rng = random.Random(f"recipe {seed} {number} {step}")
        if stage.mix in TEXTS:
            return batches.make_texts(processor.tokenizer, TEXTS[stage.mix], stage.batch, rng)
        return batches.make_batch(processor.tokenizer, MIXES[stage.mix], stage.batch, rng)

    if progress.step == 0:
        _write(log, {"stage": number, **asdict(stage)})
    pending = maker.submit(make, progress.step + 1)
    for step in range(progress.step + 1, stage.steps + 1):
        batch = pending.result()
        pending = maker.submit(make, step + 1)
        rate = stage.low + (stage.high - stage.low) * (1 + math.cos(math.pi * step / stage.steps)) / 2
        for group in progress.optimizer.param_groups:
            group["lr"] = rate * min(1.0, step / 50)
        loss, right = update(progress.net, progress.optimizer, batch, stage.alike)
        progress.step, progress.seconds = step, before + time.monotonic() - began
        if step % 25 == 0 or step == stage.steps:
            row = {"stage": number, "step": step, "loss": round(loss, 4), "right": round(right, 4)}
            _write(log, {**row, "seconds": round(progress.seconds, 1)})
        if time.monotonic() - kept > keep_s:
            kept = time.monotonic()
            progress.save(out / STATE)
            model.save(progress.net, processor, out)


def _write(log: TextIO, row: dict[str, Any]) -> None:
    line = json.dumps(row)
    log.write(line + "\n")
    log.flush()
    print(line, flush=True)


def update(
    net: Any, optimizer: torch.optim.Optimizer, batch: batches.Batch, alike: bool = False
) -> tuple[float, float]:
    """One step of the optimizer; the loss and the share of reply tokens that were right."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, right = forward(net, batch, alike)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach()), float(right)


SHARED = (
    Stage("describe", 1400, 1e-3, 2e-4),
    Stage("mixed", 855, 8e-4, 5e-5),
    Stage("drill", 425, 8e-4, 3e-4),
    Stage("text drill", 475, 8e-4, 2.4e-4),
    Stage("mixed", 150, 6e-4, 2e-5),
    Stage("text steps", 240, 1e-3, 3e-4, batch=40),
    Stage("mixed", 130, 6e-4, 1e-5),
)
RECIPES: dict[str, tuple[Stage, ...]] = {
    "shared": SHARED,
    "teacher": (*SHARED, Stage("asked", 220, 5e-4, 1e-5, alike=True)),
    "base": (*SHARED, Stage("described", 150, 6e-4, 1e-5, alike=True)),
}
"""The stages of each model. The two begin with the same ones, which are done once.

The models in the repository were made by these stages with some breaks and changes on the way, which the notes in their
`training.jsonl` name. The main one: the heads that look back (`model._look_back`) were set before the "text drill",
where they are set at the start now, and until then the texts had "A is 5" beside "A 5". Heads that were set at the
start and had nothing to look for through a long reading are of little use later; a recipe that reads first and works
after wants them tested (docs/decisions.md).
"""


def make(name: str, out: Path, seed: int = 0, questions: int = 256) -> None:
    """Make the model `name` in the folder `out / name`, from nothing or from where an earlier call was stopped.

    `teacher` and `base` go on from `out / "shared"`, which has to be there. Their held-out figures, on so many
    `questions` of each sort, are written into `measured.json` beside the log.
    """
    folder, shared = out / name, out / "shared"
    if name != "shared" and not (folder / STATE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        for kept in (STATE, LOG):
            shutil.copyfile(shared / kept, folder / kept)
    tokenizer = model.build_tokenizer()
    processor, net = model.build_processor(tokenizer), model.build_model(tokenizer, seed=seed)
    # For the short sequences of the vision tower plain matrix products are faster on a CPU than the fused attention.
    net.model.vision_tower.set_attn_implementation("eager")
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
