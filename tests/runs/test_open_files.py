"""The limit of open files: looked at before anything is sent, and never the end of what was paid for."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from insightv.errors import TooManyOpenFiles
from insightv.runs.database import Database, connect
from insightv.runs.host_limits import SpareFiles
from tests.open_files import no_file_left
from tests.servers.fake_openai import FakeServer, Settings
from tests.world import build_args, check_balance, command, write_questions, write_settings

MANY = "[run]\nconcurrency = 256\ngrace_s = 3\n"


def build(args: list[str], limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """A build in a process whose hard limit of open files is `limit`."""
    limits = None if limit is None else partial(resource.setrlimit, resource.RLIMIT_NOFILE, (limit, limit))
    return subprocess.run(args, capture_output=True, text=True, timeout=60, check=False, preexec_fn=limits)


def insert(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("INSERT INTO t VALUES (?)", (number,))


def nothing_asked_twice(server: FakeServer) -> bool:
    return max(Counter((entry["sha"], entry["seed"], entry["schema"]) for entry in server.log()).values()) == 1


@pytest.mark.parametrize("limit", [64, 200])
def test_fewer_calls_are_in_flight_where_fewer_files_may_be_open(limit: int, tmp_path: Path) -> None:
    with FakeServer(Settings(latency_s=0.02)) as server:
        questions = write_questions(tmp_path, 20, steps=1)
        settings = write_settings(tmp_path, server.base_url, path_scorer=False, extra=MANY)
        args = command(*build_args(questions, settings, tmp_path / "run"))
        done = build(args, limit)
        assert done.returncode == 0, done.stderr
        [line] = [line for line in done.stderr.splitlines() if "open files" in line]
        assert f"the limit of open files is {limit}: run.concurrency = 256 is lowered to " in line
        assert "ulimit -n" in line
        asked = len(server.log())
        assert check_balance(tmp_path / "run")["requests"] == asked
        assert nothing_asked_twice(server)
        assert build(args).returncode == 0
        assert len(server.log()) == asked
    assert "concurrency = 256" in (tmp_path / "run" / "config.toml").read_text()


@pytest.mark.parametrize("limit", [20, 40])
def test_where_not_even_a_few_calls_fit_nothing_is_sent(limit: int, tmp_path: Path) -> None:
    with FakeServer() as server:
        questions, settings = write_questions(tmp_path, 4), write_settings(tmp_path, server.base_url, extra=MANY)
        refused = build(command(*build_args(questions, settings, tmp_path / "run")), limit)
        assert refused.returncode == 2, refused.stderr
        assert f"the limit of open files is {limit}, and " in refused.stderr
        assert "space" not in refused.stderr
        assert not server.log()
    assert not (tmp_path / "run").exists()


GREEDY = """
import asyncio, os, sys
from insightv import Pipeline, Settings, TooManyOpenFiles

questions, settings, folder = sys.argv[1:]
held = []

def take_all(snapshot):
    try:
        while snapshot.requests:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass

try:
    Pipeline.from_config(settings, run=folder).build(questions, datasets=False, watch=take_all)
except TooManyOpenFiles as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_process_that_runs_out_of_files_stops_with_all_it_paid_for_recorded(tmp_path: Path) -> None:
    """Something else in the process takes every descriptor, while the calls of the first half second are in flight."""
    with FakeServer(Settings(latency_s=0.7)) as server:
        questions = write_questions(tmp_path, 60, steps=1)  # more than are open at once
        extra = "[run]\nconcurrency = 16\n"
        settings = write_settings(tmp_path, server.base_url, path_scorer=False, extra=extra)
        stopped = build([sys.executable, "-c", GREEDY, str(questions), str(settings), str(tmp_path / "run")], 300)
        assert stopped.returncode == 3, stopped.stderr
        assert "cannot be opened: too many files are open, and this process may have 300" in stopped.stdout
        assert "space" not in stopped.stdout
        asked = len(server.log())
        status = check_balance(tmp_path / "run", done=False)
        assert 16 <= status["requests"] == asked
        assert status["paths"]["failed"] == 0
        server.change(latency_s=0)
        assert build(command(*build_args(questions, settings, tmp_path / "run"))).returncode == 0
        status = check_balance(tmp_path / "run")
        assert status["requests"] == len(server.log())
        assert status["paths"]["failed"] == 0
        assert nothing_asked_twice(server)


def test_the_database_writes_with_its_reserve_where_no_file_can_be_opened(tmp_path: Path) -> None:
    troubles: list[Exception] = []
    database = Database(tmp_path / "x.db", troubles.append)
    asyncio.run(database.write([("CREATE TABLE t (a)", ())]))
    for number in range(3):
        with no_file_left():
            database.submit(partial(insert, number=number)).result(10)
    database.close()
    assert not troubles
    with sqlite3.connect(tmp_path / "x.db") as connection:
        assert connection.execute("SELECT a FROM t").fetchall() == [(0,), (1,), (2,)]


def test_a_database_without_a_descriptor_is_no_full_disk(tmp_path: Path) -> None:
    connect(tmp_path / "x.db").close()
    with no_file_left(), pytest.raises(TooManyOpenFiles, match=r"x\.db cannot be opened: too many files") as caught:
        connect(tmp_path / "x.db", read_only=True)
    assert "space" not in str(caught.value)
    database = Database(tmp_path / "x.db", lambda trouble: None)
    database._spare.close()
    database._spare = SpareFiles(0)
    with no_file_left(), pytest.raises(TooManyOpenFiles):
        database.submit(lambda c: c.execute("CREATE TABLE t (a)") and None).result(10)
    database.close()
