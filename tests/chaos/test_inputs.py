"""Inputs made to hurt, in a whole build. Each is named one by one in tests/inputs/; here they meet a run.

Rows, images and addresses stand in tests/inputs/{defects,hostile,test_fetch}.py and are taken from there.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.chaos.after import check_run, measured, run
from tests.inputs import defects, hostile
from tests.inputs.test_fetch import NEVER
from tests.servers.fake_openai import FakeServer
from tests.world import build_args, write_settings

pytestmark = pytest.mark.chaos
DEFECTS = list(defects.rows())


class Canary:
    """A listener that nobody may reach; `calls` counts those who did."""

    def __enter__(self) -> Canary:
        self.calls = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.calls += 1
            connection.close()

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def folder_of_all(root: Path) -> Path:
    images = hostile.folder(root)
    (images / "hostile").mkdir()
    for name, data, _ in hostile.refused():
        (images / "hostile" / name).write_bytes(data)
    for name, data, _, _ in hostile.accepted():
        (images / name).write_bytes(data)
    return images


def good(number: int, **changes: Any) -> bytes:
    values = {"id": f"good {number}", "question": f"What is {number}? [truth=7] [steps=2]", "images": ["a.png"]}
    return json.dumps({**values, "answer": "7", **changes}).encode()


@pytest.mark.timeout(300)
def test_ten_thousand_rows_with_every_defect_are_refused_before_anything_is_paid(tmp_path: Path) -> None:
    """Every fault with its line, id, field and code, under 200 MB; 0 calls, and nothing of a run is left."""
    images = folder_of_all(tmp_path)
    wrong = [defect for defect in DEFECTS if not defect[0].startswith("image file ")]  # those cost memory of their own
    assert len(wrong) >= 60
    lines = [good(number) for number in range(10_000 - len(wrong))]
    for place, (_, line, _, _) in enumerate(wrong):
        lines.insert(50 * place, line)
    questions = images / "rows.jsonl"
    questions.write_bytes(b"".join(line + b"\n" for line in lines))
    with FakeServer() as server:
        settings = write_settings(tmp_path, server.base_url)
        code, said, peak = measured(*build_args(questions, settings, tmp_path / "run"))
        assert server.log() == []
    assert code == 2
    assert peak < 200, f"{peak:.0f} MB"
    for place, (name, _, field, fault) in enumerate(wrong):
        found = re.search(rf"^\s*rows\.jsonl:{50 * place + 1}: .*\[(\w+)\]$", said, re.M)
        assert found is not None, name
        assert found[1] == fault, name
        assert f": {field}: " in found[0] or not field, name
    assert not (tmp_path / "run").exists()


@pytest.mark.timeout(300)
def test_skipping_bad_rows_and_images_the_good_ones_are_built_and_nothing_else_is_touched(tmp_path: Path) -> None:
    """All defects, over 60 hostile images and every forbidden address; 100 % of the good rows, under 1 GB."""
    images = folder_of_all(tmp_path)
    kept = [good(number, images=[name]) for number, (name, *_) in enumerate(hostile.accepted())]
    with Canary() as canary, FakeServer() as server:
        addresses = [url.replace("{port}", str(canary.port)) for url in NEVER]
        bad = [line for _, line, _, _ in DEFECTS]
        bad += [good(1000 + number, images=[url]) for number, url in enumerate(addresses)]
        questions = images / "rows.jsonl"
        questions.write_bytes(b"".join(line + b"\n" for line in [*bad, *kept]))
        settings = write_settings(tmp_path, server.base_url, paths=1)
        folder = tmp_path / "run"
        code, _, peak = measured(*build_args(questions, settings, folder), "--bad-rows", "skip")
        assert canary.calls == 0
    assert code == 0
    assert peak < 1000, f"{peak:.0f} MB"
    status = check_run(folder)
    assert status["questions"]["done"] == len(kept)
    left_out = json.loads(run("status", "--run", folder, "--json").stdout)["rows_left_out"]
    assert {row["line"] for row in left_out} == set(range(1, len(bad) + 1))
    for picture in (folder / "images").iterdir():
        data = picture.read_bytes()
        assert b"CANARY" not in data, "metadata went out with the picture"
        assert b"Exif" not in data
        assert re.fullmatch(r"[0-9a-f]{64}\.(png|jpg|webp)", picture.name), "a name that is not a hash"


def test_images_that_change_after_they_were_checked_cost_their_own_question(tmp_path: Path) -> None:
    """Gone, a link, a bomb, a folder, cut, another: swapped while the run stands still at its first question."""
    with FakeServer() as server:
        images = tmp_path / "images"
        images.mkdir()
        secret = tmp_path / "secret.png"
        Image.new("RGB", (8, 8), "red").save(secret)
        names = ["first", "gone", "link", "bomb", "folder", "cut", "other", "same"]
        for name in names:
            Image.new("RGB", (40, 30), "blue").save(images / f"{name}.png")
        rows = [good(i, id=name, images=[f"images/{name}.png"]) for i, name in enumerate(names)]
        questions = tmp_path / "rows.jsonl"
        questions.write_bytes(b"".join(row + b"\n" for row in rows))
        settings = write_settings(tmp_path, server.base_url, paths=1)
        folder = tmp_path / "run"
        stopped = run(
            *build_args(questions, settings, folder), "--set", "run.max_requests=1", "--set", "run.concurrency=1"
        )
        assert stopped.returncode == 3
        (images / "gone.png").unlink()
        (images / "link.png").unlink()
        (images / "link.png").symlink_to(secret)
        (images / "bomb.png").write_bytes(hostile.png(9000, 9000))
        (images / "folder.png").unlink()
        (images / "folder.png").mkdir()
        Image.new("RGB", (40, 30), "green").save(images / "other.png")
        (images / "cut.png").write_bytes((images / "same.png").read_bytes()[:60])
        (tmp_path / "rows.jsonl").unlink()  # the run has its questions
        again = run("build", "--run", folder, "--no-datasets", "--set", "run.max_requests=1000")
        assert again.returncode == 4, again.stderr
    status = check_run(folder)
    assert status["paths"]["ok"] >= 2
    assert status["paths"]["failed"] == 8 - status["paths"]["ok"]
    assert status["paths"]["by_code"]["image_changed"] == 2, "another picture, and the link to one"
    assert set(status["paths"]["by_code"]) <= {
        f"image_{code}"
        for code in ("missing", "outside_root", "too_large_pixels", "is_directory", "truncated", "corrupt", "changed")
    }
