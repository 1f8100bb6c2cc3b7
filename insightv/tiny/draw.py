"""Drawing a chart of the chart world: the same pixels on every machine (own glyphs, no font files, no smoothing).

A chart is drawn on a canvas of 84 x 84 units and enlarged by `SCALE` without smoothing, so that people can read it too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Mapping

CANVAS = 84
"""Side of the drawing, in units."""
SCALE = 4
"""Pixels per unit of a finished picture: it is `CANVAS * SCALE` = 336 pixels wide and high."""
UNIT = 7
"""Height of the value 1 in a bar chart, in units."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 45, 40),
    "blue": (38, 80, 205),
    "green": (40, 150, 60),
    "orange": (250, 150, 20),
    "purple": (140, 50, 170),
    "cyan": (30, 195, 215),
    "pink": (245, 130, 185),
    "gray": (120, 120, 120),
}
"""Names of bar colours and their red, green and blue on 0..255, before each chart's own small shift."""
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "cream": (252, 246, 226),
    "mist": (232, 238, 244),
}

# 5 wide, 7 high, one number per row, the highest bit is the left column.
_LARGE = {
    "0": (14, 17, 19, 21, 25, 17, 14),
    "1": (4, 12, 4, 4, 4, 4, 14),
    "2": (14, 17, 1, 2, 4, 8, 31),
    "3": (31, 2, 4, 2, 1, 17, 14),
    "4": (2, 6, 10, 18, 31, 2, 2),
    "5": (31, 16, 30, 1, 1, 17, 14),
    "6": (6, 8, 16, 30, 17, 17, 14),
    "7": (31, 1, 2, 4, 8, 8, 8),
    "8": (14, 17, 17, 14, 17, 17, 14),
    "9": (14, 17, 17, 15, 1, 2, 12),
    "A": (14, 17, 17, 31, 17, 17, 17),
    "B": (30, 17, 17, 30, 17, 17, 30),
    "C": (14, 17, 16, 16, 16, 17, 14),
    "D": (30, 17, 17, 17, 17, 17, 30),
    "E": (31, 16, 16, 30, 16, 16, 31),
    "F": (31, 16, 16, 30, 16, 16, 16),
    "G": (14, 17, 16, 23, 17, 17, 14),
    "H": (17, 17, 17, 31, 17, 17, 17),
    "P": (30, 17, 17, 30, 16, 16, 16),
    "S": (15, 16, 16, 14, 1, 1, 30),
    "T": (31, 4, 4, 4, 4, 4, 4),
    "U": (17, 17, 17, 17, 17, 17, 14),
    "X": (17, 17, 10, 4, 10, 17, 17),
    "Y": (17, 17, 10, 4, 4, 4, 4),
    "Z": (31, 1, 2, 4, 8, 16, 31),
}
# 3 wide, 5 high: the numbers of an axis and those above bars.
_SMALL = {
    "0": (7, 5, 5, 5, 7),
    "1": (2, 6, 2, 2, 7),
    "2": (7, 1, 7, 4, 7),
    "3": (7, 1, 3, 1, 7),
    "4": (5, 5, 7, 1, 1),
    "5": (7, 4, 7, 1, 7),
    "6": (7, 4, 7, 5, 7),
    "7": (7, 1, 2, 2, 2),
    "8": (7, 5, 7, 5, 7),
    "9": (7, 5, 7, 1, 7),
}
_INK = (25, 25, 30)
_FAINT = (198, 200, 206)


def draw(chart: Mapping[str, Any]) -> Image.Image:
    """The picture of `chart` (see `world.Chart`): RGB, `CANVAS * SCALE` pixels wide and high."""
    image = Image.new("RGB", (CANVAS, CANVAS), BACKGROUNDS[chart["style"]["background"]])
    pen = ImageDraw.Draw(image)
    if chart["kind"] == "bars":
        _bars(pen, chart)
    else:
        _table(pen, chart)
    return image.resize((CANVAS * SCALE, CANVAS * SCALE), Image.Resampling.NEAREST)


