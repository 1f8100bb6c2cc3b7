"""Pictures as small data URLs, each once, within a number of bytes for all of them together."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from insightv.inputs.image_error import ImageError
from insightv.inputs.image_store import ImageStore
from insightv.records import Picture

_LARGEST, _SMALLEST = 160_000, 1_200
"""The most and the fewest bytes that one picture is given."""
_EDGES = (64, 1024)
_BYTES_PER_PIXEL = 0.1
_QUALITY = 70


@dataclass
class Album:
    """The pictures of a page. `smaller` counts those shown smaller than they are, `left_out` those not shown."""

    images: list[dict[str, Any]]
    places: dict[str, int]
    smaller: int = 0
    left_out: int = 0
    unreadable: int = 0


def album(digests: Iterable[str], store: ImageStore, most_bytes: int) -> Album:
    """The pictures of those SHA-256 sums, in order; the list has an entry for each, without `url` where left out."""
    wanted = list(dict.fromkeys(digests))
    made = Album([], {digest: place for place, digest in enumerate(wanted)})
    left = most_bytes
    for place, digest in enumerate(wanted):
        share = left // (len(wanted) - place) * 3 // 4  # a data URL takes four bytes for three
        entry: dict[str, Any] = {"name": digest}
        made.images.append(entry)
        try:
            picture = store.get(digest)
        except ImageError as error:
            made.unreadable += 1
            entry["why"] = str(error)
            continue
        entry |= {"full": [picture.width, picture.height]}
        try:
            url = _data_url(picture, min(share, _LARGEST)) if share >= _SMALLEST else None
        except Exception as error:  # a header may stand before anything; Pillow's readers raise all kinds of errors
            made.unreadable += 1
            entry["why"] = f"it cannot be decoded: {error}"
            continue
        if url is None:
            made.left_out += 1
            entry["why"] = "left out to keep this file small"
            continue
        if url is not picture.data_url:
            made.smaller += 1
            entry["smaller"] = True
        entry["url"] = url
        left -= len(url)
    return made


def _data_url(picture: Picture, most: int) -> str | None:
    """The picture, or a smaller one of it, in at most that many bytes; None where none is small enough."""
    if len(picture.data) <= most:
        return picture.data_url
    from PIL import Image

    long, short = sorted((picture.width, picture.height), reverse=True)
    edge = min(long, _EDGES[1], int(math.sqrt(most / _BYTES_PER_PIXEL * long / short)))
    with Image.open(io.BytesIO(picture.data), formats=(picture.mime.removeprefix("image/"),)) as source:
        source.draft("RGB", (edge, edge))
        whole = source.convert("RGB")
    while edge >= _EDGES[0]:
        whole.thumbnail((edge, edge), reducing_gap=2.0)
        buffer = io.BytesIO()
        whole.save(buffer, "WEBP", quality=_QUALITY, method=2)
        if buffer.tell() <= most:
            return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
        edge = int(edge * min(0.85, math.sqrt(most / buffer.tell())))
    return None
