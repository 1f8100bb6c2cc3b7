"""A run as one HTML file that needs nothing else: its figures, and a browser of its paths.

    written = write_report("runs/charts")
    print(written.path, written.shown_paths, "of", written.paths)

The run is only read, also while another process writes it. Nothing that a model or a data file said becomes markup,
and the page's policy allows no script, style, picture or address but its own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from insightv.atomic_files import new_file
from insightv.errors import ConfigError
from insightv.report.page import page
from insightv.report.pictures import album
from insightv.report.reading import read_run
from insightv.report.sample import Sample, picture_digest
from insightv.runs.reader import REPORT, load_run

MOST_PATHS = 10_000
MOST_BYTES = 20_000_000
_TEXT_SHARE = 0.7


@dataclass(frozen=True)
class Written:
    """A report: where it is, its size in bytes, and how much of the run's paths and pictures it shows."""

    path: Path
    bytes: int
    questions: int
    paths: int
    shown_questions: int
    shown_paths: int
    pictures: int
    shown_pictures: int
    smaller_pictures: int

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {**asdict(self), "path": str(self.path)}


def write_report(
    folder: str | Path, out: str | Path | None = None, *, most_paths: int = MOST_PATHS, most_bytes: int = MOST_BYTES
) -> Written:
    """Write the report of the run in `folder` to `out` (`report.html` in the run).

    At most `most_paths` paths are shown, and about `most_bytes` bytes are written; all figures count the whole run.

    Raises:
        InputError: there is no run in the folder.
        ConfigError: a limit is too small, or `out` cannot be written.
        StorageFull: the disk is full.
    """
    if most_paths < 1 or most_bytes < 1_000_000:
        raise ConfigError(f"a report of {most_paths} paths and {most_bytes} bytes: give at least 1 path and 1 MB")
    with load_run(folder) as run:
        sample = Sample(most_paths, int(most_bytes * _TEXT_SHARE))
        found = read_run(run, sample)
        chosen = sample.questions()
        digests = [digest for one in chosen for source in one.pictures if (digest := picture_digest(source))]
        pictures = album(digests, run.images, most_bytes - sample.size)
    target = Path(out) if out is not None else Path(folder) / REPORT
    data = page(found, chosen, pictures, Path(folder))
    with new_file(target) as file:
        file.write(data)
    return Written(
        path=target,
        bytes=len(data),
        questions=found.tally.questions,
        paths=found.tally.paths,
        shown_questions=len(chosen),
        shown_paths=sample.paths,
        pictures=len(pictures.images),
        shown_pictures=len(pictures.images) - pictures.left_out - pictures.unreadable,
        smaller_pictures=pictures.smaller,
    )