def _glyph(pen: ImageDraw.ImageDraw, x: int, y: int, char: str, *, small: bool = False, size: int = 1) -> None:
    """One character with its upper left corner at (x, y), in units, `size` units per dot."""
    rows, width = (_SMALL[char], 3) if small else (_LARGE[char], 5)
    for row, bits in enumerate(rows):
        for column in range(width):
            if bits >> (width - 1 - column) & 1:
                left, top = x + column * size, y + row * size
                pen.rectangle((left, top, left + size - 1, top + size - 1), fill=_INK)


def _shifted(name: str, shift: list[int]) -> tuple[int, int, int]:
    red, green, blue = (max(0, min(255, c + s)) for c, s in zip(COLOURS[name], shift, strict=True))
    return red, green, blue


def bar_boxes(chart: Mapping[str, Any]) -> list[tuple[int, int, int, int]]:
    """Left, top, right and bottom (exclusive) of each bar of a bar chart, in units; a value 0 has no height."""
    style = chart["style"]
    slot = (CANVAS - 12) // len(chart["labels"])
    width = min(slot - 2, max(5, round(slot * style["width"] / 100)))
    base = 72 + style["shift"][1]
    boxes = []
    for place, value in enumerate(chart["values"]):
        left = 11 + style["shift"][0] + place * slot + (slot - width) // 2
        boxes.append((left, base - value * UNIT, left + width, base))
    return boxes


def _bars(pen: ImageDraw.ImageDraw, chart: Mapping[str, Any]) -> None:
    style = chart["style"]
    base, left = 72 + style["shift"][1], 10
    for value in range(1, 10):
        if style["grid"] and value % style["grid"] == 0:
            pen.line((left, base - value * UNIT, CANVAS - 1, base - value * UNIT), fill=_FAINT)
    for value in range(0, 10, style["ticks"]):
        _glyph(pen, 4, base - value * UNIT - 2, str(value), small=True)
    for place, (x0, y0, x1, y1) in enumerate(bar_boxes(chart)):
        value = chart["values"][place]
        if value:
            fill = _shifted(chart["colours"][place], style["tint"])
            pen.rectangle((x0, y0, x1 - 1, y1 - 1), fill=fill, outline=_INK if style["outline"] else None)
        if style["numbers"]:
            _glyph(pen, (x0 + x1) // 2 - 1, y0 - 6, str(value), small=True)
        if chart["names"] == "letters":
            _glyph(pen, (x0 + x1) // 2 - 2, base + 2, chart["labels"][place])
    pen.line((left, base, CANVAS - 1, base), fill=_INK)
    pen.line((left, base, left, base - 9 * UNIT), fill=_INK)


def _table(pen: ImageDraw.ImageDraw, chart: Mapping[str, Any]) -> None:
    style, rows, columns = chart["style"], chart["rows"], chart["columns"]
    left, top = 18 + style["shift"][0], 18 + style["shift"][1]
    wide, high = (CANVAS - 3 - left) // len(columns), (CANVAS - 3 - top) // len(rows)
    right, bottom = left + wide * len(columns), top + high * len(rows)
    head = _shifted(style["head"], [(s + 150) for s in style["tint"]])
    pen.rectangle((1, 1, right, top), fill=head)
    pen.rectangle((1, 1, left, bottom), fill=head)
    for place, name in enumerate(columns):
        _glyph(pen, left + place * wide + (wide - 9) // 2, 3, name, size=2)
    for row, name in enumerate(rows):
        y = top + row * high + (high - 13) // 2
        _glyph(pen, 5, y, name, size=2)
        for column in range(len(columns)):
            digit = str(chart["values"][row][column])
            _glyph(pen, left + column * wide + (wide - 9) // 2, y, digit, size=2)
    if style["grid"]:
        for place in range(len(columns) + 1):
            pen.line((left + place * wide, 1, left + place * wide, bottom), fill=_INK)
        for row in range(len(rows) + 1):
            pen.line((1, top + row * high, right, top + row * high), fill=_INK)
    else:
        pen.line((1, top, right, top), fill=_INK)
