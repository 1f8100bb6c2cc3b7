from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from insightv.assess.bands import AssessedQuestion
from insightv.atomic_files import copy_folder, full_disk_told, new_file, new_folder
from insightv.errors import ConfigError, StorageFull
from insightv.train.data.card import Origin
from insightv.train.data.export import export_paths, export_set
from insightv.train.data.sets import ReasonSet
from tests.train.world import mixed, prompt, run_of

REASON = ReasonSet(prompt=prompt)


def breaking() -> Iterator[AssessedQuestion]:
    yield mixed(0)
    yield mixed(1)
    raise RuntimeError("the store broke")


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_byte_that_is_changed_in_a_copied_folder_stays_in_it(tmp_path: Path) -> None:
    with new_folder(tmp_path / "rounds") as folder:
        (folder / "README.md").write_text("---\ninsightv:\n---\n")
        (folder / "deep").mkdir()
        (folder / "deep" / "model.safetensors").write_bytes(bytes(range(256)) * 5000)
    os.chmod(tmp_path / "rounds" / "deep" / "model.safetensors", 0o600)
    copy_folder(tmp_path / "rounds", tmp_path / "checkpoints")

    assert content(tmp_path / "checkpoints") == content(tmp_path / "rounds")
    first, second = (tmp_path / name / "deep" / "model.safetensors" for name in ("rounds", "checkpoints"))
    assert first.stat().st_ino != second.stat().st_ino
    assert [path.stat().st_nlink for path in (first, second)] == [1, 1]
    assert second.stat().st_mode == first.stat().st_mode
    before = content(tmp_path / "rounds")
    with second.open("r+b") as file:
        file.seek(70_000)
        file.write(b"\xff")
    assert content(tmp_path / "rounds") == before != content(tmp_path / "checkpoints")


@pytest.mark.parametrize("form", ["trl", "llamafactory", "swift"])
def test_a_failure_while_writing_leaves_the_old_set(form: str, tmp_path: Path) -> None:
    out = tmp_path / "reason"
    export_set(REASON, run_of(5), out, Origin(), form)
    before = content(tmp_path)
    with pytest.raises(RuntimeError, match="the store broke"):
        export_set(REASON, breaking, out, Origin(), form)
    assert content(tmp_path) == before


def test_a_failure_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    out = tmp_path / "paths.jsonl"
    export_paths(run_of(5), "jsonl", out)
    before = content(tmp_path)
    assert set(before) == {out.name}
    with pytest.raises(RuntimeError, match="the store broke"):
        export_paths(breaking, "jsonl", out)
    assert content(tmp_path) == before


def test_a_new_set_takes_the_place_of_the_old_one_whole(tmp_path: Path) -> None:
    out = tmp_path / "reason"
    export_set(REASON, run_of(5), out, Origin(), "llamafactory")
    export_set(REASON, run_of(5), out, Origin())
    assert set(content(tmp_path)) == {"reason/README.md", "reason/train-00000.parquet"}


def test_a_folder_of_someone_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "README.md").write_text("# mine")
    with pytest.raises(ConfigError, match="did not write"):
        export_set(REASON, run_of(1), tmp_path, Origin())
    assert set(content(tmp_path)) == {"thesis.tex", "README.md"}
    with pytest.raises(ConfigError, match="not a folder"):
        export_set(REASON, run_of(1), tmp_path / "thesis.tex", Origin())
    with pytest.raises(ConfigError, match="is a folder"):
        export_paths(run_of(1), "jsonl", tmp_path)


def test_a_link_is_not_followed_to_a_folder_to_replace(tmp_path: Path) -> None:
    real = tmp_path / "real"
    export_set(REASON, run_of(1), real, Origin())
    (tmp_path / "link").symlink_to(real)
    with pytest.raises(ConfigError, match="not a folder"):
        export_set(REASON, run_of(1), tmp_path / "link", Origin())


