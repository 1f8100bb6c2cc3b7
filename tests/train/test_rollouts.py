"""The pictures of a round: those of the run, byte for byte, in fresh paths as in the reason set."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from insightv import Pipeline, Question
from insightv.config.settings import Settings
from insightv.errors import Interrupted
from insightv.inputs.image_error import ImageError
from insightv.inputs.images import open_picture
from insightv.plugins import Registry
from insightv.records import Picture
from insightv.runs.reader import load_run
from insightv.testing import sample_picture
from insightv.train.rollouts import Rollouts, questions_of
from tests.servers.fake_openai import FakeServer


def photographs(folder: Path, count: int) -> list[Question]:
    """Questions with JPEGs that no two encodings of have the same bytes."""
    from PIL import Image

    folder.mkdir()
    asked = []
    for number in range(count):
        pixels = random.Random(number).randbytes(64 * 64 * 3)
        Image.frombytes("RGB", (64, 64), pixels).save(folder / f"{number}.jpg")
        text = f"What is {number} + 1? [truth={number + 1}]"
        image = str(folder / f"{number}.jpg")
        asked.append(Question(id=f"q{number}", question=text, images=(image,), answer=str(number + 1)))
    return asked


def build(questions: Iterable[Question], run: Path, base_url: str) -> dict[str, bytes]:
    """The pictures of a run of one path each, by the question's id."""
    table = {"model": "openai/fake", "base_url": base_url, "paths": 1}
    Pipeline(run=run, generator=table, scorers=[{"use": "answer"}]).build(questions, datasets=False)
    with load_run(run) as reader:
        return {found.question.id: found.question.pictures[0].data for found in reader.assessed()}


def nothing() -> None:
    """Go on."""


def test_a_round_asks_about_the_very_pictures_of_the_run(tmp_path: Path) -> None:
    with FakeServer() as server:
        first = build(photographs(tmp_path / "photographs", 3), tmp_path / "run", server.base_url)
        shutil.rmtree(tmp_path / "photographs")
        picture = open_picture(first["q0"])
        assert picture.data != first["q0"]
        drawn = questions_of(tmp_path / "run", 2, 5, tmp_path / "round", nothing)
        fresh = build(drawn, tmp_path / "round", server.base_url)
    assert len(fresh) == 2
    assert fresh == {name: first[name] for name in fresh}


def test_a_picture_that_the_run_has_lost_is_named(tmp_path: Path) -> None:
    with FakeServer() as server:
        build(photographs(tmp_path / "photographs", 1), tmp_path / "run", server.base_url)
    with pytest.raises(Interrupted):
        questions_of(tmp_path / "run", None, 0, tmp_path / "round", _stop)
    for file in (tmp_path / "run" / "images").iterdir():
        file.unlink()
    with pytest.raises(ImageError, match="no picture"):
        questions_of(tmp_path / "run", None, 0, tmp_path / "round", nothing)


def _stop() -> None:
    raise Interrupted


def test_pictures_that_are_opened_already_are_kept_as_they_are(tmp_path: Path) -> None:
    picture: Picture = sample_picture()
    asked = Question(id="q", question="What is 3 + 4? [truth=7]", images=(picture,), answer="7")
    with FakeServer() as server:
        assert build([asked], tmp_path / "run", server.base_url) == {"q": picture.data}


def test_a_policy_has_one_name_wherever_the_process_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run" / "rounds" / "0" / "policy").mkdir(parents=True)
    runs = Rollouts(tmp_path / "run", Settings(), Registry(), {})
    names = set()
    for place, policy in ((tmp_path, "run/rounds/0/policy"), (tmp_path / "run", "rounds/0/policy")):
        monkeypatch.chdir(place)
        names.add(runs.table(Settings().reasoning_agent, policy).model)
    assert names == {f"hf/{tmp_path}/run/rounds/0/policy"}
    assert runs.table(Settings().reasoning_agent, "owner/name").model == "hf/owner/name"
