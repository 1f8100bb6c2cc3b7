"""The commands that read a run: `insightv status`, `insightv report` and `insightv export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from insightv.cli.status_table import stage_lines, status_lines
from insightv.cli.terminal import AsJson, Run, Trust, out
from insightv.errors import ConfigError


def status(run: Run = Path("runs/default"), as_json: AsJson = False) -> None:
    """How a run stands: questions, paths, bands, what was spent, what failed, what was trained."""
    from insightv.report.format import clock
    from insightv.runs.reader import load_run

    with load_run(run) as reader:
        found, bad_rows, training = reader.status(), reader.bad_rows(), reader.training()
    if as_json:
        out(
            json.dumps(
                {**found.as_json(), "rows_left_out": bad_rows, "training": [stage.as_json() for stage in training]}
            )
        )
        return
    out(status_lines(found))
    out(f"time       {clock(found.elapsed_s)}")
    if found.setbacks:
        told = ", ".join(f"{kind} {count}" for kind, count in found.setbacks.items())
        out(f"setbacks   {told} (tries that were made again)")
    if found.faults:
        out("faults     " + ", ".join(f"{code} {count}" for code, count in found.faults.items()))
    for row in bad_rows[:20]:
        field = f"{row['field']}: " if row["field"] else ""
        out(f"left out   {row['file']}:{row['line']}: {row['id'] or 'no id'}: {field}{row['reason']}")
    if len(bad_rows) > 20:
        out(f"           ... and {len(bad_rows) - 20} more; see --json")
    for stage in training:
        out("\n".join(stage_lines(stage)))


def report(
    run: Run = Path("runs/default"),
    target: Annotated[Path | None, typer.Option("--out", help="The file to write; report.html in the run.")] = None,
    max_paths: Annotated[int, typer.Option("--max-paths", help="The most paths to show.", min=1)] = 10_000,
    max_mb: Annotated[int, typer.Option("--max-mb", help="The most megabytes to write, about.", min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """Write what a run holds as one HTML file: the figures, and its paths to look through."""
    from insightv.report import write_report

    made = write_report(run, target, most_paths=max_paths, most_bytes=max_mb * 1_000_000)
    if as_json:
        out(json.dumps(made.as_json()))
        return
    out(f"{made.path}: {made.bytes / 1e6:.1f} MB, {made.shown_paths:,} of {made.paths:,} paths")


def export(
    what: Annotated[
        str, typer.Option("--what", help="paths, reason, summary, preference, direct, multi-turn or calls")
    ],
    target: Annotated[Path, typer.Option("--out", help="File or folder to write.")],
    form: Annotated[str, typer.Option("--format", help="jsonl, parquet, trl, llamafactory or swift")] = "jsonl",
    run: Run = Path("runs/default"),
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Write a run's paths or training sets for other programs; `calls` is what replay/FILE reads."""
    from insightv.train import run_datasets

    if what == "calls":
        if form != "jsonl":
            raise ConfigError(f"--what calls is written as jsonl, which replay/FILE reads, not as {form}")
        path, rows = target, run_datasets.export_calls(run, target)
    else:
        made = run_datasets.export(run, what, form, target, trust=trust)
        path, rows = made.path, made.rows
    out(json.dumps({"path": str(path), "rows": rows}) if as_json else f"{rows} rows in {path}")
