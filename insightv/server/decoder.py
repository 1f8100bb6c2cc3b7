"""The process that decodes clients' images: a file that breaks the decoder, or fills the memory, ends only this one."""

from __future__ import annotations

from typing import Any

from insightv.child_processes import answer_parent
from insightv.inputs.image_error import ImageError, ImageLimits
from insightv.inputs.images import open_picture

MEMORY_BYTES = 3 * 2**30


def _answer(limits: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """The fields of the picture and its bytes, or why there is none."""
    try:
        picture = open_picture(data, limits=ImageLimits(**limits))
    except ImageError as error:
        return {"code": error.code, "message": str(error)}, b""
    except MemoryError:
        return {"code": "too_large_pixels", "message": "the image takes more memory to decode than it may"}, b""
    return picture.model_dump(exclude={"data"}), picture.data


if __name__ == "__main__":
    answer_parent(_answer, memory_bytes=MEMORY_BYTES)
