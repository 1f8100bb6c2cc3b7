"""`insightv questions`: how rows are read, before anything is spent."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, ImageDraw
from typer.testing import CliRunner

from insightv.cli.main import app


def test_the_first_rows_are_shown_as_they_are_read(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 32), "red")
    ImageDraw.Draw(image).line((0, 0, 39, 31), fill="blue")
    image.save(tmp_path / "a.png")
    row = {"id": "q1", "question": "Which?", "image_1": "a.png", "options": "['left', 'right']", "answer": "B"}
    several = {"id": "q2", "question": "What?", "image": "a.png", "answers": ["red", "orange"]}
    (tmp_path / "q.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(several) + "\n")
    shown = CliRunner().invoke(app, ["questions", str(tmp_path / "q.jsonl")])
    assert shown.exit_code == 0
    for line in (
        "image 1   a.png",
        "choice B  right",
        "answer    B",
        "answer    red (as right: orange)",
        "2 questions",
    ):
        assert line in shown.output
