"""The pass over all rows that finds every bad one: images in threads, ids against each other.

Knows rows, drafts and hashes. Does not keep questions: those are read again when they are wanted.
"""

from __future__ import annotations

import hashlib
import os
import stat
from array import array
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from insightv.inputs.columns import RowRules
from insightv.inputs.fields import Image
from insightv.inputs.image_store import STORED, ImageStore
from insightv.inputs.images import AllowHttp, ImageError, ImageLimits, check_image
from insightv.inputs.rows import Draft, check_row, digest_of, folded, known_id, shown_id
from insightv.inputs.sources import Fault, RawRow, RowSource, SourceFault
from insightv.records import Picture

_KEPT_WARNINGS = 1000
_MOST_BAD = 100_000
"""A table of a few kB may have rows without number, none of them good."""
_KEPT_UNSEEN = 20
_KEPT_BYTES = 32 * 2**20
_WINDOW_ROWS, _WINDOW_BYTES = 64, 32 * 2**20


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
class _Good:
    """Of a row that may be good: its id, if it has one, and what its content comes to; not the content itself."""

    id: str | None
    core: bytes
    mark: int


@dataclass(slots=True)
class _Pending:
    """A row whose images are being checked. `weight` is what it holds in memory until then, in bytes."""

    line: int
    text: str
    known_id: str | None
    good: _Good | None
    faults: list[Fault]
    images: list[Future[str | ImageError] | str]
    weight: int

    @property
    def shown_id(self) -> str | None:
        """The id for messages, if there is one."""
        return shown_id(self.good.id) if self.good is not None and self.good.id is not None else self.known_id


@dataclass
class ImageChecks:
    """Checks images in threads; the same file (device, inode, size, time) only once.

    Opened pictures are put into the `store`, where there is one; what it has may be named by digest.
    """

    pool: ThreadPoolExecutor
    root: Path | None
    allow_http: AllowHttp
    limits: ImageLimits
    store: ImageStore | None = None
    blank: set[str] = field(default_factory=set, init=False)
    """The hashes of images of one colour."""
    _done: dict[bytes, bytes] = field(default_factory=dict, init=False)
    _running: dict[bytes, Future[str | ImageError]] = field(default_factory=dict, init=False)

    def start(self, image: Image) -> Future[str | ImageError] | str:
        """The hash of an image's bytes, or of the picture that it is already; or the promise of it or of its fault."""
        if isinstance(image, Picture):
            return image.sha256 if self.store is None else self.store.put(image)
        if self.store is not None and isinstance(image, str) and image.startswith(STORED):
            digest = image.removeprefix(STORED)
            if self.store.place(digest) is not None:
                return digest
        key = self._key(image)
        if (known := self._done.get(key)) is not None:
            return known.hex()
        if (running := self._running.get(key)) is not None:
            return running
        future = self.pool.submit(self._check, image)
        if key:
            self._running[key] = future
            future.add_done_callback(lambda done: self._keep(key, done))
        return future

    def _check(self, image: str | bytes) -> str | ImageError:
        try:
            found = check_image(image, root=self.root, allow_http=self.allow_http, limits=self.limits)
            if found.blank:
                self.blank.add(found.sha256)
            return found.sha256
        except ImageError as error:
            # Anew: the traceback holds the image and its bytes, in a circle that waits for the garbage collector.
            return ImageError(error.code, str(error))

    def _keep(self, key: bytes, done: Future[str | ImageError]) -> None:
        if not done.cancelled() and done.exception() is None and isinstance(found := done.result(), str):
            self._done[key] = bytes.fromhex(found)
        self._running.pop(key, None)

    def _key(self, image: str | bytes) -> bytes:
        """Empty where there is no file to tell by."""
        if isinstance(image, bytes) or len(image) > 4096:
            return b""
        try:
            status = os.stat(os.path.join(self.root or "", image))
        except (OSError, ValueError):
            return b""
        if not stat.S_ISREG(status.st_mode):
            return b""
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        return hashlib.blake2b(repr(identity).encode(), digest_size=16).digest()


