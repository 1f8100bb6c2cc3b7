"""Several model servers, of which one dies while a build runs: for good, or for a while."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.after import ENVIRONMENT, check_output, check_run, run
from tests.servers.fake_openai import FakeServer, Settings
from tests.world import build_args, command, path_rows, wait_for, write_questions, write_settings

pytestmark = pytest.mark.chaos

CONCURRENCY = 16
LATER = ("reasoning_step", "final_answer")


def answered(log: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    """The calls whose replies went out whole."""
    whole = [entry for entry in log if entry["done"] and not entry["gone"]]
    return Counter((entry["sha"], entry["seed"], entry["schema"]) for entry in whole)


def moved(log: list[dict[str, Any]]) -> int:
    """Later calls of chains whose beginning this server has not seen."""
    return sum(entry["messages"] > 2 and entry["schema"] in LATER and entry["extends"] is None for entry in log)


def hanging(log: list[dict[str, Any]]) -> int:
    """The requests without an answer, where the last answer is more than a second ago; 0 where it is not."""
    quiet = time.time() - max((entry["done"] or 0 for entry in log), default=0) > 1
    return sum(not entry["done"] for entry in log) if quiet else 0


@pytest.mark.timeout(900)
@pytest.mark.parametrize("back", [False, True])
def test_of_three_servers_one_dies_and_nothing_is_lost_or_paid_twice(back: bool, tmp_path: Path) -> None:
    """40 questions x 4 paths: the same rows as with one server; asked again is only what was in flight at the dead."""
    questions = write_questions(tmp_path, 40, steps=3)
    chance, extra = Settings(wrong=0.3, latency_s=0.03), f"[run]\nconcurrency = {CONCURRENCY}\n"
    with FakeServer(chance) as alone:
        settings = write_settings(tmp_path, alone.base_url, extra=extra)
        assert run(*build_args(questions, settings, tmp_path / "whole"), timeout=300).returncode == 0
        undisturbed, text = len(alone.log()), settings.read_text(encoding="utf-8")
    with ExitStack() as stack:
        servers = [stack.enter_context(FakeServer(chance)) for _ in range(3)]
        several = json.dumps([server.base_url for server in servers])
        settings.write_text(text.replace(f'"{alone.base_url}"', several), encoding="utf-8")
        args = command(*build_args(questions, settings, tmp_path / "run"))
        build = subprocess.Popen(args, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: sum(len(server.log()) for server in servers) > undisturbed // 3, 300)
        before = [server.log() for server in servers]
        servers[1].change(latency_s=60.0)
        for other in servers[::2]:  # there must be work left when it is asked again, seconds after it came back
            other.change(latency_s=1.0)
        # A reply that went out just before would be lost on the way, and rightly asked for again.
        wait_for(lambda: hanging(servers[1].log()) > 2, 300)
        servers[1].down()
        servers[1].change(latency_s=0.03)
        died_at = len(servers[1].log())
        if back:
            wait_for(lambda: sum(len(server.log()) for server in servers) > undisturbed // 2, 300)
            servers[1].up()
            wait_for(lambda: len(servers[1].log()) > died_at, 60)
        for other in servers[::2]:
            other.change(latency_s=0.03)
        said, errors = build.communicate(timeout=300)
        logs = [server.log() for server in servers]
    check_output(said + errors, build.returncode)
    assert build.returncode == 0, errors
    asked = sum(map(len, logs))
    in_flight = sum(not entry["done"] or entry["gone"] for entry in logs[1])
    assert 0 < in_flight <= CONCURRENCY
    assert min(map(len, before)) > undisturbed // 3 / 5, "the load was not balanced"
    assert (len(logs[1]) > died_at) == back
    assert asked <= undisturbed + in_flight, "more was asked again than was in flight at the dead server"
    assert sum(count - 1 for count in sum(map(answered, logs), Counter()).values()) == 0, "paid twice"
    chains = 4 * CONCURRENCY
    assert sum(map(moved, before)) == 0, "a chain left its server although that lived"
    assert 0 < sum(map(moved, logs)) <= chains * (2 if back else 1)
    status = check_run(tmp_path / "run")
    assert asked <= status["requests"] <= asked + CONCURRENCY  # some broke off before the server had read them
    assert path_rows(tmp_path / "run") == path_rows(tmp_path / "whole")
