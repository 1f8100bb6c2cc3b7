"""SIGKILL: at every boundary of a small run, and at random moments of a large one."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from tests.chaos.after import ENVIRONMENT, check_run, run
from tests.servers.fake_openai import FakeServer, Settings
from tests.world import build_args, command, path_rows, wait_for, write_questions, write_settings

pytestmark = pytest.mark.chaos


def answered(log: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    return Counter((entry["sha"], entry["seed"], entry["schema"]) for entry in log)


def dying(boundary: str, folder: Path, command: Sequence[object]) -> Iterator[tuple[int, ...]]:
    """Each round of `tests.chaos.dying`; the next begins when the caller has looked at it."""
    args = [sys.executable, "-m", "tests.chaos.dying", boundary, str(folder), *map(str, command)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
    with subprocess.Popen(args, **pipes) as process:
        assert process.stdin is not None
        for line in process.stdout or ():
            yield tuple(map(int, line.split()))
            print("on", file=process.stdin, flush=True)
    assert process.returncode == 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("boundary", ["begin", "commit", "file"])
def test_killed_at_every_boundary_the_run_goes_on_to_the_same_rows(boundary: str, tmp_path: Path) -> None:
    """10 questions. Per boundary: at most `concurrency` requests more than undisturbed, and the same rows."""
    concurrency = 4
    with FakeServer(Settings(wrong=0.3)) as server:
        questions = write_questions(tmp_path, 10, steps=2)
        extra = f"[run]\nconcurrency = {concurrency}\n"
        settings = write_settings(tmp_path, server.base_url, paths=2, extra=extra)
        whole = tmp_path / "whole"
        assert run(*build_args(questions, settings, whole)).returncode == 0
        undisturbed, rows = len(server.log()), path_rows(whole)
        server.model.forget()
        (tmp_path / "cut").mkdir()
        asked = [0]
        rounds = []
        for line in dying(boundary, tmp_path / "cut", build_args(questions, settings, Path("{run}"))):
            rounds.append(line)
            asked.append(len(server.log()))
    assert len(rounds) > (10 if boundary == "file" else 30)
    assert all(died == -9 for _, died, _ in rounds[:-1])
    assert rounds[-1][1] == 0
    for (number, _, again), before, after in zip(rounds, asked, asked[1:], strict=False):
        assert again == 0, f"boundary {number}: the second build ended with {again}"
        assert after - before <= undisturbed + concurrency, f"boundary {number}: asked again what was answered"
        folder = tmp_path / "cut" / str(number)
        status = check_run(folder)
        assert status["requests"] >= undisturbed
        assert path_rows(folder) == rows, f"boundary {number}: other rows"
        assert not list(folder.rglob("*.new*")), "left half written"


@pytest.mark.timeout(600)
def test_killed_at_every_change_of_a_file_while_sets_are_written_they_are_the_same(tmp_path: Path) -> None:
    """A finished run of 6 questions: its sets are whole or not there at all, and as undisturbed when made again."""
    with FakeServer(Settings(wrong=0.3)) as server:
        questions = write_questions(tmp_path, 6, steps=2)
        settings = write_settings(tmp_path, server.base_url)
        start = tmp_path / "cut" / "start"
        start.parent.mkdir()
        assert run(*build_args(questions, settings, start)).returncode == 0
        whole = tmp_path / "whole"
        shutil.copytree(start, whole)
        assert run("build", "--run", whole, "--trust").returncode == 0
        undisturbed = len(server.log())
        rounds = []
        for number, died, again in dying("file", tmp_path / "cut", ["build", "--run", "{run}", "--trust"]):
            rounds.append(died)
            assert again == 0, f"boundary {number}: the second build ended with {again}"
            folder = tmp_path / "cut" / str(number)
            assert set_rows(folder) == set_rows(whole), f"boundary {number}: other rows"
            assert not [file for file in folder.rglob("*") if ".new" in file.name], "left half written"
        assert len(server.log()) == undisturbed
    assert len(rounds) > 8
    assert all(died == -9 for died in rounds[:-1])
    assert rounds[-1] == 0


def set_rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each set of a run."""
    sets = (folder / "datasets").iterdir()
    return {
        one.name: [row for file in sorted(one.glob("*.parquet")) for row in parquet.read_table(file).to_pylist()]
        for one in sets
    }


@pytest.mark.timeout(900)
def test_killed_at_random_moments_a_large_run_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """500 questions x 4 paths, killed 20 times: requests <= undisturbed + 20 x concurrency, the same rows."""
    kills, concurrency, chance = 20, 32, random.Random(20)
    with FakeServer(Settings(wrong=0.3)) as server:
        questions = write_questions(tmp_path, 500, steps=2)
        extra = f"[run]\nconcurrency = {concurrency}\n"
        settings = write_settings(tmp_path, server.base_url, extra=extra)
        whole, cut = tmp_path / "whole", tmp_path / "cut"
        assert run(*build_args(questions, settings, whole), timeout=600).returncode == 0
        undisturbed = len(server.log())
        server.model.forget()
        marks = sorted(chance.uniform(0, undisturbed) for _ in range(kills))
        for mark in marks:
            build = subprocess.Popen(command(*build_args(questions, settings, cut)), env=ENVIRONMENT)
            wait_for(lambda mark=mark: len(server.log()) > mark, 300)
            build.kill()
            build.wait()
        assert run(*build_args(questions, settings, cut), timeout=600).returncode == 0
        log = server.log()
    assert len(log) <= undisturbed + kills * concurrency
    twice = sum(count - 1 for count in answered(log).values())
    assert twice <= kills * concurrency
    check_run(cut)
    assert path_rows(cut) == path_rows(whole)
