"""The commands `insightv build` and `insightv demo`."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from insightv.cli.status_table import pilot_lines, status_lines
from insightv.cli.terminal import AsJson, BadRows, Changes, Config, Run, Trust, err, interruptible, out, say, typed
from insightv.config.consent import consented
from insightv.config.file import edited_origin
from insightv.errors import ConfigError, InsightvError

if TYPE_CHECKING:
    from insightv.evaluate.pilot import PilotReport
    from insightv.runs.status import RunStatus


def build(
    questions: Annotated[
        str | None, typer.Argument(help="JSONL, CSV or Parquet file, or hf:NAME; may be left out on resume.")
    ] = None,
    run: Run = Path("runs/default"),
    config: Config = None,
    changes: Changes = None,
    bad_rows: BadRows = "stop",
    allow_change: Annotated[
        bool, typer.Option("--allow-change", help="Continue with changed settings or data.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed paths and scores again.")] = False,
    datasets: Annotated[bool, typer.Option(help="Write the datasets at the end.")] = True,
    pilot: Annotated[
        int | None, typer.Option("--pilot", min=1, help="Do this many questions, say what the whole will take, stop.")
    ] = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Make a run from questions, or continue it: generate, assess, select."""
    from insightv.cli.progress import ProgressDisplay
    from insightv.pipeline import Pipeline

    kept, own = run / "config.toml", True
    if config is None and not kept.is_file() and Path("insightv.toml").is_file():
        config = Path("insightv.toml")
    elif config is None and (config := edited_origin(kept)) is not None:
        say(f"{config} has changed since the run was made with it, and is used; --config {kept} keeps the run's own")
        own = consented(run).made_from(config)
    if pilot is not None and retry_failed:
        raise ConfigError("--pilot and --retry-failed do not go together; give one of them")
    pipeline = Pipeline.from_config(config, run=run, changes=changes or (), trust=trust, own=own)
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
    from insightv.runs.reader import DATABASE, load_run

    if not as_json or not (run / DATABASE).is_file():
        return
    try:
        with load_run(run) as reader:
            out(json.dumps(reader.status().as_json()))
    except (sqlite3.Error, InsightvError) as error:  # a full disk, or a run that its holder is only about to begin
        say(f"the run cannot be read now: {error}; see later: {typed('status', '--run', run, '--json')}")


def finish_pilot(report: PilotReport, run: Path, as_json: bool) -> None:
    """Print what a pilot found."""
    out(json.dumps(report.as_json()) if as_json else pilot_lines(report))
    say(f"the rest, with nothing paid again: {typed('build', '--run', run)}")


def finish_build(status: RunStatus, run: Path, as_json: bool) -> None:
    """Print a finished build and leave with 4 where items failed."""
    if as_json:
        out(json.dumps(status.as_json()))
    else:
        out(status_lines(status))
        if (run / "datasets").is_dir():
            out(f"datasets: {run / 'datasets'}")
    if status.questions.bad_rows:
        say(f"{status.questions.bad_rows} faults in rows that were left out; see: {typed('status', '--run', run)}")
    if status.paths.failed or status.unjudged:
        say(
            f"{status.paths.failed} paths and {status.unjudged} scores failed; try them again with: "
            f"{typed('build', '--run', run, '--retry-failed')}"
        )
        codes = {**status.paths.by_code, **status.unjudged_by_code}
        say(f"codes: {', '.join(f'{code} {count}' for code, count in codes.items())}; the reasons are in the report")
        raise typer.Exit(4)
