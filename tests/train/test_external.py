"""Preference data of somebody else's: trained on word for word, or refused with every bad row named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from insightv.errors import InputError
from insightv.inputs.image_store import ImageStore
from insightv.records import PreferencePair
from insightv.train.data.external import read_external
from insightv.train.data.pair_rows import rows_of_pairs, to_json

from .world import picture, prompt


def write(folder: Path, rows: list[dict[str, object]]) -> Path:
    (folder / "a.png").write_bytes(picture(1).data)
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps({"question": "What is it?", "image": "a.png"} | row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[PreferencePair]:
    store = ImageStore(path.parent / "store")
    return read_external(path, lambda question: to_json(prompt(question), store))


def test_replies_are_trained_on_as_they_stand(tmp_path: Path) -> None:
    block = "<thoughts>\n### Look\nA bar.\n### End\nIt is 4.\n</thoughts>"
    rows: list[dict[str, object]] = [
        {"chosen": "A bar at 4.", "rejected": "  A bar at 5."},
        {"question": "And here?", "chosen": block, "rejected": "No idea."},
    ]
    pairs = read(write(tmp_path, rows))
    assert [step.title for step in pairs[1].chosen.steps] == ["Look", "End"]
    made = list(rows_of_pairs(pairs))
    assert [row.completion for row in made] == ["A bar at 4.", block]
    assert made[0].rejected is not None
    assert made[0].rejected.completion == "  A bar at 5."
    assert made[0].prompt[-1].parts[-1] == "What is it?"
    assert made[0].pictures[0].sha256 == picture(1).sha256
    assert pairs[0].meta["row"] == 1


def test_every_bad_row_is_named(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"chosen": "a", "rejected": "b"},
        {"question": "two", "chosen": "a"},
        {"question": "three", "chosen": " ", "rejected": "b"},
        {"question": "four", "chosen": "a b", "rejected": "ab"},
    ]
    with pytest.raises(InputError) as refused:
        read(write(tmp_path, rows))
    text = str(refused.value)
    assert "pair 2" in text
    assert "rejected: missing" in text
    assert "pair 3" in text
    assert "pair 4" in text
    assert "pair 1 " not in text


def test_a_picture_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"b\.png"):
        read(write(tmp_path, [{"image": "b.png", "chosen": "a", "rejected": "b"}]))
