"""Which values of a row are pictures, whatever their column is called, so that none is passed over in silence."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Mapping

_NUMBERED = re.compile(r"(?i)((?:.*[_ ])?(?:img|image|picture|photo|figure)s?)[_ ]?(\d{1,3})")
_FILE = re.compile(r"(?i)[^\n\r\t<>|\"*?]{1,300}\.(?:png|jpe?g|webp|gif|bmp|tiff?|avif|heic)")
_PACKED = re.compile(r"\s*(?:iVBORw0KGgo|/9j/|R0lGOD[dl]h|UklGR)[A-Za-z0-9+/\s]{40,}={0,2}\s*")
_HEADS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"RIFF")
_MANY = 8


def is_picture(value: object) -> bool:
    """Whether a value is an image, or a list of them: its bytes, a data URL, base64, a path that ends like one."""
    if isinstance(value, bytes):
        return value.startswith(_HEADS)
    if isinstance(value, str):
        return bool(value.startswith("data:image/") or _FILE.fullmatch(value.strip()) or looks_like_base64(value))
    if isinstance(value, Mapping):
        return bool(value) and set(value) <= {"bytes", "path"} and any(map(is_picture, value.values()))
    return isinstance(value, list | tuple) and bool(value) and all(map(is_picture, value[:_MANY]))


def picture_columns(values: Mapping[str, object]) -> list[str]:
    """The names of the columns that hold pictures."""
    return [name for name, value in values.items() if is_picture(value)]


def numbered(names: Iterable[str]) -> list[str]:
    """Columns that hold one image each (`image_1`, `image_2`), in the order of their numbers; of one kind alone."""
    found = [(match[1].lower(), int(match[2]), name) for name in names if (match := _NUMBERED.fullmatch(name))]
    kinds = {kind for kind, _, _ in found}
    return [name for _, _, name in sorted(found)] if len(kinds) == 1 else []


def looks_like_base64(text: str) -> bool:
    """Whether a text is the base64 of an image, with nothing that says so."""
    return len(text) > 60 and text[:3].strip()[:1] in "i/RU" and _PACKED.fullmatch(text) is not None


def unpacked(text: str) -> bytes | None:
    """The bytes of base64; None where it is damaged."""
    try:
        return binascii.a2b_base64("".join(text.split()).encode("ascii"), strict_mode=True)
    except (binascii.Error, ValueError):
        return None
