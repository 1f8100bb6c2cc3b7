"""The commands `insightv build` and `insightv demo`."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from insightv.errors import ConfigError, InsightvError, require
from insightv.settings_file import edited_origin
from insightv.status_table import status_lines
from insightv.terminal import AsJson, Changes, Config, Run, err, interruptible, out, say, typed

if TYPE_CHECKING:
    from insightv.pilot import PilotReport


def build(
    questions: Annotated[
        str | None, typer.Argument(help="JSONL, CSV or Parquet file, or hf:NAME; may be left out on resume.")
    ] = None,
    run: Run = Path("runs/default"),
    config: Config = None,
    changes: Changes = None,
    bad_rows: Annotated[str, typer.Option("--bad-rows", help="stop or skip")] = "stop",
    allow_change: Annotated[bool, typer.Option("--allow-change", help="Go on with changed settings or data.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed paths and scores again.")] = False,
    datasets: Annotated[bool, typer.Option(help="Write the datasets at the end.")] = True,
    pilot: Annotated[
        int | None, typer.Option("--pilot", min=1, help="Do this many questions, say what the whole will take, stop.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a run from questions, or go on with it: generate, assess, select."""
    from insightv.pipeline import Pipeline
    from insightv.progress import ProgressDisplay

    if bad_rows not in ("stop", "skip"):
        raise ConfigError(f"--bad-rows {bad_rows!r} is not known; it is stop or skip")
    kept = run / "config.toml"
    if config is None and not kept.is_file() and Path("insightv.toml").is_file():
        config = Path("insightv.toml")
    elif config is None and (config := edited_origin(kept)) is not None:
        say(f"{config} has changed since the run was made with it, and is used; --config {kept} goes on as it was made")
    if pilot is not None and retry_failed:
        raise ConfigError("--pilot and --retry-failed do not go together; give one of them")
    pipeline = Pipeline.from_config(config, run=run, changes=changes or ())
    common: dict[str, Any] = {"bad_rows": bad_rows, "allow_change": allow_change}
    if pilot is not None:
        with ProgressDisplay(err) as display:
            piloting = pipeline.apilot(questions, pilot, watch=display.show, **common)
            report = interruptible(piloting, pipeline.interrupt, typed("build", "--run", run, "--pilot", pilot))
        return finish_pilot(report, run, as_json)
    with ProgressDisplay(err) as display:
        work = pipeline.abuild(questions, retry_failed=retry_failed, datasets=datasets, watch=display.show, **common)
        again = typed("build", "--run", run)
        status = interruptible(work, pipeline.interrupt, again, lambda: show_stopped(run, as_json))
    finish_build(status, run, as_json)


def show_stopped(run: Path, as_json: bool) -> None:
    """Print what is done of a run that has stopped, for programs; people are told the cause and the cure."""
    from insightv.run import DATABASE, load_run

    if not as_json or not (run / DATABASE).is_file():
        return
    try:
        with load_run(run) as reader:
            out(json.dumps(reader.status()))
    except (sqlite3.Error, InsightvError) as error:  # a full disk, or a run that its holder is only about to begin
        say(f"the run cannot be read now: {error}; see later: {typed('status', '--run', run, '--json')}")


def finish_pilot(report: PilotReport, run: Path, as_json: bool) -> None:
    """Print what a pilot found."""
    from insightv.pilot_table import pilot_lines

    out(json.dumps(report.as_json()) if as_json else pilot_lines(report))
    say(f"the rest, with nothing paid again: {typed('build', '--run', run)}")


def finish_build(status: dict[str, Any], run: Path, as_json: bool) -> None:
    """Print a finished build and leave with 4 where items failed."""
    if as_json:
        out(json.dumps(status))
    else:
        out(status_lines(status))
        if (run / "datasets").is_dir():
            out(f"datasets: {run / 'datasets'}")
    if status["questions"]["bad_rows"]:
        say(
            f"{status['questions']['bad_rows']} faults in rows that were left out; see: {typed('status', '--run', run)}"
        )
    if status["paths"]["failed"] or status["unjudged"]:
        say(
            f"{status['paths']['failed']} paths and {status['unjudged']} scores failed; try them again with: "
            f"{typed('build', '--run', run, '--retry-failed')}"
        )
        codes = {**status["paths"]["by_code"], **status["unjudged_by_code"]}
        say(f"codes: {', '.join(f'{code} {count}' for code, count in codes.items())}; the reasons are in the report")
        raise typer.Exit(4)


def demo(
    run: Run = Path("runs/demo"),
    questions: Annotated[int, typer.Option(help="How many chart questions.", min=4, max=2000)] = 60,
    paths: Annotated[int, typer.Option(help="Paths per question.", min=1, max=64)] = 4,
    heldout: Annotated[int, typer.Option(help="How many held-out questions.", min=4, max=2000)] = 100,
    train: Annotated[bool, typer.Option(help="Train both agents too, which takes two minutes or more.")] = True,
    as_json: AsJson = False,
) -> None:
    """Build a run of chart questions with the embedded model, show what came out, and train both agents on it."""
    from insightv.demo import SEED, ask_both_agents, demo_settings, describe_training, show_run, write_demo_questions
    from insightv.pipeline import Pipeline
    from insightv.progress import EvaluationDisplay, ProgressDisplay
    from insightv.report import write_report
    from insightv.status_table import told

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
            work = pipeline.atrain(watch=display.show, tell=lambda event, stage: say(told(event, stage)))
            trained = interruptible(work, pipeline.interrupt, typed("train", "--run", run))
        tell("\n== Held-out accuracy before and after ==\n" + describe_training(trained))
        tell("\n== The same question answered by the trained agents ==\n" + ask_both_agents(run))
    exporting = typed("export", "--run", run, "--what", "paths", "--out", "paths.jsonl")
    tell(f"\nAll paths to look through: {write_report(run).path}")
    tell(f"More: {typed('status', '--run', run)}; {exporting}")
    if as_json:
        out(json.dumps({"status": found, "training": trained}))
