"""From a source (a path, a data URL, an http address) to the bytes of an image file, within limits.

Knows files, data URLs and the first bytes of formats. Does not decode anything: that is `insightv.inputs.images`.
"""

from __future__ import annotations

import base64
import binascii
import errno
import os
import re
import stat
from pathlib import Path

from insightv.errors import TooManyOpenFiles
from insightv.inputs.image_error import AllowHttp, ImageError, ImageLimits, shorten

ALLOWED = ("JPEG", "PNG", "WEBP", "GIF")

_MIMES = {f"image/{name.lower()}": name for name in ALLOWED} | {"image/jpg": "JPEG"}
_URL = re.compile(
    r"\s*(?:[a-zA-Z][a-zA-Z0-9+.-]*://|(?:https?|ftps?|file|data|javascript|blob|gopher|cid):)", re.IGNORECASE
)
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)((?:;[\w.=+-]+)*?)(;base64)?,", re.IGNORECASE | re.ASCII)
_DISTINCT = (
    ("TIFF", rb"II\*\x00|MM\x00\*|II\+\x00|MM\x00\+"),
    ("PSD", rb"8BPS"),
    ("EPS", rb"%!PS|\xc5\xd0\xd3\xc6"),
    ("PDF", rb"\s{0,64}%PDF-"),
    ("FITS", rb"SIMPLE  ="),
    ("BMP", rb"BM.{4}\x00\x00\x00\x00"),
    ("ICO", rb"\x00\x00[\x01\x02]\x00"),
    ("AVIF", rb".{4}ftypavi[fs]"),
    ("HEIC", rb".{4}ftyp(?:hei[cfsmx]|hev[cmsx]|mif1|msf1)"),
    ("MP4 video", rb".{4}ftyp"),
    ("JPEG 2000", rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51"),
    ("JPEG XL", rb"\xff\x0a|\x00\x00\x00\x0cJXL "),
    ("XML", rb"\s{0,64}<\?xml"),
    ("DICOM", rb".{128}DICM"),
    ("Netpbm", rb"P[1-7][\s#]"),
    ("ZIP", rb"PK\x03\x04"),
    ("gzip", rb"\x1f\x8b"),
    ("Git-annex pointer", rb"\S{0,300}/annex/objects/"),
)
_UNSUPPORTED = tuple((name, re.compile(pattern, re.DOTALL)) for name, pattern in _DISTINCT)
_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s{0,256}(?:<!--.{0,400}?-->\s{0,64})?<(?:!doctype html|html|head|body|script)\b",
    re.IGNORECASE | re.DOTALL,
)


def read_image(source: str | Path | bytes, *, root: Path | None, allow_http: AllowHttp, limits: ImageLimits) -> bytes:
    """The bytes of an image file whose first bytes are those of an allowed format.

    Raises:
        ImageError: they cannot be had, are too many, or are of another format.
    """
    if isinstance(source, bytes):
        return checked_bytes(source, source, limits)
    text = str(source)
    if isinstance(source, str) and _URL.match(text):
        return _read_url(text, allow_http, limits)
    return checked_bytes(_read_path(text, root, limits), text, limits)


def checked_bytes(data: bytes, source: object, limits: ImageLimits) -> bytes:
    """`data`, if its size is within the limits and it begins like an allowed format."""
    if not data:
        raise ImageError("empty", f"{shorten(source)} is empty (0 bytes)")
    if len(data) > limits.max_bytes:
        raise ImageError("too_large_bytes", f"{shorten(source)} is larger than the limit of {limits.max_bytes} bytes")
    format_of(data, source)
    return data


def format_of(data: bytes, source: object) -> str:
    """One of `ALLOWED`, from the first bytes; what is named otherwise is refused by its own name."""
    head = data[:2048]
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    name = shorten(source)
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise ImageError("lfs_pointer", f"{name} is a Git LFS pointer, not the image; fetch it with: git lfs pull")
    if _HTML.match(head):
        raise ImageError("html", f"{name} is an HTML page, not an image; a download has probably failed")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and b"<svg" in head.lower():
        raise ImageError("unsupported_format", f"{name} is SVG; convert it to PNG")
    for format_name, pattern in _UNSUPPORTED:
        if pattern.match(head):
            raise ImageError("unsupported_format", f"{name} is {format_name}; convert it to PNG, JPEG, WEBP or GIF")
    raise ImageError("not_an_image", f"{name} is not an image: it does not begin like a PNG, JPEG, WEBP or GIF file")


