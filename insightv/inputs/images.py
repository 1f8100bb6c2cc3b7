"""Opening images safely: any source in, a checked and re-encoded `Picture` out.

    picture = open_picture("charts/7.png", root=Path("data"))
    question = open_question(question, root=Path("data"))

JPEG, PNG, WEBP and the first frame of GIF are taken (of an animated PNG its still picture; an animated WEBP has none
and is refused). Orientation is applied; everything but the pixels is left behind: EXIF, GPS, comments, colour profiles,
appended files. Transparency is laid over white, 16 bits become 8. What comes as PNG or GIF is sent as PNG, what comes
as JPEG or WEBP as JPEG. The same bytes always give the same picture.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Unpack, cast

from pydantic import ValidationError

from insightv.errors import InputError, TooManyOpenFiles
from insightv.inputs.image_error import AllowHttp, ImageError, ImageLimits, Opening, shorten
from insightv.inputs.image_pixels import encoded, sized
from insightv.inputs.image_sources import format_of, read_image
from insightv.inputs.image_store import ImageStore
from insightv.records import Picture, Question

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "AllowHttp",
    "CheckedImage",
    "ImageError",
    "ImageLimits",
    "ImageSource",
    "ImageStore",
    "Opening",
    "check_image",
    "open_hashed_question",
    "open_picture",
    "open_question",
    "question_about",
]

ImageSource: TypeAlias = "str | Path | bytes | Image.Image | Picture"
"""A path, a data URL, an http(s) address, the bytes of a file, a PIL image, or a Picture."""
DEFAULT_LIMITS = ImageLimits()
_LARGE_PIXELS = 8_000_000
# A progressive JPEG goes over all its pixels once a scan, and a scan may be a few bytes long; cameras write about ten.
_MAX_SCANS, _MAX_SCANNED_PIXELS = 500, 4_000_000_000
# Large images are decoded one at a time, so that memory does not grow with the number of threads.
_large = threading.Lock()


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """What `check_image` found: SHA-256 (hex) of the file's bytes, its format, and its size in pixels as stored.

    `blank`: it is of one colour throughout.
    """

    sha256: str
    format: str
    width: int
    height: int
    blank: bool = False


def open_picture(
    source: ImageSource,
    *,
    root: Path | None = None,
    allow_http: AllowHttp = False,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Picture:
    """Open, check, turn upright, scale down and re-encode one image.

    Args:
        source: a path, a data URL, an http(s) address, the bytes of a file, a PIL image; a Picture comes back as it is.
        root: the folder that paths are relative to and may not leave, links included. Without it any path is opened.
        allow_http: the hosts that images may be fetched from.
        limits: see `ImageLimits`.

    Raises:
        ImageError: with a code and a text that names the source, the reason and the cure.
    """
    return _opened(source, root, allow_http, limits)[0]


def _opened(
    source: ImageSource,
    root: Path | None = None,
    allow_http: AllowHttp = False,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> tuple[Picture, str]:
    """The picture, and SHA-256 (hex) of what it was made of: a file's bytes, or the picture that it was."""
    if isinstance(source, Picture):
        return source, source.sha256
    if not isinstance(source, str | Path | bytes):
        picture = _from_pil(source, limits)
        return picture, picture.sha256
    data = read_image(source, root=root, allow_http=allow_http, limits=limits)
    with _decoding(data, source, limits) as image:
        picture = encoded(sized(image, limits), "PNG" if image.format in ("PNG", "GIF") else "JPEG")
    return picture, hashlib.sha256(data).hexdigest()


