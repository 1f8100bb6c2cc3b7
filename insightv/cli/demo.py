"""`insightv demo`: the main job on the embedded model, from drawn charts to datasets and a two-agent answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from insightv.assess.bands import AssessedPath, AssessedQuestion
from insightv.cli.status_table import accuracy, status_lines
from insightv.cli.terminal import AsJson, Run, err, interruptible, out, say, typed
from insightv.config.settings import Settings, check_settings
from insightv.errors import require
from insightv.reasoner.reasoner import Reasoner
from insightv.records import Answer
from insightv.runs.reader import DATASETS, load_run
from insightv.runs.stage_ledger import TrainingResult
from insightv.train.row_sets import SETS

SEED = 7
TRAIN = {
    "base": "tiny/base",
    "recipe": "dpo",
    "child": False,
    "device": "cpu",
    "method": "full",
    "epochs": 10.0,
    "batch_size": 8,
    "accumulation": 1,
    "learning_rate": 3e-4,
    "log_steps": 1,
    "save_dtype": "float32",
    "backend_options": {"threads": 1},
    "summary_paths": 2,
    "generation": {"questions": 60, "paths": 4},
    "summary": {"epochs": 2.0},
    "preference": {"epochs": 2.0, "learning_rate": 5e-5},
}
"""A short training of small models in this process: each process of its own costs the imports once more."""
Say = Callable[[str], None]


def demo_settings(paths: int, heldout: Path | None = None) -> Settings:
    """The demo's settings: embedded models, answers by rule, steps checked against the chart, a short training."""
    return check_settings(
        {
            "seed": SEED,
            "generator": {"model": "tiny", "paths": paths, "max_steps": 6, "max_tokens": 96, "temperature": 0.8},
            "scorers": [{"use": "answer", "tolerance": 0.0, "exact_text": True}, {"use": "chart-steps"}],
            "reasoning_agent": {"max_tokens": 256},
            "summary_agent": {"max_tokens": 32},
            "run": {"concurrency": 64},
            "datasets": {"licence": "Apache-2.0", "source": "insightv chart world", "best_per_question": 2},
            "train": TRAIN | ({"heldout": str(heldout.absolute())} if heldout else {}),
        }
    )


def write_demo_questions(folder: Path, count: int, seed: int = SEED) -> Path:
    """Draw questions about charts that the embedded models were not trained on, and return their file."""
    from insightv.tiny.world import write_questions

    return write_questions(folder, count, seed=seed, split="heldout")


def best_path(run: Path) -> tuple[AssessedQuestion, AssessedPath] | None:
    """The longest path of the best band there is, to show."""
    order = ["high", "mid", "low", "wrong", "unscored"]
    with load_run(run) as reader:
        found = [
            (order.index(path.band), -len(path.path.steps), position, assessed, path)
            for position, assessed in enumerate(reader.assessed(pictures=False))
            for path in assessed.paths
            if path.band is not None
        ]
    if not found:
        return None
    *_, assessed, path = min(found, key=lambda item: item[:3])
    return assessed, path


def describe(assessed: AssessedQuestion, path: AssessedPath) -> str:
    """One path in full, with its scores."""
    lines = [f"question: {assessed.question.text}   (truth: {assessed.question.answer})"]
    for number, step in enumerate(path.path.steps, 1):
        lines.append(f"  {number}. {step.title}: {step.content}  [{step.action}]")
    lines.append(f"  answer: {path.path.answer}")
    for score in path.scores:
        verdict = {True: "accepted", False: "refused", None: "not judged"}[score.accepted]
        value = "" if score.value is None else f" {score.value:g} of 100,"
        lines.append(f"  {score.scorer}:{value} {verdict}" + (f" ({score.reason})" if score.reason else ""))
    lines.append(f"  band: {path.band}")
    return "\n".join(lines)


def describe_answer(question: str, truth: str | None, answer: Answer) -> str:
    """A two-agent answer with its reasoning."""
    lines = [f"question: {question}   (truth: {truth})", "  the reasoning agent:"]
    lines += [f"    {step.title}: {step.content}" for step in answer.path.steps] if answer.path else []
    return "\n".join([*lines, f"  the summary agent: {answer.text}"])