def data_url(data: bytes) -> str:
    """The bytes of an image file, of whatever format, as a data URL that `read_image` takes."""
    try:
        mime = f"image/{format_of(data, data).lower()}"
    except ImageError:
        mime = "application/octet-stream"
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def _read_url(url: str, allow_http: AllowHttp, limits: ImageLimits) -> bytes:
    scheme = url.lstrip().split(":", 1)[0].lower()
    if scheme == "data":
        return _read_data_url(url, limits)
    if scheme not in ("http", "https"):
        raise ImageError(
            "unsupported_scheme", f"{shorten(url)}: images by {scheme}: are not opened; give a path, or a data URL"
        )
    if allow_http is False:
        raise ImageError(
            "remote_not_allowed", f"{shorten(url)}: images are not fetched unless the configuration allows their host"
        )
    from insightv.inputs.fetch import FetchRules, fetch

    rules = FetchRules(hosts=frozenset(allow_http), max_bytes=limits.max_bytes, deadline_s=limits.fetch_s)
    return checked_bytes(fetch(url, rules), url, limits)


def _read_data_url(url: str, limits: ImageLimits) -> bytes:
    match = _DATA_URL.match(url)
    if match is None or match[3] is None:
        raise ImageError("bad_data_url", f"{shorten(url)} does not begin like data:image/png;base64,")
    mime = match[1].lower()
    if (len(url) - match.end()) // 4 * 3 > limits.max_bytes + 3:
        raise ImageError("too_large_bytes", f"{shorten(url)} is larger than the limit of {limits.max_bytes} bytes")
    try:
        data = binascii.a2b_base64(memoryview(url.encode("ascii"))[match.end() :], strict_mode=True)
    except (binascii.Error, ValueError):
        raise ImageError("bad_data_url", f"{shorten(url)} holds something that is not base64") from None
    checked_bytes(data, url, limits)
    if _MIMES.get(mime) != format_of(data, url):
        raise ImageError("wrong_mime", f"{shorten(url)} says {mime}, but holds {format_of(data, url)}")
    return data


def _read_path(path: str, root: Path | None, limits: ImageLimits) -> bytes:
    name = shorten(path)
    if not path.strip():
        raise ImageError("bad_path", "the path of the image is empty")
    if "\0" in path:
        raise ImageError("bad_path", f"{name}: a path with a NUL character")
    try:
        descriptor = _open_under(path, root) if root is not None else os.open(path, _FILE_FLAGS & ~os.O_NOFOLLOW)
    except OSError as error:
        raise _path_error(name, error) from None
    except UnicodeEncodeError:
        raise ImageError("bad_path", f"{name}: a path with characters that are not text") from None
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("is_directory", f"{name} is a directory, not an image file")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not_a_file", f"{name} is a pipe, a device or a socket, not an image file")
        if status.st_size > limits.max_bytes:
            raise ImageError("too_large_bytes", f"{name} has {status.st_size} bytes; the limit is {limits.max_bytes}")
        return _read_all(descriptor, limits.max_bytes + 1, name)
    finally:
        os.close(descriptor)


# O_NONBLOCK: opening a pipe that nobody writes must not wait for a writer.
_FILE_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY
_FOLDER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


def _open_under(path: str, root: Path) -> int:
    """Open without ever opening anything outside of `root`: links are resolved first, then no step may be a link."""
    top = os.path.realpath(root)
    real = os.path.realpath(os.path.join(top, path))
    if os.path.commonpath((top, real)) != top:
        raise ImageError("outside_root", f"{shorten(path)} lies outside of {shorten(top)}, the folder of the images")
    *folders, name = os.path.relpath(real, top).split(os.sep)
    folder = os.open(top, _FOLDER_FLAGS)
    try:
        for part in folders:
            inner = os.open(part, _FOLDER_FLAGS, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(name, _FILE_FLAGS, dir_fd=folder)
    finally:
        os.close(folder)


def _path_error(name: str, error: OSError) -> ImageError:
    TooManyOpenFiles.raise_if_behind(error, name)
    reason = os.strerror(error.errno) if error.errno else "cannot be opened"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return ImageError("missing", f"{name} does not exist")
    if error.errno in (errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL):
        return ImageError("bad_path", f"{name} cannot be opened: {reason}")
    if error.errno == errno.ENXIO:
        return ImageError("not_a_file", f"{name} is a pipe, a device or a socket, not an image file")
    return ImageError("unreadable", f"{name} cannot be opened: {reason}")


def _read_all(descriptor: int, limit: int, name: str) -> bytes:
    parts: list[bytes] = []
    left = limit
    while left > 0:
        try:
            part = os.read(descriptor, min(left, 2**20))
        except OSError as error:
            raise _path_error(name, error) from None
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
