"""The count of everything that came in and where it went: sums balance, nothing is dropped without a count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from insightv.assess.bands import AssessedPath, AssessedQuestion
from insightv.records import Band
from insightv.train.data.rows import TrainingRow

_MOST_NAMES = 200
_OTHER = ("(others)", "(others)")


@dataclass(slots=True)
class Funnel:
    """Counts of one pass over a run, for one set.

    `left_out` has a reason for each path that became no row, so paths = rows of paths + everything left out (where a
    path may stand in several rows, as in pairs and in two turns: paths = paths in rows + everything left out).
    `lengths` says in a set of pairs how long the better and the worse replies are.
    """

    questions: int = 0
    paths: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    bands: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    general: Counter[str] = field(default_factory=Counter)
    wanted: dict[str, int] = field(default_factory=dict)
    models: Counter[str] = field(default_factory=Counter)
    sources: Counter[tuple[str, str]] = field(default_factory=Counter)
    pictures: set[int] = field(default_factory=set)
    picture_bytes: int = 0
    lengths: dict[str, object] = field(default_factory=dict)

    @property
    def row_count(self) -> int:
        """All rows, general data included."""
        return self.rows.total() + self.general["rows"]

    @property
    def picture_count(self) -> int:
        """Different pictures in the rows."""
        return len(self.pictures)

    def read(self, assessed: AssessedQuestion) -> None:
        """Count a question and its paths as they came in."""
        self.questions += 1
        for item in assessed.paths:
            self.paths += 1
            self.statuses[item.path.status] += 1
            if item.path.status == "ok":
                self.bands[band_of(item).value] += 1
            else:
                _bounded(self.codes, item.path.code or "(no code)")

    def wrote(self, row: TrainingRow) -> None:
        """Count a row."""
        if row.assessed is None:
            self.general["rows"] += 1
        else:
            self.rows[band_of(row.assessed).value] += 1
            _bounded(self.models, row.assessed.path.model)
        _bounded(self.sources, (row.source, row.licence))
        for picture in row.pictures:
            mark = int(picture.sha256[:16], 16)
            if mark not in self.pictures:
                self.pictures.add(mark)
                self.picture_bytes += len(picture.data)


def band_of(item: AssessedPath) -> Band:
    """The band of an ok path; one that was never assessed is unscored."""
    return item.band or Band.unscored


def _bounded(counter: Counter[Any], name: object) -> None:
    """Count a name; those beyond the first 200 together, since a name may be different in every row."""
    if name not in counter and len(counter) >= _MOST_NAMES:
        name = _OTHER if isinstance(name, tuple) else _OTHER[0]
    counter[name] += 1
