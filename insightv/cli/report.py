"""The command `insightv report`: a run as one HTML file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from insightv.cli.terminal import AsJson, Run, out


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
