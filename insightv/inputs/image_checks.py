"""The images of many rows: checked in threads, each file once.

Knows nothing of rows; who asks gets a hash or what is wrong with the image, or the promise of it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from insightv.inputs.fields import Image
from insightv.inputs.image_store import STORED, ImageStore
from insightv.inputs.images import AllowHttp, ImageError, ImageLimits, check_image
from insightv.records import Picture


class ImageChecks:
    """Checks images in threads; the same file (device, inode, size, time) only once.

    Opened pictures are put into the `store`, where there is one; what it has may be named by digest.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        root: Path | None,
        allow_http: AllowHttp,
        limits: ImageLimits,
        store: ImageStore | None = None,
    ) -> None:
        self._pool, self._root, self._allow_http, self._limits, self._store = pool, root, allow_http, limits, store
        self.blank: set[str] = set()
        """The hashes of images of one colour."""
        self._done: dict[bytes, bytes] = {}
        self._running: dict[bytes, Future[str | ImageError]] = {}

    def start(self, image: Image) -> Future[str | ImageError] | str:
        """The hash of an image's bytes, or of the picture that it is already; or the promise of it or of its fault."""
        if isinstance(image, Picture):
            return image.sha256 if self._store is None else self._store.put(image)
        if self._store is not None and isinstance(image, str) and image.startswith(STORED):
            digest = image.removeprefix(STORED)
            if self._store.place(digest) is not None:
                return digest
        key = self._key(image)
        if (known := self._done.get(key)) is not None:
            return known.hex()
        if (running := self._running.get(key)) is not None:
            return running
        future = self._pool.submit(self._check, image)
        if key:
            self._running[key] = future
            future.add_done_callback(lambda done: self._keep(key, done))
        return future

    def _check(self, image: str | bytes) -> str | ImageError:
        try:
            found = check_image(image, root=self._root, allow_http=self._allow_http, limits=self._limits)
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
            status = os.stat(os.path.join(self._root or "", image))
        except (OSError, ValueError):
            return b""
        if not stat.S_ISREG(status.st_mode):
            return b""
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        return hashlib.blake2b(repr(identity).encode(), digest_size=16).digest()
