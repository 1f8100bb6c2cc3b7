"""A build over a real Ray cluster of two nodes on this machine; one goes out in mid-run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.fake_openai import FakeServer, Settings
from tests.world import (
    build_args,
    check_balance,
    command,
    insightv,
    path_rows,
    wait_for,
    write_questions,
    write_settings,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

CANARY = "canary-7d1f00c4-e5"
PATIENCE_S = 180
"""Starting the processes of Ray takes long where many others want the processors."""
RAY = ("--set", "run.executor=ray")
OURS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONPATH": str(Path(__file__).parents[3]),
}
QUIET = {**os.environ, **OURS}


class Nodes:
    """The cluster: its address, its folder, and what can be done to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        args = [sys.executable, "-m", "tests.servers.ray_nodes", "2", str(folder)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(args, env=QUIET, stderr=subprocess.DEVNULL, **pipes)
        self.address = self._said()

    @property
    def environment(self) -> dict[str, str]:
        """That of a build on the cluster: the key is in it, and not in that of the nodes."""
        return {**QUIET, "RAY_ADDRESS": self.address, "OPENAI_API_KEY": CANARY}

    @property
    def patiently(self) -> dict[str, Any]:
        """How a build on the cluster is run to its end."""
        return {"env": self.environment, "timeout": PATIENCE_S}

    def order(self, word: str) -> None:
        assert self.process.stdin is not None
        print(word, file=self.process.stdin, flush=True)
        assert self._said() == word

    def workers(self) -> list[int]:
        """The processes of our workers on all nodes."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                said, status = (place / "cmdline").read_bytes(), (place / "status").read_text()
                parent = Path("/proc", status.split("PPid:")[1].split()[0], "cmdline").read_bytes()
            except (OSError, IndexError):
                continue  # it has ended meanwhile
            if said.startswith(b"ray::Worker") and str(self.folder).encode() in parent:
                found.append(int(place.name))
        return found

    def end(self) -> None:
        self.process.communicate(timeout=60)

    def _said(self) -> str:
        assert self.process.stdout is not None
        return str(self.process.stdout.readline()).strip()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    for _ in range(3):  # Ray gives a node 30 s to start, which is not enough where many others want the processors
        folder = Path(tempfile.mkdtemp(prefix="ray"))  # a socket's path must be short
        started = Nodes(folder)
        if started.address:
            break
        started.end()
    assert started.address, "no cluster has started"
    yield started
    started.end()
    shutil.rmtree(folder)


def build_disturbed(
    tmp_path: Path, nodes: Nodes, disturb: Callable[[], None]
) -> tuple[subprocess.CompletedProcess[str], int, int]:
    """A build without Ray in `whole`, one over Ray in `run` that is disturbed after a third; the requests of both."""
    with FakeServer(Settings(wrong=0.3, latency_s=0.05, key=CANARY)) as server:
        extra = "[run]\nconcurrency = 16\n"
        questions, settings = write_questions(tmp_path, 60), write_settings(tmp_path, server.base_url, extra=extra)
        local = insightv(
            *build_args(questions, settings, tmp_path / "whole"), env=nodes.environment, timeout=PATIENCE_S
        )
        assert local.returncode == 0, local.stderr
        undisturbed = len(server.log())
        server.model.forget()
        args = command(*build_args(questions, settings, tmp_path / "run"), *RAY)
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        build = subprocess.Popen(args, env=nodes.environment, **pipes)
        wait_for(lambda: len(server.log()) > undisturbed // 3 or build.poll() is not None, PATIENCE_S)
        disturb()
        said, errors = build.communicate(timeout=PATIENCE_S)
        done = subprocess.CompletedProcess(args, build.returncode, said, errors)
        return done, undisturbed, len(server.log())


def check_equal(tmp_path: Path, done: subprocess.CompletedProcess[str], undisturbed: int, asked: int) -> None:
    """Completed as without Ray, each try counted, and no more asked again than was in flight at one worker."""
    assert done.returncode == 0, done.stderr
    assert "is lost" in done.stderr
    assert undisturbed <= asked <= undisturbed + 16
    assert asked <= check_balance(tmp_path / "run")["requests"] <= undisturbed + 16
    assert path_rows(tmp_path / "run") == path_rows(tmp_path / "whole")
    assert CANARY not in done.stdout + done.stderr


def test_a_node_that_goes_out_in_mid_run_costs_its_calls_in_flight_only(nodes: Nodes, tmp_path: Path) -> None:
    nodes.order("add")
    done, undisturbed, asked = build_disturbed(tmp_path, nodes, lambda: nodes.order("kill"))
    check_equal(tmp_path, done, undisturbed, asked)
    logs = [file for file in (*nodes.folder.rglob("*"), *tmp_path.rglob("*")) if file.is_file()]
    assert len(logs) > 50
    assert not [file for file in logs if CANARY.encode() in file.read_bytes()], "the key is on disk"


def test_a_worker_that_is_killed_is_replaced(nodes: Nodes, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill() -> None:
        killed.extend(nodes.workers())
        os.kill(killed[0], signal.SIGKILL)
        wait_for(lambda: len(set(nodes.workers()) - set(killed)) == 1, PATIENCE_S)

    done, undisturbed, asked = build_disturbed(tmp_path, nodes, kill)
    assert len(killed) == 2
    check_equal(tmp_path, done, undisturbed, asked)
    wait_for(lambda: nodes.workers() == [], PATIENCE_S)


def test_a_question_stays_with_its_worker(nodes: Nodes, tmp_path: Path) -> None:
    args = [sys.executable, "-m", "tests.servers.ray_model", str(tmp_path / "run"), "12"]
    done = subprocess.run(args, capture_output=True, text=True, check=False, **nodes.patiently)
    assert done.returncode == 0, done.stderr
    placed: dict[str, set[str]] = {}
    for row in path_rows(tmp_path / "run"):
        assert row["status"] == "ok", row
        said = [row["answer"], *(step["content"].split()[-1] for step in row["steps"])]
        placed.setdefault(row["question_id"], set()).update(said)
    assert [len(where) for where in placed.values()] == [1] * 12
    assert len(set.union(*placed.values())) == 2


def test_a_build_that_is_killed_leaves_no_worker_and_goes_on_without_ray(nodes: Nodes, tmp_path: Path) -> None:
    with FakeServer(Settings(latency_s=0.05, key=CANARY)) as server:
        settings = write_settings(tmp_path, server.base_url, extra="[run]\nconcurrency = 8\n")
        args = build_args(write_questions(tmp_path, 20), settings, tmp_path / "run")
        build = subprocess.Popen(command(*args, *RAY), env=nodes.environment, stderr=subprocess.DEVNULL)
        wait_for(lambda: len(server.log()) > 40, PATIENCE_S)
        build.kill()
        build.wait()
        wait_for(lambda: nodes.workers() == [], PATIENCE_S)
        again = insightv(*args, **nodes.patiently)
        assert again.returncode == 0, again.stderr
        assert len(server.log()) <= check_balance(tmp_path / "run")["requests"] + 8
    assert check_balance(tmp_path / "run")["paths"]["ok"] == 80


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            ["run.ray.gpus=1", "run.ray.resources={tpu=2}"],
            "worker with CPU = 1, GPU = 1, tpu = 2; the nodes have: CPU = 1",
        ),
        (["generator.backend.colour=red"], "backend 'openai' has no option 'colour'"),
        (["generator.base_url=http://127.0.0.1:9/v1"], "no server can be reached: http://127.0.0.1:9/v1"),
    ],
)
def test_workers_that_cannot_be_are_said_before_anything_is_started(
    changes: list[str], says: str, nodes: Nodes, tmp_path: Path
) -> None:
    with FakeServer(Settings(key=CANARY)) as server:
        questions, settings = write_questions(tmp_path, 2), write_settings(tmp_path, server.base_url)
        sets = [word for change in changes for word in ("--set", change)]
        refused = insightv(*build_args(questions, settings, tmp_path / "run"), *RAY, *sets, **nodes.patiently)
        assert server.log() == []
    assert refused.returncode == 2
    assert says in refused.stderr
    assert not (tmp_path / "run").exists()


def test_a_refused_key_stops_the_run_as_it_does_without_ray(nodes: Nodes, tmp_path: Path) -> None:
    with FakeServer(Settings(key="another")) as server:
        questions, settings = write_questions(tmp_path, 8), write_settings(tmp_path, server.base_url)
        done = insightv(
            *build_args(questions, settings, tmp_path / "run"), *RAY, env=nodes.environment, timeout=PATIENCE_S
        )
    assert done.returncode == 3
    assert "OPENAI_API_KEY" in done.stderr
    assert CANARY not in done.stdout + done.stderr
