"""The chart world: bar charts and tables of small integers, questions about them, and the exact answers.

Everything follows from a seed. A chart belongs to one split for ever, by the hash of what it says (its kind, names and
values; not its looks), so that the splits share no chart whatever seeds they are drawn with.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from insightv.tiny import ask as asking
from insightv.tiny import draw

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from PIL import Image

Split = Literal["train", "validation", "heldout"]
Chart = dict[str, Any]
"""A chart as JSON-able values.

`kind` is "bars" or "table". Bars: `names` ("letters" under the bars, or "colours": the bars are named by their colour),
`labels`, `colours` and `values` (1..9), one each per bar from the left. Tables: `rows`, `columns` and `values` (0..9, a
list per row). `style` is how it looks and carries no information.
"""

LETTERS = "ABCDEFGH"
COLUMNS = "PSTUXYZ"
PERCEPTION_SHARE = 0.3
"""Share of perception questions among all, by default."""


@dataclass(frozen=True)
class Item:
    """One question: its text, picture (RGB), answer, family, and the `meta` that goes with it into a questions file."""

    id: str
    question: str
    image: Image.Image
    answer: str
    family: str
    meta: dict[str, Any]


def split_of(chart: Mapping[str, Any]) -> Split:
    """The split that a chart belongs to: 90 % train, 5 % validation, 5 % heldout."""
    says = {key: value for key, value in chart.items() if key not in ("style", "colours")}
    if chart["kind"] == "bars":
        says["labels"], says["values"] = list(chart["labels"]), list(chart["values"])
    digest = hashlib.sha256(json.dumps(says, sort_keys=True).encode()).digest()
    return "train" if digest[0] < 230 else "validation" if digest[0] < 243 else "heldout"


def _style(rng: random.Random) -> dict[str, Any]:
    return {
        "background": rng.choice(sorted(draw.BACKGROUNDS)),
        "tint": [rng.randint(-14, 14) for _ in range(3)],
        "shift": [rng.randint(0, 1), rng.randint(0, 2)],
        "width": rng.randint(45, 85),
        "grid": rng.choice((0, 1, 1, 3)),
        "ticks": rng.choice((1, 3)),
        "outline": rng.random() < 0.4,
        "numbers": rng.random() < 0.25,
        "head": rng.choice(("blue", "green", "orange", "gray")),
    }


def make_chart(rng: random.Random) -> Chart:
    """A chart drawn from all of them, of whatever split."""
    style = _style(rng)
    if rng.random() < 0.3:
        rows, columns = rng.randint(2, 3), rng.randint(2, 3)
        return {
            "kind": "table",
            "rows": sorted(rng.sample(LETTERS, rows)),
            "columns": sorted(rng.sample(COLUMNS, columns)),
            "values": [[rng.randint(0, 9) for _ in range(columns)] for _ in range(rows)],
            "style": {**style, "shift": [0, 0], "grid": int(bool(style["grid"]))},
        }
    count = rng.randint(3, 6)
    by_letter = rng.random() < 0.5
    colours = rng.sample(sorted(draw.COLOURS), count)
    if by_letter and rng.random() < 0.5:
        colours = [colours[0]] * count
    return {
        "kind": "bars",
        "names": "letters" if by_letter else "colours",
        "labels": sorted(rng.sample(LETTERS, count)) if by_letter else list(colours),
        "colours": colours,
        "values": [rng.randint(1, 9) for _ in range(count)],
        "style": style,
    }


def chart_of(split: Split, rng: random.Random) -> Chart:
    """A chart of one split."""
    while True:
        chart = make_chart(rng)
        if split_of(chart) == split:
            return chart


def make_ask(chart: Chart, family: str, rng: random.Random) -> tuple[str, dict[str, Any]]:
    """A kind of question of `family` and its parameters, such that this chart gives one answer."""
    while True:
        kind = rng.choice(asking.kinds(chart, family))
        ask = asking.pick(chart, kind, rng)
        if ask is not None:
            return kind, ask


def make_item(split: Split, rng: random.Random, family: str | None = None) -> Item:
    """One question about a fresh chart of `split`."""
    chart = chart_of(split, rng)
    chosen = family or ("perception" if rng.random() < PERCEPTION_SHARE else "reasoning")
    kind, ask = make_ask(chart, chosen, rng)
    question, answer = asking.text(chart, kind, ask, rng), asking.answer(chart, kind, ask)
    meta = {"chart": chart, "family": chosen, "kind": kind, "ask": ask, "split": split}
    digest = hashlib.sha256(json.dumps([chart, question], sort_keys=True).encode()).hexdigest()
    return Item(f"chart-{digest[:12]}", question, draw.draw(chart), answer, chosen, meta)


def make_questions(n: int, seed: int, split: Split, family: str | None = None) -> Iterator[Item]:
    """`n` different questions of `split` (of one `family`, where given); the first ones do not depend on `n`."""
    rng = random.Random(f"chart world {seed} {split} {family}")
    seen: set[str] = set()
    while len(seen) < n:
        item = make_item(split, rng, family)
        if item.id not in seen:
            seen.add(item.id)
            yield item


def write_questions(folder: Path, n: int, seed: int, split: Split, family: str | None = None) -> Path:
    """Write `questions.jsonl` and `images/*.png` into `folder`; returns the path of the questions file."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    path = folder / "questions.jsonl"
    with path.open("w", encoding="utf-8") as lines:
        for item in make_questions(n, seed, split, family):
            item.image.save(folder / "images" / f"{item.id}.png", optimize=True)
            row = {"id": item.id, "question": item.question, "images": [f"images/{item.id}.png"]}
            lines.write(json.dumps({**row, "answer": item.answer, "meta": item.meta}) + "\n")
    return path