KILLED = """
import os, signal, sys
from pathlib import Path
from insightv.atomic_files import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("x" * 1000)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_while_writing_leaves_the_old_set_and_its_leavings_are_cleared(tmp_path: Path) -> None:
    out = tmp_path / "reason"
    export_set(REASON, run_of(2), out, Origin())
    before = content(out)
    done = subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert content(out) == before
    assert len(list(tmp_path.iterdir())) == 2
    export_set(REASON, run_of(2), out, Origin())
    assert [p.name for p in tmp_path.iterdir()] == ["reason"]


def test_a_kill_between_the_renames_is_repaired(tmp_path: Path) -> None:
    out = tmp_path / "reason"
    export_set(REASON, run_of(2), out, Origin())
    before = content(out)
    out.rename(tmp_path / ".reason.old")
    with pytest.raises(RuntimeError):
        export_set(REASON, breaking, out, Origin())
    assert content(out) == before


def test_a_rename_that_fails_puts_the_old_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "reason"
    export_set(REASON, run_of(2), out, Origin())
    before = content(out)
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if ".new-" in self.name:
            raise OSError(errno.EIO, "broken disk")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(StorageFull, match="reason"):
        export_set(REASON, run_of(3), out, Origin())
    monkeypatch.undo()
    assert content(tmp_path) == {f"reason/{name}": data for name, data in before.items()}


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(StorageFull, match="No space left"), new_file(tmp_path / "x"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(ConfigError, match="cannot write"), new_folder(Path("/dev/null/x")):
        pass
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, signal, sys
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.path.insert(0, sys.argv[2])
from insightv.errors import StorageFull
from insightv.train.data.card import Origin
from insightv.train.data.export import export_set, export_paths
from insightv.train.data.sets import ReasonSet
from tests.train.world import mixed, picture, prompt, run_of
import datasets
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
big = run_of(30, lambda number: mixed(number, images=[picture(number, size=100, noise=True)]))
many = run_of(300)
for write in (
    lambda: export_set(ReasonSet(prompt=prompt), big, Path(sys.argv[1]), Origin()),
    lambda: export_paths(many, "jsonl", Path(sys.argv[1] + ".jsonl")),
):
    try:
        write()
    except StorageFull as error:
        print("full:", error)
"""


def test_a_disk_that_fills_up_under_way_leaves_the_old_set(tmp_path: Path) -> None:
    out = tmp_path / "reason"
    export_set(REASON, run_of(2), out, Origin())
    before = content(tmp_path)
    command = [sys.executable, "-c", LIMITED, str(out), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.count("full: cannot write") == 2, done.stderr
    assert done.stderr == ""
    assert content(tmp_path) == before


def test_the_working_folder_can_be_named_by_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").write_text("kept")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="did not write"):
        export_set(REASON, run_of(1), Path("."), Origin())
    with pytest.raises(ConfigError, match="cannot be written"):
        export_set(REASON, run_of(1), Path("/"), Origin())
    export_set(REASON, run_of(1), Path("set"), Origin())
    assert set(content(tmp_path)) == {"mine", "set/README.md", "set/train-00000.parquet"}


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """No file may grow beyond `most` bytes, as on a disk that is full there."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("writer", ["safetensors", "torch", "plain"])
def test_whoever_writes_a_full_disk_is_told_as_that(tmp_path: Path, writer: str) -> None:
    import torch
    from safetensors.torch import save_file

    numbers = {"weight": torch.zeros(100_000)}
    write: dict[str, Callable[[], object]] = {
        "safetensors": lambda: save_file(numbers, tmp_path / "model.safetensors"),
        "torch": lambda: torch.save(numbers, tmp_path / "optimizer.pt"),
        "plain": lambda: (tmp_path / "model").write_bytes(bytes(400_000)),
    }
    with pytest.raises(StorageFull, match="make room and run again"), full_disk_told(tmp_path), small_files(100_000):
        write[writer]()
    with pytest.raises(ValueError, match="mine"), full_disk_told(tmp_path):
        raise ValueError("mine")


FILLED = """
import sys
from pathlib import Path
from insightv.errors import StorageFull
from insightv.train.finetune import fit, process
from insightv.train.finetune.settings import Job, TrainSettings
from tests.test_atomic_files import small_files

def trains(job):  # as trainers do: it prints, and fails to write a checkpoint
    print("loss " * 100)
    raise StorageFull("no room for a checkpoint")

fit.train = trains
here = Path(sys.argv[1])
with small_files(100):
    try:
        process.run_here(Job(stage="reason", policy="x", data=here, out=here / "out", settings=TrainSettings()))
    except StorageFull as error:
        print("full", error)
"""


def test_a_full_disk_is_told_where_the_log_of_a_training_here_fills_it_too(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FILLED, tmp_path], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("full cannot write"), done.stderr[-3000:]