def ask_both_agents(run: Path) -> str:
    """The two agents' answer to the run's first question."""
    with load_run(run) as reader:
        question = next(iter(reader.assessed())).question
    reasoner = Reasoner.load(run)
    try:
        return describe_answer(question.text, question.answer, reasoner.answer(list(question.pictures), question))
    finally:
        reasoner.close()


def show_run(run: Path, say: Say) -> None:
    """Print what a demo run holds: the sets, one path in full, one answer of the two agents."""
    for name in SETS:
        say(f"{name + ' set':<12}{_rows(run, name)} rows in {run / DATASETS / name}")
    shown = best_path(run)
    if shown is not None:
        say("\n== One path in full ==")
        say(describe(*shown))
    say("\n== One question answered by the two agents ==")
    say(ask_both_agents(run))


def describe_training(found: TrainingResult) -> str:
    """Held-out accuracy before and after each stage of a training."""
    lines = []
    for stage in found.stages:
        facts, name = stage.facts, _STAGES.get(stage.name, f"DPO, {stage.name}")
        if facts.trained is False:
            lines.append(f"{name:<36} no two paths of a question to prefer one of; the agent stays as it is")
        if facts.before is None or facts.after is None:
            continue
        verdict = "; rolled back" if facts.rolled_back else ""
        measured = f"{accuracy(facts.before)} -> {accuracy(facts.after)} of {facts.after.total} questions"
        lines.append(f"{name:<36} {measured}{verdict}")
    return "\n".join(lines)


_STAGES = {
    "reasoning": "reasoning agent, supervised",
    "summary": "both agents, against the base as both",
}


def _rows(run: Path, name: str) -> int:
    from insightv.train.data.parquet import row_count

    return row_count(run / DATASETS / name)


def demo(
    run: Run = Path("runs/demo"),
    questions: Annotated[int, typer.Option(help="How many chart questions.", min=4, max=2000)] = 60,
    paths: Annotated[int, typer.Option(help="Paths per question.", min=1, max=64)] = 4,
    heldout: Annotated[int, typer.Option(help="How many held-out questions.", min=4, max=2000)] = 100,
    train: Annotated[bool, typer.Option(help="Train both agents too, which takes two minutes or more.")] = True,
    as_json: AsJson = False,
) -> None:
    """Build a run of chart questions with the embedded model, show what came out, and train both agents on it."""
    from insightv.cli.progress import EvaluationDisplay, ProgressDisplay
    from insightv.cli.status_table import event_lines
    from insightv.pipeline import Pipeline
    from insightv.report import write_report

    for package, extra in (("transformers", "hf"), ("datasets", "data"), *((("trl", "train"),) if train else ())):
        require(package, extra)
    tell, trained = say if as_json else out, None
    tell(f"Drawing {questions} chart questions; the embedded model writes {paths} paths of reasoning for each.")
    file = write_demo_questions(run.with_name(run.name + "-questions"), questions)
    held = write_demo_questions(run.with_name(run.name + "-heldout"), heldout, SEED + 1) if train else None
    pipeline = Pipeline(run=run, settings=demo_settings(paths, held))
    with ProgressDisplay(err) as display:
        found = interruptible(
            pipeline.abuild(file, watch=display.show),
            pipeline.interrupt,
            typed("build", "--run", run),
        )
    tell("\n== The funnel ==\n" + status_lines(found))
    show_run(run, tell)
    if train:
        tell("\n== Training both agents from the weaker model: supervised, one round of DPO, the summary agent last ==")
        with EvaluationDisplay(err) as display:
            work = pipeline.atrain(watch=display.show, tell=lambda event, stage: say(event_lines(event, stage)))
            trained = interruptible(work, pipeline.interrupt, typed("train", "--run", run))
        tell("\n== Held-out accuracy before and after ==\n" + describe_training(trained))
        tell("\n== The same question answered by the trained agents ==\n" + ask_both_agents(run))
    exporting = typed("export", "--run", run, "--what", "paths", "--out", "paths.jsonl")
    tell(f"\nAll paths to look through: {write_report(run).path}")
    tell(f"More: {typed('status', '--run', run)}; {exporting}")
    if as_json:
        out(json.dumps({"status": found.as_json(), "training": trained and trained.as_json()}))
