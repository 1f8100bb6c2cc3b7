"""The chart world: its truth worked out a second time, its splits, its determinism, its pictures."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from insightv.tiny import ask, draw, world
from tools.tiny import tell


def truth(meta: dict[str, Any]) -> str:
    """The answer worked out from the values alone, without `insightv.tiny.ask`."""
    chart, kind, asked = meta["chart"], meta["kind"], meta["ask"]
    if chart["kind"] == "bars":
        value = dict(zip(chart["labels"], chart["values"], strict=True))
        scope = value
    else:
        value = {}
        for row, numbers in zip(chart["rows"], chart["values"], strict=True):
            for column, number in zip(chart["columns"], numbers, strict=True):
                value[f"{row} {column}"] = number
        scope = {name: v for name, v in value.items() if name[0] == asked.get("row", name[0])}
    ranked = sorted(scope, key=lambda name: scope[name])
    best = ranked[-1] if asked.get("high") else ranked[0]
    names = list(value)
    if kind == "hop":
        if chart["kind"] == "bars":
            return str(value[names[names.index(best) + {"left": -1, "right": 1}[asked["side"]]]])
        return str(value[f"{asked['other']} {best[-1]}"])
    if kind == "count":
        return str(sum((v > asked["limit"]) if asked["above"] else (v < asked["limit"]) for v in value.values()))
    pair = [value[asked[key]] for key in ("a", "b") if key in asked]
    cases: dict[str, Callable[[], str]] = {
        "value": lambda: str(pair[0]),
        "which": lambda: next(name for name in scope if scope[name] == asked["number"]).split()[-1],
        "sum": lambda: str(sum(pair)),
        "difference": lambda: str(max(pair) - min(pair)),
        "compare": lambda: "yes" if pair[0] > pair[1] else "no",
        "extreme": lambda: best.split()[-1],
        "range": lambda: str(scope[ranked[-1]] - scope[ranked[0]]),
        "row_sum": lambda: str(sum(scope.values())),
    }
    return cases[kind]()


@pytest.fixture(scope="module")
def items() -> list[world.Item]:
    return list(world.make_questions(600, 5, "train"))


def test_answers_are_the_truth(items: list[world.Item]) -> None:
    assert {item.meta["kind"] for item in items} == {kind for kinds in ask.FAMILIES.values() for kind in kinds}
    for item in items:
        assert item.answer == truth(item.meta), item
        assert item.meta["kind"] in ask.FAMILIES[item.family]


def test_answers_are_single(items: list[world.Item]) -> None:
    """No question hangs on a tie: with the chart turned round the answer stays."""
    for item in items:
        chart = item.meta["chart"]
        if item.meta["kind"] == "extreme" and chart["kind"] == "bars":
            assert Counter(chart["values"])[ask.cells(chart)[item.answer]] == 1


def test_splits_share_no_chart() -> None:
    says: dict[str, set[str]] = {}
    for split in ("train", "validation", "heldout"):
        for seed in (0, 1):
            for item in world.make_questions(300, seed, split):
                chart = {k: v for k, v in item.meta["chart"].items() if k not in ("style", "colours")}
                assert world.split_of(item.meta["chart"]) == split == item.meta["split"]
                says.setdefault(split, set()).add(json.dumps(chart, sort_keys=True))
    assert not says["train"] & says["heldout"]
    assert not says["train"] & says["validation"]
    assert not says["validation"] & says["heldout"]


def test_looks_do_not_move_a_chart_to_another_split(items: list[world.Item]) -> None:
    for item in items[:100]:
        chart = item.meta["chart"]
        assert world.split_of({**chart, "style": {}, "colours": []}) == "train"


def test_a_seed_gives_the_same_questions_and_pixels() -> None:
    first, again = (list(world.make_questions(n, 3, "heldout")) for n in (12, 20))
    other = list(world.make_questions(12, 4, "heldout"))
    assert [(i.id, i.question, i.meta) for i in first] == [(i.id, i.question, i.meta) for i in again[:12]]
    assert [i.image.tobytes() for i in first] == [i.image.tobytes() for i in again[:12]]
    assert {i.id for i in first}.isdisjoint(i.id for i in other)


def test_pixels_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256()
    for item in world.make_questions(20, 0, "validation"):
        digest.update(item.image.tobytes())
    assert digest.hexdigest() == "64ff0c8c77d929af36b989968ba5a6fba7302a6020e260c9732700d4ee7ebf16"


def test_a_bar_is_as_high_as_its_value(items: list[world.Item]) -> None:
    for item in items[:200]:
        chart = item.meta["chart"]
        if chart["kind"] == "bars" and not chart["style"]["outline"]:
            small = item.image.resize((draw.CANVAS, draw.CANVAS), Image.Resampling.NEAREST)
            for (left, _, right, bottom), value, colour in zip(
                draw.bar_boxes(chart), chart["values"], chart["colours"], strict=True
            ):
                fill = tuple(c + s for c, s in zip(draw.COLOURS[colour], chart["style"]["tint"], strict=True))
                fill = tuple(max(0, min(255, c)) for c in fill)
                column = [small.getpixel(((left + right) // 2, y)) for y in range(bottom)]
                assert column.count(fill) == value * draw.UNIT


def test_questions_file(tmp_path: Path) -> None:
    path = world.write_questions(tmp_path, 8, 1, "heldout", "perception")
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len({row["id"] for row in rows}) == 8
    for row, item in zip(rows, world.make_questions(8, 1, "heldout", "perception"), strict=True):
        assert set(row) == {"id", "question", "images", "answer", "meta"}
        assert row["meta"] == item.meta
        assert row["meta"]["family"] == "perception"
        with Image.open(tmp_path / row["images"][0]) as image:
            assert image.convert("RGB").tobytes() == item.image.tobytes()


def test_paths_differ_and_end_in_the_answer(items: list[world.Item]) -> None:
    import random

    rng = random.Random(0)
    for item in items[:100]:
        meta = item.meta
        paths = [tell.steps(meta["chart"], meta["kind"], meta["ask"], rng) for _ in range(8)]
        assert len({str(path) for path in paths}) > 3
        for path in paths:
            assert 2 <= len(path) <= 6
            assert len({content for _, content in path}) == len(path)
            assert path[-1][1].endswith(f"The answer is {item.answer}.")