def check_image(
    source: str | Path | bytes,
    *,
    root: Path | None = None,
    allow_http: AllowHttp = False,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> CheckedImage:
    """Find every fault that `open_picture` would find, without scaling and encoding; raises as it does."""
    data = read_image(source, root=root, allow_http=allow_http, limits=limits)
    with _decoding(data, source, limits) as image:
        width, height = image.size
        # JPEG: every coefficient is read, so that a cut is noticed, but only an eighth of each side is computed.
        image.draft("RGB", (1, 1))
        image.load()
        bounds = image.getextrema()
        blank = all(low == high for low, high in (bounds if isinstance(bounds[0], tuple) else [bounds]))
        return CheckedImage(hashlib.sha256(data).hexdigest(), str(image.format), width, height, blank)


def open_question(
    question: Question,
    *,
    root: Path | None = None,
    allow_http: AllowHttp = False,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Question:
    """The same question with all its images opened; see `open_picture`, whose errors here name the question too."""
    return open_hashed_question(question, root=root, allow_http=allow_http, limits=limits)[0]


def open_hashed_question(
    question: Question, *, root: Path | None = None, **opening: Unpack[Opening]
) -> tuple[Question, list[str]]:
    """`open_question`, and the hash of each image's content as `check_image` gives it."""
    pictures: list[Picture | str] = []
    hashes: list[str] = []
    for index, image in enumerate(question.images):
        try:
            picture, found = _opened(image, root, **opening)
        except ImageError as error:
            where = f"question {shorten(question.id)}: images[{index}]: "
            raise ImageError(error.code, where + str(error)) from None
        pictures.append(picture)
        hashes.append(found)
    if all(isinstance(image, Picture) for image in question.images):
        return question, hashes
    return question.model_copy(update={"images": tuple(pictures)}), hashes


async def question_about(images: ImageSource | Sequence[ImageSource], question: str | Question) -> Question:
    """A question with opened pictures, as somebody asks it: `images` may be one image, a list of them, or an empty one.

    Raises:
        InputError: the question is empty or no text, or an image cannot be used (ImageError).
    """
    text = question.question if isinstance(question, Question) else question
    if not isinstance(text, str):
        raise InputError(f"a question is a text or an insightv.Question, not {type(text).__name__}")
    if not text.strip():
        raise InputError("the question is empty; ask something about the image")
    if not isinstance(question, Question):
        try:
            question = Question(id="asked", question=text)
        except ValidationError:
            text = "the question holds half of a surrogate pair, which is no character; leave it out"
            raise InputError(text) from None
    sources: Sequence[ImageSource] = images if isinstance(images, list | tuple) else [cast("ImageSource", images)]
    if not all(isinstance(source, Picture) for source in sources):
        sources = await asyncio.to_thread(lambda: [open_picture(source) for source in sources])
    asked = question.model_copy(update={"images": tuple(sources) or question.images})
    if all(isinstance(image, Picture) for image in asked.images):
        return asked
    return await asyncio.to_thread(open_question, asked)


@contextlib.contextmanager
def _decoding(data: bytes, source: object, limits: ImageLimits) -> Iterator[Image.Image]:
    """The image of a file, its header checked; whatever the decoder raises meanwhile becomes a coded error."""
    try:
        image = _open_header(data, source)
        _check_size(image.size, source, limits)
        _check_kind(image, data, source)
        if image.format == "PNG":
            _open_header(data, source).verify()  # checksums and the end of the file, which decoding does not look at
        with _large if math.prod(image.size) > _LARGE_PIXELS else contextlib.nullcontext(), image:
            yield image
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # a hostile file can make a decoder raise almost anything; none may end a worker
        TooManyOpenFiles.raise_if_behind(error, "a decoder for images")
        raise _decoder_error(data, source, error) from None


def _open_header(data: bytes, source: object) -> Image.Image:
    # The classes are called directly, not through Image.open: that would warn instead of refusing between one and two
    # times its own pixel limit, and hand JPEGs with further pictures appended to another plugin.
    from PIL import GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    classes: dict[str, Callable[[io.BytesIO], Image.Image]] = {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
        "GIF": GifImagePlugin.GifImageFile,
    }
    return classes[format_of(data, source)](io.BytesIO(data))


def _check_size(size: tuple[int, int], source: object, limits: ImageLimits) -> None:
    width, height = size
    shape = f"{shorten(source)} has {width} x {height} pixels"
    if width < 1 or height < 1:
        raise ImageError("corrupt", shape)
    if width * height > limits.max_source_pixels:
        raise ImageError("too_large_pixels", f"{shape}; the limit is {limits.max_source_pixels} in all; scale it down")
    if max(size) > limits.max_side:
        raise ImageError("too_large_pixels", f"{shape}; the limit is {limits.max_side} a side; scale it down")
    if min(size) < limits.min_side or max(size) > min(size) * limits.max_aspect:
        raise ImageError(
            "too_small",
            f"{shape}; vision models need at least {limits.min_side} a side and sides at most "
            f"{limits.max_aspect:g} : 1; leave the row out, or pad the image",
        )


def _check_kind(image: Image.Image, data: bytes, source: object) -> None:
    from PIL import ImageFile

    if image.format == "WEBP" and getattr(image, "n_frames", 1) > 1:
        raise ImageError("animated", f"{shorten(source)} is an animated WEBP; save the frame that is meant as PNG")
    scans = min(_MAX_SCANS, _MAX_SCANNED_PIXELS // math.prod(image.size))
    if image.format == "JPEG" and image.info.get("progressive") and data.count(b"\xff\xda") > scans:
        raise ImageError("too_complex", f"{shorten(source)} is a JPEG of more than {scans} scans; save it anew")
    if ImageFile.LOAD_TRUNCATED_IMAGES and _ends_early(data):  # another library of this process may have set it
        raise EOFError


def _decoder_error(data: bytes, source: object, error: Exception) -> ImageError:
    from PIL.Image import DecompressionBombError, DecompressionBombWarning

    name = shorten(source)
    if isinstance(error, DecompressionBombError | DecompressionBombWarning):
        return ImageError("too_large_pixels", f"{name} has far more pixels than can be taken; scale it down")
    if _ends_early(data) or isinstance(error, EOFError) or "runcated" in str(error):
        return ImageError("truncated", f"{name} is cut off: the file ends before the image does; get it again")
    return ImageError("corrupt", f"{name} is damaged and cannot be decoded ({type(error).__name__}); get it again")


def _ends_early(data: bytes) -> bool:
    """Whether the mark of the end is missing. A whole image can do without; one that failed is cut then."""
    if data[:4] == b"RIFF":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if data[:2] == b"\xff\xd8":  # a thumbnail has an end of its own, before the image begins
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda") or b"\xff\xda" not in data
    ends = {b"\x89P": b"IEND", b"GI": b"\x00;"}
    return data[:2] in ends and ends[data[:2]] not in data


def _from_pil(image: Image.Image, limits: ImageLimits) -> Picture:
    from PIL import Image as pil

    if not isinstance(image, pil.Image):
        kinds = "a path, a data URL, bytes, a PIL image or a Picture"
        raise ImageError("not_an_image", f"an image is {kinds}, not {type(image).__name__}")
    try:
        _check_size(image.size, image, limits)
        return encoded(sized(image.copy(), limits), "PNG")
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # as in `_decoding`: an image that is opened lazily is decoded here
        raise _decoder_error(b"", image, error) from None
