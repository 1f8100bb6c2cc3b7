"""A training killed with -9 at four moments and resumed each time ends as if undisturbed, never from step 0."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from insightv.backends.checkpoints import MARKER, identity_of
from insightv.pipeline import Pipeline
from insightv.runs.database import connect
from insightv.tiny.world import write_questions
from tests.train.test_stages import settings
from tests.world import command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

STEPS = {"max_steps": 6, "save_steps": 2, "method": "full", "learning_rate": 1e-4}


def calls(run: Path) -> int:
    if not (run / "run.db").is_file():
        return 0
    connection = connect(run / "run.db", read_only=True)
    try:
        tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'calls'").fetchone()[0]
        return int(connection.execute("SELECT count(*) FROM calls").fetchone()[0]) if tables else 0
    finally:
        connection.close()


def train_and_kill(run: Path, ready: Callable[[], bool]) -> None:
    """Begin or go on with the training, and end its whole group with -9 at the moment that `ready` sees."""
    child = subprocess.Popen(
        command("train", "--run", run), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert child.stderr is not None
    with child.stderr:
        os.set_blocking(child.stderr.fileno(), False)
        while child.poll() is None and not ready():
            child.stderr.read()
            time.sleep(0.001)
        assert child.poll() is None, "the training ended before it could be killed"
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def report(model: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((model / "report.json").read_text())
    return found


def losses(model: Path) -> list[float]:
    log = report(model)["log"]
    assert isinstance(log, list)
    return [entry["loss"] for entry in log if "loss" in entry]


def test_killed_at_four_moments_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "questions", 8, seed=7, split="heldout")
    heldout = write_questions(tmp_path / "heldout", 4, seed=99, split="heldout")
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    chosen = settings(heldout=str(heldout), **STEPS)
    chosen = chosen.model_copy(update={"run": chosen.run.model_copy(update={"concurrency": 1})})
    Pipeline(run=calm, settings=chosen).build(questions)
    shutil.copytree(calm, killed)
    subprocess.run(command("train", "--run", calm), check=True, capture_output=True)

    supervised = killed / "rounds/0/policy.training/checkpoints"
    preference = killed / "rounds/1/policy.training/checkpoints"
    train_and_kill(killed, (supervised / "checkpoint-2" / MARKER).is_file)
    assert not (killed / "rounds/0/policy").exists()
    train_and_kill(killed, lambda: calls(killed / "rounds/1/paths") > 2)
    assert report(killed / "rounds/0/policy")["resumed_from_step"] in (2, 4)
    recorded = calls(killed / "rounds/1/paths")
    assert recorded < calls(calm / "rounds/1/paths")
    train_and_kill(killed, (preference / "checkpoint-2" / MARKER).is_file)
    half = preference / "checkpoint-4"
    train_and_kill(killed, half.is_dir)
    assert not (killed / "rounds/1/policy").exists()
    done = subprocess.run(command("train", "--run", killed, "--json"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    assert calls(killed / "rounds/1/paths") == calls(calm / "rounds/1/paths")
    assert report(killed / "rounds/1/policy")["resumed_from_step"] in (2, 4)
    for place in ("rounds/0/policy", "rounds/1/policy", "checkpoints/summary"):
        assert losses(killed / place) == pytest.approx(losses(calm / place), abs=1e-5), place
    assert identity_of(killed / "checkpoints/reasoning") == identity_of(killed / "rounds/1/policy")
    told = [{k: stage[k] for k in ("stage", "after")} for stage in json.loads(done.stdout)["stages"]]
    assert [stage["stage"] for stage in told] == ["reasoning", "round 1", "summary"]
