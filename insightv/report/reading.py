"""All that a report says of a run, read without writing anything in it; knows no HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insightv.errors import InputError
from insightv.evaluate.results import RESULT, Result, read_result
from insightv.report.sample import Sample
from insightv.report.tally import Tally
from insightv.runs.reader import DATASETS, EVALUATIONS, RunReader
from insightv.runs.stage_ledger import Entry
from insightv.runs.status import RunStatus

_LAST_FAULTS = 20


@dataclass(frozen=True)
class Findings:
    """A run as read. `sets` are rows by set, or why they were not counted; `unread` says which evaluations were not."""

    name: str
    status: RunStatus
    epochs: list[dict[str, Any]]
    bad_rows: list[dict[str, Any]]
    faults: list[tuple[str, str, str]]
    tally: Tally
    sets: Mapping[str, int | str]
    evaluations: list[Result]
    unread: list[str]
    training: list[Entry]

    @property
    def bands(self) -> dict[str, float]:
        """The thresholds of the bands, highest first."""
        bands: dict[str, float] = (self.epochs[-1] if self.epochs else {}).get("bands", {})
        return dict(sorted(bands.items(), key=lambda pair: -pair[1]))


def read_run(run: RunReader, sample: Sample) -> Findings:
    """Read everything once; paths that fit go into `sample`.

    Sums of requests and tokens are read last, so in a run that is being written they cover at least what is counted.
    """
    tally = Tally()
    for assessed in run.assessed(pictures=False):
        tally.read(assessed)
        sample.read(assessed)
    results, unread = _evaluations(run.folder / EVALUATIONS)
    return Findings(
        name=run.folder.resolve().name,
        epochs=run.epochs(),
        bad_rows=run.bad_rows(),
        faults=run.faults(_LAST_FAULTS),
        tally=tally,
        sets=_sets(run.folder / DATASETS),
        evaluations=results,
        unread=unread,
        training=run.training(),
        status=run.status(),
    )


def _evaluations(folder: Path) -> tuple[list[Result], list[str]]:
    results, unread = [], []
    for one in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not (one / RESULT).is_file():
            if one.is_dir():
                unread.append(f"The evaluation {one.name} is not finished.")
            continue
        try:
            results.append(read_result(one))
        except InputError as error:
            reason = str(error).replace(str(one / RESULT), RESULT)
            unread.append(f"The evaluation {one.name} could not be read: {reason}")
    return results, unread


def _sets(folder: Path) -> dict[str, int | str]:
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return {one.name: _rows(one) for one in found if one.is_dir() and not one.name.startswith(".")}


def _rows(folder: Path) -> int | str:
    try:
        from insightv.train.data.parquet import row_count
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        return "not counted: pyarrow is not installed"
    try:
        return row_count(folder)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        return f"not counted: {error}"