class Reading:
    """One pass over a source, and what it found.

    `marks` has an entry for each row of the source: 0, or the start of a hash of what was read. `digests` has 32 bytes
    for each good row, `ids` its id where ids are made from the content.
    """

    def __init__(self, source: RowSource, rules: RowRules, checks: ImageChecks) -> None:
        self.bad: list[BadRow] = []
        self.warnings: list[str] = []
        self.marks: array[int] = array("Q")
        self.digests: bytearray = bytearray()
        self.ids: list[str] = []
        self._source, self._rules, self._checks = source, rules, checks
        self._seen: dict[bytes, int] = {}  # hash of a folded id -> number of the good row
        self._lines = array("Q")  # of each good row
        self._exact = array("Q")  # of each good row: start of a hash of its id as written
        self._text_bytes = 0
        self._unseen: set[str] = set()
        self._blank = self._first_blank = 0  # rows with a picture of one colour, and the line of the first

    def run(self, progress: Callable[[int], None] | None) -> bool:
        """Read everything; False if the source as a whole turned out to be faulty."""
        window: deque[_Pending] = deque()
        weight = count = 0
        try:
            for pending in map(self._begun, self._source.rows()):
                count += 1
                window.append(pending)
                weight += pending.weight
                while len(window) > _WINDOW_ROWS or weight > _WINDOW_BYTES:
                    weight -= window[0].weight
                    self._settle(window.popleft())
                if len(self.bad) > _MOST_BAD:
                    reason = f"more than {_MOST_BAD} faults up to here; mend them, and read the file anew"
                    raise SourceFault(count, "too_many_bad", reason)
                if progress is not None:
                    progress(count)
        except SourceFault as fault:
            self._finish(window)
            self._bad(fault.line, "", None, [Fault("", fault.code, str(fault))])
            return False
        self._finish(window)
        if self._blank:
            rows = f"{self._blank} row{'s have' if self._blank > 1 else ' has'}"
            text = f"{rows} a picture of one colour throughout, which shows nothing; is it the right one?"
            self.warnings.append(f"{self._source.name}:{self._first_blank}: {text}")
        if count == 0:
            self._bad(1, "", None, [Fault("", "empty_file", "there are no questions in it")])
        return count > 0

    def _begun(self, row: RawRow) -> _Pending:
        """A row with the checks of its images begun. Its values are let go: a row may be as long as a line may."""
        draft, faults = check_row(row, self._rules)
        images = draft.images if draft is not None else ()
        good = None
        self._warn_unseen(draft)
        if draft is not None and not faults:
            core = draft.core()
            good = _Good(draft.id, core, mark_of(draft, core))
        return _Pending(
            line=row.line,
            text=row.text,
            known_id=known_id(row, self._rules) if good is None else None,
            good=good,
            faults=faults,
            images=[self._checks.start(image) if image else "" for image in images],
            weight=len(row.text) + sum(len(image) for image in images if isinstance(image, str | bytes)),
        )

    def _warn_unseen(self, draft: Draft | None) -> None:
        """Name each column that holds pictures beside those that are looked at, once."""
        for name in draft.unseen if draft is not None and draft.images else ():
            if name not in self._unseen and len(self._unseen) < _KEPT_UNSEEN:
                self._unseen.add(name)
                self.warnings.append(f"{self._source.name}: {name!r} holds pictures too, which are not looked at")

    def _finish(self, window: deque[_Pending]) -> None:
        while window:
            self._settle(window.popleft())

    def _settle(self, pending: _Pending) -> None:
        """Decide about one row, in the order of the source."""
        hashes: list[str] = []
        faults = pending.faults
        for index, image in enumerate(pending.images):
            found = image if isinstance(image, str) else image.result()
            if isinstance(found, ImageError):
                faults.append(Fault(f"images[{index}]", found.code, str(found)))
            else:
                hashes.append(found)
        if not self._checks.blank.isdisjoint(hashes):
            self._blank += 1
            self._first_blank = self._first_blank or pending.line
        if pending.good is None or faults:
            self.marks.append(0)
            self._bad(pending.line, pending.text, pending.shown_id, faults)
        else:
            self._add(pending, pending.good, hashes)

    def _add(self, pending: _Pending, good: _Good, hashes: list[str]) -> None:
        id = good.id or f"c-{digest_of(good.core, None, hashes).hex()[:24]}"
        digest = digest_of(good.core, id, hashes)
        key = hashlib.blake2b(folded(id).encode(), digest_size=16).digest()
        exact = int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "big")
        first = self._seen.get(key)
        if first is not None:
            self.marks.append(0)
            self._again(pending, id, digest, first, exact)
            return
        self._seen[key] = len(self.digests) // 32
        self._lines.append(pending.line)
        self._exact.append(exact)
        self.marks.append(good.mark)
        self.digests += digest
        if self._rules.ids_from_content:
            self.ids.append(id)

    def _again(self, row: _Pending, id: str, digest: bytes, first: int, exact: int) -> None:
        """A second row with the id of a first one: the same again, or an error that names both."""
        line = self._lines[first]
        if self._exact[first] != exact:
            reason = f"the id differs from that of line {line} only in case or in Unicode form; choose another"
            self._bad(row.line, row.text, row.shown_id, [Fault("id", "id_collision", reason)])
        elif self.digests[32 * first : 32 * first + 32] != digest:
            reason = f"line {line} has the same id and another content; choose another id, or drop one of them"
            self._bad(row.line, row.text, row.shown_id, [Fault("id", "duplicate_id", reason)])
        elif len(self.warnings) < _KEPT_WARNINGS:
            self.warnings.append(f"{self._source.name}:{row.line}: {id}: the same as line {line}; left out")
        elif len(self.warnings) == _KEPT_WARNINGS:
            self.warnings.append(f"{self._source.name}: and more such rows")

    def _bad(self, line: int, text: str, id: str | None, faults: list[Fault]) -> None:
        text = text if self._text_bytes < _KEPT_BYTES else ""
        self._text_bytes += len(text)
        self.bad += [BadRow(self._source.name, line, id, f.field, f.code, f.reason, text) for f in faults]


def mark_of(draft: Draft, core: bytes) -> int:
    """The start of a hash of what was read; never 0."""
    images = [
        image.sha256
        if isinstance(image, Picture)
        else hashlib.sha256(image if isinstance(image, bytes) else image.encode("utf-8", "surrogatepass")).hexdigest()
        for image in draft.images
    ]
    return int.from_bytes(digest_of(core, draft.id, images)[:8], "big") | 1
