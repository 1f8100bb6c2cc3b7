"""Steps per second of our DPO against TRL's own DPOTrainer: same rows, same model, same options, taken in turn.

    python benchmarks/dpo_speed.py --out benchmarks/results/dpo_speed.json

The rows are pairs of paths about charts of the embedded world: the right one, and one that misread the chart. Both
trainers run a whole training each time, from the same weights; loading the model is not timed. Their losses are
compared as well. On a machine that is busy with other things compare the processor seconds, not the seconds. `kept_mib`
is what the forward passes over a batch keep for the backward pass.

A case "large picture" shows the same charts in nine tiles more, so that a prompt is to its replies about as with larger
models; the weights are not trained for that, which costs no less time.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from insightv.agents.reasoning import reasoning_messages
from insightv.inputs.images import ImageStore, open_picture
from insightv.records import PreferencePair, Question, ReasoningPath, Step
from insightv.tiny import world
from insightv.train.data.pair_rows import to_json
from tools.tiny import tell
from tools.tiny.model import SIDE

OURS, TRL = "insightv", "trl"
CASES = {
    "lora": {"method": "lora", "epochs": 1.0},
    "lora, 3 epochs": {"method": "lora", "epochs": 3.0},
    "full": {"method": "full", "epochs": 1.0},
    "lora, gradient checkpointing": {"method": "lora", "epochs": 1.0, "gradient_checkpointing": True},
    "lora, large picture": {"method": "lora", "epochs": 1.0},
}


def pairs(count: int, store: ImageStore) -> Iterator[PreferencePair]:
    """`count` pairs; each shows a chart and what was asked, and the wrong path misread one to three values of it."""
    from tools.tiny.batches import spoil

    for item in world.make_questions(count, 0, "train", "reasoning"):
        chart, kind, ask = item.meta["chart"], item.meta["kind"], item.meta["ask"]
        rng = random.Random(item.id)
        wrong = chart
        while wrong["values"] == chart["values"]:
            wrong = spoil(chart, rng)
        question = Question(id=item.id, question=item.question, images=(open_picture(item.image),))
        right, spoilt = (tell.steps(seen, kind, ask, rng) for seen in (chart, wrong))
        shown = to_json(reasoning_messages(question), store)
        yield PreferencePair(
            question_id=item.id, chosen=_path(item.id, 0, right), rejected=_path(item.id, 1, spoilt), margin=80.0,
            meta={"prompt": shown},
        )  # fmt: skip


def _path(question: str, index: int, steps: list[tuple[str, str]]) -> ReasoningPath:
    made = [Step(title=title, content=text, action="continue") for title, text in steps[:-1]]
    made.append(Step(title=steps[-1][0], content=steps[-1][1], action="summary"))
    return ReasoningPath(question_id=question, index=index, status="ok", steps=tuple(made), answer="?")


def model_of(case: str, source: Path, folder: Path) -> Path:
    """The model of a case, in `folder` where it is not the source itself."""
    if not case.endswith("large picture"):
        return source
    if not folder.is_dir():
        side = 3 * SIDE
        shutil.copytree(source, folder)
        for name in ("config.json", "processor_config.json"):
            text = (folder / name).read_text("utf-8")
            settings = json.loads(text)
            settings.get("image_processor", settings)["image_grid_pinpoints"] = [[side, side]]
            (folder / name).write_text(json.dumps(settings), "utf-8")
    return folder


class Training:
    """One training by one of the two: `seconds`, `cpu` (seconds of the processor) and the `losses` of its steps."""

    def __init__(self, way: str, model: Path, data: Path, work: Path, case: dict[str, Any], batch: int) -> None:
        from transformers import TrainerCallback
        from trl.trainer.dpo_trainer import DPOTrainer

        from insightv.train.finetune.fit import read_rows
        from insightv.train.finetune.models import load_model, load_processor, lora_config
        from insightv.train.finetune.pair_trainer import PairTrainer
        from insightv.train.finetune.settings import Job, settings_of
        from insightv.train.finetune.trainers import dpo_config, reference_of

        settings = settings_of(
            "preference", device="cpu", batch_size=batch, accumulation=1, log_steps=1, learning_rate=1e-5, warmup=0.0,
            trl={"save_strategy": "no"}, **case,
        )  # fmt: skip
        job = Job(stage="preference", policy=str(model), data=data, out=work / "out", settings=settings)
        self.seconds = self.cpu = 0.0
        make: Any = PairTrainer if way == OURS else DPOTrainer
        policy = load_model(job.policy, settings)
        self.trainer = make(
            policy, ref_model=reference_of(job), args=dpo_config(job), train_dataset=read_rows(data, work),
            processing_class=load_processor(model), peft_config=lora_config(policy, settings),
        )  # fmt: skip
        training = self

        class Clock(TrainerCallback):
            def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.global_step == 0:
                    training.seconds, training.cpu = time.perf_counter(), time.process_time()

            def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                training.seconds = time.perf_counter() - training.seconds
                training.cpu = time.process_time() - training.cpu

        self.trainer.add_callback(Clock())

    def run(self) -> None:
        """Train."""
        self.trainer.train()
        self.losses = [entry["loss"] for entry in self.trainer.state.log_history if "loss" in entry]


def sizes(model: Path, data: Path, work: Path) -> dict[str, float]:
    """Mean tokens of a pair: of the prompt (pictures included), of the replies, and of the beginning they share."""
    from insightv.train.finetune.fit import read_rows
    from insightv.train.finetune.models import load_processor
    from insightv.train.finetune.pair_batch import CHOSEN, REJECTED, SHARED, PairCollator

    collate, found = PairCollator(load_processor(model)), []
    for row in read_rows(data, work):
        batch = collate([row])
        part, asked = batch["packed"]["part"], batch["completion_mask"].sum(1).tolist()
        own = [int((part == which).sum()) for which in (CHOSEN, REJECTED)]
        same = asked[0] - own[0]
        found.append(
            (int((part == SHARED).sum()) - same, *asked, same, part.numel(), int(batch["attention_mask"].sum()))
        )
    names = ("prompt", "chosen", "rejected", "same_beginning", "read_by_insightv", "read_by_trl")
    return {
        name: round(statistics.mean(column), 1) for name, column in zip(names, zip(*found, strict=True), strict=True)
    }


def kept_mib(trainer: Any, batch: int) -> float:
    """What the forward passes over the first batch keep for the backward pass, weights aside."""
    import torch

    weights = {weight.untyped_storage().data_ptr() for weight in trainer.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    trainer.model.train()
    inputs = trainer.data_collator([trainer.train_dataset[i] for i in range(batch)])
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = trainer.compute_loss(trainer.model, inputs)
    del loss
    return sum(kept.values()) / 2**20


def measure(name: str, options: argparse.Namespace, data: Path, work: Path) -> dict[str, Any]:
    """A case, both ways in turn, after one training of each to warm up."""
    runs: dict[str, list[Training]] = {OURS: [], TRL: []}
    kept: dict[str, float] = {}
    model = model_of(name, options.model, work / "large")
    for repeat in range(options.repeats + 1):
        for way in (OURS, TRL) if repeat % 2 else (TRL, OURS):
            training = Training(way, model, data, work, CASES[name], options.batch)
            training.run()
            runs[way].append(training)
            kept.setdefault(way, kept_mib(training.trainer, options.batch))
            del training.trainer
    return {"tokens": sizes(model, data, work)} | _told(runs) | {"kept_mib": kept}


def setting(options: argparse.Namespace) -> dict[str, Any]:
    """What was measured on."""
    import torch
    import transformers
    import trl

    return {
        "model": options.model.name, "pairs": options.pairs, "batch": options.batch, "repeats": options.repeats,
        "machine": {"cpus": os.cpu_count(), "threads": torch.get_num_threads(), "load": os.getloadavg()[0]},
        "torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__,
    }  # fmt: skip


def _told(runs: dict[str, list[Training]]) -> dict[str, Any]:
    steps = len(runs[OURS][0].losses)
    apart = max(abs(a - b) for a, b in zip(runs[OURS][0].losses, runs[TRL][0].losses, strict=True))
    ways = {}
    for way, made in runs.items():
        seconds, cpu = [run.seconds for run in made[1:]], [run.cpu for run in made[1:]]
        ways[way] = {
            "steps_per_second": steps / statistics.median(seconds),
            "seconds": {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)},
            "processor_seconds": {"median": statistics.median(cpu), "least": min(cpu), "most": max(cpu)},
            "all_seconds": seconds,
        }
    ratios = [b.seconds / a.seconds for a, b in zip(runs[OURS][1:], runs[TRL][1:], strict=True)]
    return {
        "steps": steps, "ways": ways, "losses_apart": apart,
        "times_faster": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
        "times_less_processor": ways[TRL]["processor_seconds"]["median"] / ways[OURS]["processor_seconds"]["median"],
    }  # fmt: skip


def line(case: dict[str, Any]) -> str:
    """A case as text."""
    speed = " ".join(f"{way} {row['steps_per_second']:.2f} steps/s" for way, row in case["ways"].items())
    faster = "{median:.2f}x ({least:.2f}..{most:.2f})".format(**case["times_faster"])
    memory = "kept " + " ".join(f"{way} {mib:.1f} MiB" for way, mib in case["kept_mib"].items())
    less = f"processor {case['times_less_processor']:.2f}x"
    return f"{speed}  {faster}, {less}  {memory}  losses {case['losses_apart']:.1e} apart"


def main() -> None:
    """Measure, print and, with `--out`, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=Path(str(files("insightv") / "tiny" / "weights" / "teacher")))
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="torch's threads, for both")
    parser.add_argument("--case", action="append", choices=CASES, help="only this one (may be repeated)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch
    from transformers.utils import logging as told

    told.set_verbosity_error()
    told.disable_progress_bar()
    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = setting(options) | {"cases": {}}
    with tempfile.TemporaryDirectory() as scratch:
        from insightv.train.finetune.dpo_role import write_pairs

        work = Path(scratch)
        write_pairs(list(pairs(options.pairs, ImageStore(work / "images"))), work / "pairs")
        for name in options.case or CASES:
            result["cases"][name] = measure(name, options, work / "pairs", work)
            print(f"{name:30}" + line(result["cases"][name]), flush=True)
            if options.out:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
