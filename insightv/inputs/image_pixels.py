"""From a decoded image to a picture as it is sent: upright, in RGB, of at most so many pixels, and nothing else."""

from __future__ import annotations

import hashlib
import io
import math
from typing import TYPE_CHECKING, Literal

from insightv.inputs.image_error import ImageLimits
from insightv.records import Picture

if TYPE_CHECKING:
    from PIL import Image

_JPEG_QUALITY = 90


def sized(image: Image.Image, limits: ImageLimits) -> Image.Image:
    """The image in RGB, upright, of at most `max_pixels`."""
    from PIL.Image import Resampling

    orientation = _orientation(image)
    width, height = _target(image.size, limits.max_pixels)
    if (width, height) != image.size:
        image.draft("RGB", (2 * width, 2 * height))
    image.load()
    rgb = _to_rgb(image)
    if (width, height) != rgb.size:
        rgb = rgb.resize((width, height), Resampling.LANCZOS, reducing_gap=3.0)
    return _turn(rgb, orientation)


def _target(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    width, height = size
    scale = math.sqrt(max_pixels / (width * height))
    if scale >= 1:
        return size
    return max(1, math.floor(width * scale)), max(1, math.floor(height * scale))


def _to_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image as pil

    if image.mode.startswith("I"):
        shift = _bits(image) - 8
        return image.convert("I").point([min(255, value >> shift) for value in range(65536)], "L").convert("RGB")
    if image.mode == "F":
        raise ValueError("floating point pixels")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layers = image.convert("RGBA")
        ground = pil.new("RGB", layers.size, _ground(layers))
        ground.paste(layers, mask=layers.getchannel("A"))
        return ground
    return image.convert("RGB")


_FEW_BITS = 14


def _bits(image: Image.Image) -> int:
    """The bits that a picture of 16 uses: those of a scanner are often 12 or 10, and would be black as 16."""
    low_high = image.getextrema()
    high = low_high[1] if isinstance(low_high[1], int | float) else 65535
    used = max(8, int(high).bit_length())
    return used if used <= _FEW_BITS else 16


_VISIBLE, _LIGHT = 64, 200


def _ground(layers: Image.Image) -> tuple[int, int, int]:
    """White, or black where all that can be seen is too light for white."""
    visible = layers.getchannel("A").point([255 if alpha >= _VISIBLE else 0 for alpha in range(256)])
    counts = layers.convert("L").histogram(visible)
    seen, dark = sum(counts), sum(counts[:_LIGHT])
    lost = 0 in visible.getextrema() and 50 * dark < seen
    return (0, 0, 0) if lost else (255, 255, 255)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF is left behind anyway; the picture under it may be sound
        return 1
    return value if isinstance(value, int) else 1


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def encoded(image: Image.Image, format_name: Literal["PNG", "JPEG"]) -> Picture:
    """The picture as a file of that format, without what the image came with; the same pixels give the same bytes."""
    from PIL import Image as pil

    # A new image without `info`: Pillow writes some of what it finds there (profiles, comments) into the file.
    clean = pil.frombytes("RGB", image.size, image.tobytes()) if image.info else image
    buffer = io.BytesIO()
    mime: Literal["image/png", "image/jpeg"]
    if format_name == "PNG":
        mime = "image/png"
        clean.save(buffer, "PNG", compress_level=6)
    else:
        mime = "image/jpeg"
        clean.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling="4:4:4")
    data = buffer.getvalue()
    return Picture(
        data=data, mime=mime, sha256=hashlib.sha256(data).hexdigest(), width=clean.width, height=clean.height
    )
