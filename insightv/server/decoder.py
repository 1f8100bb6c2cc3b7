"""The process that decodes clients' images: a file that breaks the decoder, or fills the memory, ends only this one.

    python -m insightv.server.decoder

Frames on stdin and stdout: two lengths of 4 bytes, then a JSON head, then the bytes of a file. It ends with its stdin.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
from typing import IO, Any

from insightv.inputs.image_error import ImageError, ImageLimits
from insightv.inputs.images import open_picture

LENGTHS = struct.Struct(">II")
MEMORY_BYTES = 3 * 2**30


def frame(head: dict[str, Any], data: bytes = b"") -> bytes:
    """A frame as it goes over the pipe."""
    text = json.dumps(head).encode()
    return LENGTHS.pack(len(text), len(data)) + text + data


def _answer(head: dict[str, Any], data: bytes) -> bytes:
    try:
        picture = open_picture(data, limits=ImageLimits(**head))
    except ImageError as error:
        return frame({"code": error.code, "message": str(error)})
    except MemoryError:
        return frame({"code": "too_large_pixels", "message": "the image takes more memory to decode than it may"})
    return frame(picture.model_dump(exclude={"data"}), picture.data)


def _serve(source: IO[bytes], sink: IO[bytes]) -> None:
    while lengths := source.read(LENGTHS.size):
        head_length, data_length = LENGTHS.unpack(lengths)
        head = json.loads(source.read(head_length))
        sink.write(_answer(head, source.read(data_length)))
        sink.flush()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    _serve(sys.stdin.buffer, sys.stdout.buffer)
