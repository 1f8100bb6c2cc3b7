"""The paper's tables 3 and 4, its split of perception and reasoning, and its figure 4, in the embedded world.

    python benchmarks/paper.py --out build/paper          # make paper

The embedded teacher writes paths about training charts. Every row of the tables is a recipe of `Pipeline.train` and is
trained on them from the embedded base, then asked the same held-out questions. Settings were chosen on the validation
charts, which also decide whether a round of DPO is kept; held-out charts are asked at the end only. All of it is
resumable. `--results` gets the JSON, the table (Markdown) and the plot (PNG and SVG).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import paper_table

from insightv import Pipeline
from insightv.agents.replies.transcript import to_text
from insightv.atomic_files import new_file
from insightv.config.settings import Settings, check_settings
from insightv.evaluate.evaluation import Evaluation
from insightv.evaluate.results import Result, read_result
from insightv.runs.reader import load_run
from insightv.tiny.world import write_questions
from insightv.train.data.pairs import select_pairs

ROWS: dict[str, tuple[str, str]] = {
    "Baseline": ("", "direct"),
    "Vanilla direct SFT": ("direct", "direct-cot"),
    "Multi-turn supervised": ("multi-turn", "multi-turn"),
    "Summary agent only": ("summary-only", "summary-only"),
    "Multi-Agent": ("multi-agent", "reasoner"),
    "+ RLAIF (external pairs)": ("external", "reasoner"),
    "+ DPO": ("dpo", "reasoner"),
    "+ Iterative DPO": ("iterative-dpo", "reasoner"),
}
"""The rows of tables 3 and 4: what is trained, and the system that is asked."""


@dataclass(frozen=True)
class Size:
    """How much of everything. `scaling` holds the numbers of training questions of the curve; the last is the table's.

    `round_questions` of them are asked again in each round of DPO; `paths` is the number per question everywhere;
    `summary` bounds the paths of the summary set.
    """

    scaling: tuple[int, ...] = (50, 100, 200, 400)
    paths: int = 4
    round_questions: int = 200
    summary: int = 400
    general: int = 150
    validation: int = 60
    heldout: int = 300


SMALL = Size((8, 16), 2, 8, 16, 8, 12, 12)
"""For a look at whether all of it works."""

TRAIN: dict[str, Any] = {
    "base": "tiny/base",
    "method": "full",
    "child": False,
    "bf16": True,
    "backend_options": {"batch": 64},
    "learning_rate": 3e-4,
    "batch_size": 16,
    "accumulation": 1,
    "warmup": 0.0,
    "epochs": 3,
    "preference": {"learning_rate": 5e-5, "epochs": 1, "batch_size": 16},
    "summary": {"learning_rate": 1e-4, "epochs": 2},
}
"""Learning rates and epochs were tried on validation charts (docs/decisions.md); the rest is as first set."""


def settings_of(seed: int, size: Size, folder: Path, recipe: str = "multi-agent") -> Settings:
    """The settings of a run of the miniature."""
    rounds = {"questions": size.round_questions, "paths": size.paths, "temperature": 0.9}
    train = TRAIN | {
        "recipe": recipe,
        "heldout": str(folder / "validation" / "questions.jsonl"),
        "external": str(folder / "external.jsonl"),
        "generation": rounds,
        "summary_paths": size.paths,
    }
    return check_settings(
        {
            "seed": seed,
            "generator": {"model": "tiny/teacher", "paths": size.paths, "max_steps": 6, "max_tokens": 96},
            "scorers": [{"use": "answer", "tolerance": 0.0, "exact_text": True}, {"use": "chart-steps"}],
            "reasoning_agent": {"max_tokens": 256},
            "summary_agent": {"max_tokens": 32},
            "run": {"concurrency": 64},
            "datasets": {
                "licence": "Apache-2.0",
                "source": "insightv chart world",
                "best_per_question": 2,
                "summary_total": size.summary,
                "general": str(folder / "general" / "questions.jsonl"),
                "general_share": 0.3,
            },
            "train": train,
        }
    )


def draw_data(folder: Path, size: Size) -> None:
    """Draw all questions: of three splits, which share no chart."""
    write_questions(folder / "validation", size.validation, seed=2, split="validation")
    write_questions(folder / "general", size.general, seed=3, split="train")
    write_questions(folder / "heldout", size.heldout, seed=4, split="heldout")


def teacher_runs(folder: Path, size: Size) -> None:
    """The teacher's assessed run at each size of the curve: each one goes on from the one before."""
    before: Path | None = None
    for count in size.scaling:
        run = folder / f"teacher-{count}"
        if before is not None:
            copied(before, run)
        questions = write_questions(folder / f"train-{count}", count, seed=1, split="train")
        pipeline = Pipeline(run=run, settings=settings_of(0, size, folder))
        pipeline.build(questions, allow_change=True)
        say(f"the teacher's paths about {count} questions: {pipeline.status().bands}")
        before = run
    write_external(folder / f"teacher-{size.scaling[-1]}", folder / "external.jsonl")


