"""Pictures on disk by their own hash: `<folder>/<sha256>.<ext>`, written whole or not at all, never changed.

Knows nothing of questions and runs. What is read back is checked against its name.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from insightv.errors import InputError, StorageFull, TooManyOpenFiles
from insightv.inputs.image_error import ImageError, shorten
from insightv.inputs.plain_file import read_plain
from insightv.records import Picture

STORED = "sha256:"
"""What the name of a picture that is in a store begins with; its digest follows."""

Mime = Literal["image/jpeg", "image/png", "image/webp"]

_EXTENSIONS: dict[Mime, str] = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}
_MOST_PIXELS = 100_000_000
"""The most that `images.max_pixels` may be, to which pictures are scaled before they are kept."""
_DIGEST = re.compile("[0-9a-f]{64}")


class ImageStore:
    """The pictures of a run. The folder is made on first use (0700, files 0600); threads and processes may share it.

    `made` is called with the folder and each file that is made.
    """

    def __init__(self, folder: Path, made: Callable[[Path], None] | None = None) -> None:
        self.folder = folder
        self._made = made or (lambda _: None)

    def put(self, picture: Picture) -> str:
        """Keep a picture and return its SHA-256 (hex); one that is there already is left as it is.

        Raises:
            StorageFull: the folder cannot be written; nothing half written remains under a picture's name.
        """
        path = self.folder / f"{picture.sha256}.{_EXTENSIONS[picture.mime]}"
        try:
            if path.exists() and path.stat().st_size == len(picture.data):
                return picture.sha256
            if not self.folder.is_dir():
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._made(self.folder)
            _write(path, picture.data)
            self._made(path)
        except OSError as error:
            raise StorageFull.of(path, error, len(picture.data)) from error
        return picture.sha256

    def take(self, sha256: str, other: ImageStore) -> None:
        """Keep the picture of that hash, as another store has it.

        Raises:
            ImageError: it is not there, or not what was put.
            StorageFull: as `put`.
        """
        if self.place(sha256) is None:
            self.put(other.get(sha256))

    def place(self, sha256: str) -> Path | None:
        """The file of the picture of that hash; None where it is not there."""
        if not _DIGEST.fullmatch(sha256):
            return None
        places = (self.folder / f"{sha256}.{extension}" for extension in _EXTENSIONS.values())
        return next((path for path in places if path.is_file()), None)

    def get(self, sha256: str) -> Picture:
        """The picture of that hash.

        Raises:
            ImageError: it is not there (missing), cannot be read (unreadable), or is not what was put (corrupt).
        """
        if not _DIGEST.fullmatch(sha256):
            raise ImageError("bad_path", f"{shorten(sha256)} is not the SHA-256 of a picture")
        for mime, extension in _EXTENSIONS.items():
            path = self.folder / f"{sha256}.{extension}"
            try:
                data = read_plain(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                TooManyOpenFiles.raise_if_behind(error, str(path))
                raise ImageError("unreadable", f"{path} cannot be read: {error.strerror}") from error
            except InputError as error:
                raise ImageError("unreadable", str(error)) from error
            if hashlib.sha256(data).hexdigest() != sha256:
                raise ImageError("corrupt", f"{path} was changed: its content does not match its name")
            width, height = _size(data, mime, path)
            return Picture(data=data, mime=mime, sha256=sha256, width=width, height=height)
        raise ImageError("missing", f"no picture {sha256} in {self.folder}")


def _write(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _size(data: bytes, mime: Mime, path: Path) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=(mime.removeprefix("image/"),)) as image:
            width, height = image.size
    except Exception as error:  # of a file that nobody has checked, Pillow's readers raise all kinds of errors
        raise ImageError("not_an_image", f"{path} is no {mime} that can be opened: {error}") from error
    if width * height > _MOST_PIXELS:
        raise ImageError("too_large_pixels", f"{path} has {width} x {height} pixels, and none is kept of that size")
    return width, height
