"""A process that can open no further file: never a fault of a picture or of the questions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from insightv.errors import TooManyOpenFiles
from insightv.inputs.fetch import FetchRules, afetch
from insightv.inputs.images import ImageStore, check_image, open_picture
from insightv.inputs.questions import read_questions
from tests.open_files import no_file_left
from tests.world import write_questions


def parquet(folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"question": ["What?"]}), folder / "q.parquet")
    return folder / "q.parquet"


def saved(folder: Path) -> Path:
    import datasets

    datasets.Dataset.from_dict({"question": ["What?"]}).save_to_disk(str(folder / "saved"))
    return folder / "saved"


@pytest.mark.parametrize("source", [write_questions, parquet, saved])
def test_questions_are_not_called_bad(source: Callable[..., Path], tmp_path: Path) -> None:
    path = source(tmp_path, 3) if source is write_questions else source(tmp_path)
    assert len(read_questions(path, bad_rows="skip"))
    with no_file_left(), pytest.raises(TooManyOpenFiles, match="ulimit -n"):
        read_questions(path, bad_rows="skip")


def test_pictures_are_not_called_bad(tmp_path: Path) -> None:
    questions = read_questions(write_questions(tmp_path, 3))
    assert not questions.bad
    image, store = tmp_path / "images" / "0.png", ImageStore(tmp_path / "store")
    digest = store.put(open_picture(image))
    other = open_picture(Image.new("RGB", (9, 9)))
    with no_file_left():
        for use in (open_picture, check_image):
            for root in (None, tmp_path):
                with pytest.raises(TooManyOpenFiles, match=r"0\.png' cannot be opened: too many files are open"):
                    use(image, root=root)
        for asked in (lambda: store.get(digest), lambda: store.put(other)):
            with pytest.raises(TooManyOpenFiles, match="cannot be opened: too many files are open"):
                asked()


def test_what_is_fetched_is_not_called_bad() -> None:
    import aiohttp.abc  # by then it has been imported, in a process that fetches
    import yarl

    assert aiohttp.abc
    assert yarl

    async def fetched(url: str, rules: FetchRules) -> None:
        with no_file_left(), pytest.raises(TooManyOpenFiles, match=r"http.*/1\.png' cannot be opened"):
            await afetch(url, rules)

    asyncio.run(fetched("http://localhost/1.png", FetchRules(hosts=frozenset({"*"}), max_bytes=100)))
    private = FetchRules(hosts=frozenset({"*"}), max_bytes=100, reachable=lambda address: True, resolve=at_home)
    asyncio.run(fetched("http://example.org/1.png", private))


async def at_home(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]
