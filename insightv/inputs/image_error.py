"""What can be wrong with an image, and the limits that it is held to."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from insightv.errors import InputError

AllowHttp = Collection[str] | Literal[False]
"""Hosts that images may be fetched from: `example.org`, `*.example.org` for its subdomains, `*` for any public one."""


class ImageError(InputError):
    """An image cannot be used. `code` is short and stable; the text has the (cut) source, the reason and the cure.

    Codes: bad_path, missing, is_directory, not_a_file, unreadable, outside_root, empty, too_large_bytes, lfs_pointer,
    html, not_an_image, unsupported_format, truncated, corrupt, animated, too_large_pixels, too_small, too_complex,
    bad_data_url, wrong_mime, unsupported_scheme, remote_not_allowed, remote_refused, remote_failed, changed.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may be, and how large it is sent.

    `max_bytes` of the file; `max_source_pixels` and `max_side` (pixels) of the image as it comes, from its header;
    `max_pixels` as it is sent: larger ones are scaled down, none is scaled up (the default is that of Qwen2-VL, 1280
    patches of 28 x 28). `min_side` refuses images that processors misread: sides of 1 to 3 pixels are taken for colour
    channels. `max_aspect` is the ratio of the sides from which Qwen's processor refuses. `fetch_s` bounds one download.
    """

    max_bytes: int = 64 * 2**20
    max_source_pixels: int = 40_000_000
    max_side: int = 20_000
    min_side: int = 4
    max_aspect: float = 200.0
    max_pixels: int = 1280 * 28 * 28
    fetch_s: float = 20.0


class Opening(TypedDict, total=False):
    """How images are opened: the hosts that they may be fetched from, and what an image may be."""

    allow_http: AllowHttp
    limits: ImageLimits


def shorten(source: object, length: int = 200) -> str:
    """A source as it may stand in a message, at most `length` long.

    Without the payload of a data URL, the password and query of an address, and control characters.
    """
    if isinstance(source, bytes | bytearray):
        return f"<{len(source)} bytes>"
    if not isinstance(source, str | Path):
        return f"<{type(source).__name__}>"
    text = str(source)
    if text.lstrip()[:5].lower() == "data:":
        text = text[:60].partition(",")[0] + ",..."
    elif "://" in text:
        text = re.sub(r"\?.*", "?...", re.sub(r"//[^/?#]*@", "//...@", text), flags=re.DOTALL)
    text = text if len(text) <= length else f"{text[: length - 40]}...{text[-30:]} ({len(text)} characters)"
    return ascii(text) if not text.isprintable() else repr(text)
