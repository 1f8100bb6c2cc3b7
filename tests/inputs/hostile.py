"""Builders of images that are wrong, huge or odd, each with what must become of it."""

from __future__ import annotations

import base64
import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image


def photo(width: int = 96, height: int = 64) -> Image.Image:
    """Something with detail everywhere, the same each time."""
    noise = random.Random(7).randbytes(12 * 8 * 3)
    return Image.frombytes("RGB", (12, 8), noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, *, depth: int = 1, colour: int = 0, rows: int | None = None, extra: bytes = b""
) -> bytes:
    """A PNG of zeros that claims a size and holds `rows` rows of it."""
    channels = {0: 1, 2: 3, 6: 4}[colour]
    row = b"\0" * (1 + (width * depth * channels + 7) // 8)
    pressed = zlib.compress(row * (height if rows is None else rows), 9)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", pressed) + chunk(b"IEND", b"")


def gif(width: int, height: int, *, left: int = 0, frame: tuple[int, int] = (8, 8)) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return screen + b"," + struct.pack("<HHHHB", left, left, *frame, 0) + b"\x02\x02\x4c\x01\x00;"


def webp_canvas(width: int, height: int) -> bytes:
    """An extended WEBP header that claims a canvas, over a small still picture."""
    still = encoded(photo(), "WEBP")[12:]
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size + still
    return b"RIFF" + struct.pack("<I", len(body)) + body


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = encoded(photo(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010F] = "CAMERA-CANARY"
    tags.get_ifd(0x8825)[1] = "N"
    tags.get_ifd(0x8825)[2] = (48.0, 51.0, 30.0)
    return tags.tobytes()


def refused() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes, code."""
    jpeg, still, webp = encoded(photo(), "JPEG"), encoded(photo(), "PNG"), encoded(photo(), "WEBP")
    frames = [photo(), photo().rotate(180)]
    yield "empty", b"", "empty"
    yield "png-20000x20000-header", png(20000, 20000, rows=1), "too_large_pixels"
    yield "png-9000x9000-compressible", png(9000, 9000), "too_large_pixels"
    yield "png-13000x13000-between-pillows-limits", png(13000, 13000), "too_large_pixels"
    yield "png-2^31-wide", png(2**31 - 1, 1, rows=0), "too_large_pixels"
    yield "png-25000-wide", png(25000, 200), "too_large_pixels"
    yield "png-1x1", png(1, 1), "too_small"
    yield "png-1x20000", png(1, 20000), "too_small"
    yield "png-10x4000", png(10, 4000), "too_small"
    yield "png-0x5", png(0, 5, rows=0), "corrupt"
    yield "png-without-its-end", still[:-12], "truncated"
    yield "png-text-bomb", png(64, 64, extra=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(100_000_000), 9))), "corrupt"
    yield (
        "png-profile-bomb",
        png(64, 64, extra=chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(100_000_000), 9))),
        "corrupt",
    )
    yield "png-damaged", still[:60] + bytes(20) + still[80:], "corrupt"
    yield "png-signature-only", still[:8], "truncated"
    yield "png-header-only", still[:33], "truncated"
    yield "png-cut", still[: len(still) // 2], "truncated"
    yield "jpeg-cut", jpeg[: len(jpeg) // 2], "truncated"
    yield "jpeg-cut-near-the-end", jpeg[:-12], "truncated"
    yield "jpeg-cut-in-the-header", jpeg[:100], "truncated"
    yield "jpeg-start-only", jpeg[:3], "truncated"
    yield "jpeg-of-600-scans", many_scans(600), "too_complex"
    yield "gif-signature-only", b"GIF89a", "truncated"
    yield "gif-cut", encoded(photo(), "GIF")[:900], "truncated"
    yield "gif-65535x65535-screen", gif(65535, 65535), "too_large_pixels"
    yield "gif-frame-far-outside", gif(8, 8, left=65000, frame=(65000, 65000)), "too_large_pixels"
    yield "webp-cut", webp[: len(webp) // 2], "truncated"
    yield "webp-16000x16000-canvas", webp_canvas(16000, 16000), "too_large_pixels"
    yield "webp-animated", encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]), "animated"
    yield "riff-of-sound", b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), "not_an_image"
    yield "html", b"\n <!DOCTYPE html><html><title>404</title>", "html"
    yield "html-in-capitals", b"<HTML><BODY>login</BODY></HTML>", "html"
    yield "lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n", "lfs_pointer"
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported_format"
    yield (
        "svg-xxe",
        b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY e SYSTEM "file:///etc/passwd">]><svg>&e;</svg>',
        "unsupported_format",
    )
    yield "xml", b'<?xml version="1.0"?><a/>', "unsupported_format"
    yield "eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "unsupported_format"
    yield "pdf", b"%PDF-1.7\n", "unsupported_format"
    yield "tiff", encoded(photo(), "TIFF"), "unsupported_format"
    yield "psd", b"8BPS\0\x01" + bytes(40), "unsupported_format"
    yield "fits", b"SIMPLE  =                    T".ljust(2880), "unsupported_format"
    yield "bmp", encoded(photo(), "BMP"), "unsupported_format"
    yield "ico", encoded(photo(32, 32), "ICO"), "unsupported_format"
    yield "heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "unsupported_format"
    yield "avif", b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(40), "unsupported_format"
    yield "jpeg-2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "unsupported_format"
    yield "jpeg-xl", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "unsupported_format"
    yield "netpbm-huge", b"P6 200000 200000 255\n", "unsupported_format"
    yield "zip", b"PK\x03\x04" + bytes(40), "unsupported_format"
    yield "gzip", b"\x1f\x8b\x08" + bytes(40), "unsupported_format"
    yield "text", b"this is no image", "not_an_image"
    yield "zeros", bytes(1000), "not_an_image"
    yield "noise", random.Random(1).randbytes(1000), "not_an_image"
    yield "pickle", b"\x80\x04\x95" + bytes(20), "not_an_image"


def accepted() -> Iterator[tuple[str, bytes, str, tuple[int, int]]]:
    """Name, bytes, mime as sent, size as sent."""
    picture = photo()
    first = Image.new("RGB", (40, 30), "red")
    rest = [Image.new("RGB", (40, 30), "blue")]
    plain = encoded(picture, "JPEG")
    yield "jpeg", plain, "image/jpeg", (96, 64)
    yield "jpeg-progressive", encoded(picture, "JPEG", progressive=True), "image/jpeg", (96, 64)
    yield "jpeg-grey", encoded(picture.convert("L"), "JPEG"), "image/jpeg", (96, 64)
    yield "jpeg-cmyk", encoded(picture.convert("CMYK"), "JPEG"), "image/jpeg", (96, 64)
    yield "jpeg-mpo", encoded(picture, "MPO", save_all=True, append_images=[picture]), "image/jpeg", (96, 64)
    yield "jpeg-zip-behind-it", plain + b"PK\x03\x04<script>CANARY</script>", "image/jpeg", (96, 64)
    yield "jpeg-comment", encoded(picture, "JPEG", comment=b"CANARY"), "image/jpeg", (96, 64)
    yield "jpeg-damaged-exif", encoded(picture, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), "image/jpeg", (96, 64)
    for turn in range(1, 9):
        size = (96, 64) if turn < 5 else (64, 96)
        yield f"jpeg-orientation-{turn}", encoded(picture, "JPEG", exif=exif(turn)), "image/jpeg", size
    yield "png-orientation-6", encoded(picture, "PNG", exif=exif(6)), "image/png", (64, 96)
    yield "webp-orientation-6", encoded(picture, "WEBP", exif=exif(6)), "image/jpeg", (64, 96)
    yield "png-1-bit", encoded(picture.convert("1"), "PNG"), "image/png", (96, 64)
    yield "png-palette", encoded(picture.convert("P"), "PNG"), "image/png", (96, 64)
    yield (
        "png-palette-alpha",
        encoded(picture.convert("P"), "PNG", transparency=bytes(range(256))),
        "image/png",
        (96, 64),
    )
    yield "png-alpha", encoded(picture.convert("RGBA"), "PNG"), "image/png", (96, 64)
    yield "png-grey-alpha", encoded(picture.convert("LA"), "PNG"), "image/png", (96, 64)
    yield "png-16-bit-grey", png(64, 64, depth=16), "image/png", (64, 64)
    yield "png-16-bit-colour", png(64, 64, depth=16, colour=2), "image/png", (64, 64)
    yield "png-16-bit-alpha", png(64, 64, depth=16, colour=6), "image/png", (64, 64)
    yield "png-animated", encoded(first, "PNG", save_all=True, append_images=rest), "image/png", (40, 30)
    yield "gif", encoded(picture, "GIF"), "image/png", (96, 64)
    yield "gif-animated", encoded(first, "GIF", save_all=True, append_images=rest), "image/png", (40, 30)
    yield "webp-lossless-alpha", encoded(picture.convert("RGBA"), "WEBP", lossless=True), "image/jpeg", (96, 64)
    yield "png-6000x6000-near-the-limit", png(6000, 6000), "image/png", (1001, 1001)
    yield "png-4x4", png(4, 4), "image/png", (4, 4)
    yield "jpeg-2000x1500", encoded(picture.resize((2000, 1500)), "JPEG"), "image/jpeg", (1156, 867)


def data_urls() -> Iterator[tuple[str, str, str]]:
    """Name, URL, code."""
    good = base64.b64encode(encoded(photo(), "PNG")).decode()
    yield "no-payload", "data:image/png;base64,", "empty"
    yield "no-comma", "data:image/png;base64", "bad_data_url"
    yield "nothing", "data:", "bad_data_url"
    yield "not-base64-declared", f"data:image/png,{good}", "bad_data_url"
    yield "not-base64", "data:image/png;base64,!!!!", "bad_data_url"
    yield "cut-base64", f"data:image/png;base64,{good[:-3]}", "bad_data_url"
    yield "url-safe-alphabet", "data:image/png;base64,_-_-", "bad_data_url"
    yield "line-breaks", f"data:image/png;base64,{good[:40]}\n{good[40:]}", "bad_data_url"
    yield "wrong-mime", f"data:image/jpeg;base64,{good}", "wrong_mime"
    yield "text-mime", f"data:text/plain;base64,{good}", "wrong_mime"
    yield "svg", "data:image/svg+xml;base64,PHN2Zy8+", "unsupported_format"
    yield "html", "data:image/png;base64,PGh0bWw+", "html"
    yield "blank-before", f" data:image/png;base64,{good}", "bad_data_url"


def folder(root: Path) -> Path:
    """A folder of images with a secret beside it, and links and pipes in it."""
    import os

    images = root / "images"
    (images / "inner").mkdir(parents=True)
    still = encoded(photo(), "PNG")
    (root / "secret.png").write_bytes(still)
    (root / "images-too").mkdir()
    (root / "images-too" / "a.png").write_bytes(still)
    (images / "a.png").write_bytes(still)
    (images / "inner" / "b.png").write_bytes(still)
    (images / "sealed.png").write_bytes(still)
    (images / "inside.png").symlink_to("inner/b.png")
    (images / "outside.png").symlink_to("../secret.png")
    (images / "absolute.png").symlink_to(root / "secret.png")
    (images / "loop.png").symlink_to("loop.png")
    (images / "up").symlink_to("..")
    (images / "dangling.png").symlink_to("nowhere.png")
    os.mkfifo(images / "pipe.png")
    return images
