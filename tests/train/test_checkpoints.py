"""A folder counts as whole only with every file as it was when its marker was written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from insightv.backends.checkpoints import (
    MARKER,
    identity_of,
    is_complete,
    keep_last,
    last_complete,
    mark,
    mark_foreign,
    read_marker,
    steps_of,
)
from insightv.errors import InputError


def folder_of(parent: Path, step: int, *, marked: bool = True) -> Path:
    folder = parent / f"checkpoint-{step}"
    (folder / "deep").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights %d" % step)
    (folder / "deep" / "state.pt").write_bytes(b"state %d" % step)
    if marked:
        mark(folder, step=step)
    return folder


def test_a_marked_folder_is_whole_until_a_file_changes_or_goes(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 1, marked=False)
    assert not is_complete(folder)
    mark(folder, step=1)
    assert is_complete(folder)
    (folder / "later.txt").write_text("what came after the marker is nobody's")
    assert is_complete(folder)
    (folder / "deep" / "state.pt").write_bytes(b"state X")
    assert not is_complete(folder)
    (folder / "deep" / "state.pt").unlink()
    assert not is_complete(folder)


def test_what_somebody_else_wrote_is_marked_unless_its_marker_fits(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 1, marked=False)
    mark_foreign(folder)
    assert is_complete(folder)
    mark(folder, base="the base of its adapter")
    mark_foreign(folder)
    assert (read_marker(folder) or {})["base"] == "the base of its adapter"
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    (other / "model.safetensors").write_bytes(b"other weights")
    added = Path(shutil.copytree(folder, tmp_path / "added"))
    (added / "model-2.safetensors").write_bytes(b"more weights")
    for changed in (other, added):
        mark_foreign(changed)
        assert is_complete(changed)
        assert "base" not in (read_marker(changed) or {})
    assert len({identity_of(one) for one in (folder, other, added)}) == 3


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b"null", b'{"files": 3}', b'{"files": {"gone": "00"}}'])
def test_a_marker_that_cannot_be_read_is_none(tmp_path: Path, broken: bytes) -> None:
    folder = folder_of(tmp_path, 1)
    (folder / MARKER).write_bytes(broken)
    assert not is_complete(folder)


def test_the_last_is_the_highest_complete_one_by_number(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        folder_of(tmp_path, step)
    folder_of(tmp_path, 200, marked=False)
    (tmp_path / "checkpoint-best").mkdir()
    found = last_complete(tmp_path)
    assert found is not None
    assert (found.step, found.facts["step"]) == (100, 100)
    (tmp_path / "checkpoint-100" / "model.safetensors").write_bytes(b"torn")
    fallen = last_complete(tmp_path)
    assert fallen is not None
    assert fallen.step == 10


def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert last_complete(tmp_path / "nothing") is None
    folder_of(tmp_path, 5, marked=False)
    assert last_complete(tmp_path) is None


def test_older_ones_go_only_behind_enough_marked_ones(tmp_path: Path) -> None:
    folder_of(tmp_path, 1)
    folder_of(tmp_path, 2, marked=False)
    keep_last(tmp_path, 2)
    assert sorted(step for step, _ in steps_of(tmp_path)) == [1, 2]
    folder_of(tmp_path, 3)
    folder_of(tmp_path, 4, marked=False)
    keep_last(tmp_path, 1)
    assert sorted(step for step, _ in steps_of(tmp_path)) == [3, 4]


def test_the_identity_of_a_model_is_that_of_its_weights(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"same")
        (folder / "config.json").write_text("{}")
    assert identity_of(one) == identity_of(other)
    (other / "notes.md").write_text("not weights")
    assert identity_of(one) == identity_of(other)
    (other / "config.json").write_text('{"a": 1}')
    assert identity_of(one) != identity_of(other)
    mark(other)
    marked = identity_of(other)
    (other / "model.safetensors").write_bytes(b"torn")
    assert marked
    with pytest.raises(InputError, match="damaged"):
        identity_of(other)
    with pytest.raises(InputError, match="no weights"):
        identity_of(tmp_path)
