"""The pass over all rows that finds every bad one: images in threads, ids against each other.

Knows rows, drafts and hashes. Does not keep questions: those are read again when they are wanted.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from insightv.images import ImageError
from insightv.question_images import ImageChecks
from insightv.question_rows import Draft, RowRules, check_row, digest_of, folded, known_id
from insightv.question_sources import Fault, RawRow, RowSource, SourceFault
from insightv.records import Picture

_KEPT_WARNINGS = 1000
_KEPT_BYTES = 32 * 2**20
_WINDOW_ROWS, _WINDOW_BYTES = 64, 64 * 2**20


@dataclass(frozen=True, slots=True)
class BadRow:
    """One fault of one row. `text` is the start of the original line, at most 2,000 characters.

    `line` counts from 1 (rows, where there are no lines); `id` is None where the row has none that can be shown.
    """

    file: str
    line: int
    id: str | None
    field: str
    code: str
    reason: str
    text: str = ""

    def __str__(self) -> str:
        parts = [f"{self.file}:{self.line}", self.id or "no id", *([self.field] if self.field else [])]
        return f"{': '.join(parts)}: {self.reason} [{self.code}]"


@dataclass(slots=True)
class _Pending:
    row: RawRow
    draft: Draft | None
    faults: list[Fault]
    images: list[Future[str] | str] = field(default_factory=list)
    weight: int = 0

    def start(self, checks: ImageChecks) -> None:
        images = self.draft.images if self.draft is not None else ()
        self.images = [checks.start(image) if image else "" for image in images]
        self.weight = sum(len(image) for image in images if isinstance(image, str | bytes))


class Reading:
    """One pass over a source, and what it found.

    `marks` has an entry for each row of the source: 0, or the start of a hash of what was read. `digests` has 32 bytes
    for each good row, `ids` its id where ids are made from the content.
    """

    def __init__(self, source: RowSource, rules: RowRules, checks: ImageChecks) -> None:
        self.bad: list[BadRow] = []
        self.warnings: list[str] = []
        self.marks = array("Q")
        self.digests = bytearray()
        self.ids: list[str] = []
        self._source, self._rules, self._checks = source, rules, checks
        self._seen: dict[bytes, int] = {}  # hash of a folded id -> number of the good row
        self._lines = array("Q")  # of each good row
        self._exact = array("Q")  # of each good row: start of a hash of its id as written
        self._text_bytes = 0

    def run(self, progress: Callable[[int], None] | None) -> bool:
        """Read everything; False if the source as a whole turned out to be faulty."""
        window: deque[_Pending] = deque()
        weight = count = 0
        last = 0
        try:
            for row in self._source.rows():
                count, last = count + 1, row.line
                pending = _Pending(row, *check_row(row, self._rules))
                pending.start(self._checks)
                window.append(pending)
                weight += pending.weight
                while len(window) > _WINDOW_ROWS or weight > _WINDOW_BYTES:
                    weight -= window[0].weight
                    self._settle(window.popleft())
                if progress is not None:
                    progress(count)
        except SourceFault as fault:
            self._finish(window)
            self._bad(RawRow(fault.line, "", None), [Fault("", fault.code, str(fault))])
            return False
        self._finish(window)
        if count == 0:
            self._bad(RawRow(max(last, 1), "", None), [Fault("", "empty_file", "there are no questions in it")])
        return count > 0

    def _finish(self, window: deque[_Pending]) -> None:
        while window:
            self._settle(window.popleft())

    def _settle(self, pending: _Pending) -> None:
        """Decide about one row, in the order of the source."""
        hashes: list[str] = []
        faults = pending.faults
        for index, image in enumerate(pending.images):
            try:
                hashes.append(image if isinstance(image, str) else image.result())
            except ImageError as error:
                faults.append(Fault(f"images[{index}]", error.code, str(error)))
        if pending.draft is None or faults:
            self.marks.append(0)
            self._bad(pending.row, faults)
        else:
            self._add(pending.row, pending.draft, hashes)

    def _add(self, row: RawRow, draft: Draft, hashes: list[str]) -> None:
        core = draft.core()
        id = draft.id or f"c-{digest_of(core, None, hashes).hex()[:24]}"
        digest = digest_of(core, id, hashes)
        key = hashlib.blake2b(folded(id).encode(), digest_size=16).digest()
        exact = int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "big")
        first = self._seen.get(key)
        if first is not None:
            self.marks.append(0)
            self._again(row, id, digest, first, exact)
            return
        self._seen[key] = len(self.digests) // 32
        self._lines.append(row.line)
        self._exact.append(exact)
        self.marks.append(mark_of(draft, core))
        self.digests += digest
        if self._rules.ids_from_content:
            self.ids.append(id)

    def _again(self, row: RawRow, id: str, digest: bytes, first: int, exact: int) -> None:
        """A second row with the id of a first one: the same again, or an error that names both."""
        line = self._lines[first]
        if self._exact[first] != exact:
            reason = f"the id differs from that of line {line} only in case or in Unicode form; choose another"
            self._bad(row, [Fault("id", "id_collision", reason)])
        elif self.digests[32 * first : 32 * first + 32] != digest:
            reason = f"line {line} has the same id and another content; choose another id, or drop one of them"
            self._bad(row, [Fault("id", "duplicate_id", reason)])
        elif len(self.warnings) < _KEPT_WARNINGS:
            self.warnings.append(f"{self._source.name}:{row.line}: {id}: the same as line {line}; left out")
        elif len(self.warnings) == _KEPT_WARNINGS:
            self.warnings.append(f"{self._source.name}: and more such rows")

    def _bad(self, row: RawRow, faults: list[Fault]) -> None:
        text = row.text if self._text_bytes < _KEPT_BYTES else ""
        self._text_bytes += len(text)
        id = known_id(row, self._rules)
        self.bad += [BadRow(self._source.name, row.line, id, f.field, f.code, f.reason, text) for f in faults]


def mark_of(draft: Draft, core: bytes) -> int:
    """The start of a hash of what was read; never 0."""
    images = [
        hashlib.sha256(image).hexdigest()
        if isinstance(image, bytes)
        else image.sha256
        if isinstance(image, Picture)
        else image
        for image in draft.images
    ]
    return int.from_bytes(digest_of(core, draft.id, images)[:8], "big") | 1