def write_external(run: Path, out: Path) -> None:
    """Pairs of the teacher's paths as preference data that is not the policy's own (the paper's RLAIF row)."""
    with load_run(run) as reader, out.open("w", encoding="utf-8") as lines:
        questions = {one.question.id: one.question for one in reader.assessed(pictures=False)}
        for pair in select_pairs(lambda: reader.assessed(pictures=False)).pairs:
            question = questions[pair.question_id]
            places = [reader.images.place(str(image).removeprefix("sha256:")) for image in question.images]
            row = {
                "question": question.question,
                "images": [str(place.relative_to(out.parent)) for place in places if place],
            }
            lines.write(json.dumps(row | {"chosen": to_text(pair.chosen), "rejected": to_text(pair.rejected)}) + "\n")


def asked(run: Path, folder: Path, row: str, settings: Settings) -> Result:
    """The held-out answers of a row's system; of one that is trained, with the run's checkpoints."""
    recipe, system = ROWS[row]
    model = None if recipe else "tiny/base"
    data = folder / "heldout" / "questions.jsonl"
    return Evaluation(run, data, system=system, model=model, settings=settings, trained=bool(recipe)).run()


def table_of(folder: Path, size: Size, seed: int) -> dict[str, Result]:
    """Every row of the tables for one seed."""
    run = copied(folder / f"teacher-{size.scaling[-1]}", folder / f"seed-{seed}")
    found: dict[str, Result] = {}
    for row, (recipe, _) in ROWS.items():
        began = time.monotonic()
        kept = run / f"{row}.json"
        if not kept.is_file():
            settings = settings_of(seed, size, folder, recipe or "multi-agent")
            if recipe:
                Pipeline(run=run, settings=settings).train(allow_change=True)
            with new_file(kept) as file:
                file.write(json.dumps(asked(run, folder, row, settings).as_json()).encode())
        found[row] = read_result(kept)
        say(f"seed {seed}: {row}: {paper_table.told(found[row])} ({time.monotonic() - began:.0f} s)")
    return found


def point_of(folder: Path, size: Size, seed: int, count: int) -> Result:
    """The two agents after supervised training on the data of `count` questions: a point of the curve."""
    began = time.monotonic()
    run = copied(folder / f"teacher-{count}", folder / f"curve-{count}-{seed}")
    settings = settings_of(seed, size, folder)
    Pipeline(run=run, settings=settings).train(allow_change=True)
    found = asked(run, folder, "Multi-Agent", settings)
    say(f"seed {seed}: {count} questions: {paper_table.told(found)} ({time.monotonic() - began:.0f} s)")
    return found


def copied(source: Path, run: Path) -> Path:
    """The folder `run`: a copy of the run `source`, or what became of one."""
    if not run.is_dir():
        half = run.with_name(f"{run.name}.half")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(source, half)
        half.rename(run)
    return run


def first_begun(folder: Path) -> float:
    """When this was first begun: a run that was stopped and gone on with counts its pauses too."""
    kept = folder / "began"
    if not kept.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(str(time.time()))
    return float(kept.read_text())


def _end_with_parent(parent: int) -> None:
    """End this process when the one that started it is gone: it would write where the next one does."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def say(text: str) -> None:
    """Print a line with the time."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def main() -> None:
    """Do it all, or go on with it."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/paper"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="where table and plot go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--small", action="store_true", help="a few questions only: does it work?")
    options = parser.parse_args()
    size, folder = SMALL if options.small else Size(), options.out
    began = first_begun(folder)
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # the seeds share the cores
    draw_data(folder, size)
    cores, spawn = len(os.sched_getaffinity(0)), get_context("spawn")
    # A process for each: the allocator of one that trains and asks in turn for half an hour keeps gigabytes.
    with ProcessPoolExecutor(cores, spawn, _end_with_parent, (os.getpid(),), max_tasks_per_child=1) as pool:
        pool.submit(teacher_runs, folder, size).result()
        tables = {seed: pool.submit(table_of, folder, size, seed) for seed in options.seeds}
        points = {
            seed: {count: pool.submit(point_of, folder, size, seed, count) for count in reversed(size.scaling[:-1])}
            for seed in options.seeds
        }
        about: dict[str, Any] = {
            "command": " ".join(["python", "benchmarks/paper.py", *sys.argv[1:]]),
            "seeds": options.seeds,
            "size": asdict(size),
            "settings": TRAIN,
        }
        table = {seed: one.result() for seed, one in tables.items()}
        curve = {seed: {count: one.result() for count, one in every.items()} for seed, every in points.items()}
    about["seconds"] = round(time.time() - began)
    paper_table.write(options.results, about, table, curve, size.scaling)


if __name__ == "__main__":
    main()
