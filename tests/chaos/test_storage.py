"""The disk and the lock: a disk that is full, broken or read-only, a file that is damaged, two processes on one run."""

from __future__ import annotations

import ctypes
import json
import random
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from insightv.runs.lock import network_file_system
from tests.chaos.after import ENVIRONMENT, check_output, check_run, run
from tests.servers.fake_openai import FakeServer, Settings
from tests.world import build_args, command, path_rows, write_questions, write_settings

pytestmark = pytest.mark.chaos

CONCURRENCY = 8
EXTRA = f"[run]\nconcurrency = {CONCURRENCY}\ngrace_s = 3\n"


def without_root() -> None:
    """Let the superuser be refused by permissions like everybody else, from the next exec on."""
    prctl = ctypes.CDLL(None).prctl
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def can_mount() -> bool:
    script = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0"', "/mnt"]
    return (
        shutil.which("unshare") is not None and subprocess.run(script, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount; tests/runs/test_build.py fills a disk without")
def test_a_full_disk_stops_paying_and_made_larger_the_run_goes_on(tmp_path: Path) -> None:
    """A file system of 1 MiB (8 MiB in the fault model; the same paths of the code, an eighth of the time)."""
    with FakeServer(Settings(wrong=0.3)) as server:
        questions = write_questions(tmp_path, 80, steps=3)
        settings = write_settings(tmp_path, server.base_url, extra=EXTRA)
        small, kept = tmp_path / "small", tmp_path / "kept"
        small.mkdir()
        build = " ".join(f"'{part}'" for part in command(*build_args(questions, settings, small / "run")))
        script = f"""
            mount -t tmpfs -o size=1m none '{small}'
            {build} > /dev/null; echo $?
            cp -r '{small}/run' '{kept}'
            read larger
            mount -o remount,size=64m '{small}'
            {build} > /dev/null; echo $?
            rm -rf '{kept}'; cp -r '{small}/run' '{kept}'
        """
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(["unshare", "-m", "sh", "-c", script], **pipes, text=True, env=ENVIRONMENT) as shell:  # type: ignore[call-overload]
            assert shell.stdout.readline().strip() == "3"
            while not (kept / "run.db").is_file():  # the copy is under way
                assert shell.poll() is None
            asked = len(server.log())
            said, errors = shell.communicate("on\n", timeout=120)
    check_output(errors, 3)
    assert f"{small}/run" in errors
    assert "cannot be written" in errors
    assert "resume with: insightv build" in errors
    assert said.strip() == "0"
    status = check_run(kept)
    assert status["questions"]["done"] == 80
    assert len(server.log()) - status["requests"] <= 2 * CONCURRENCY, "what was paid for is not recorded"
    assert asked < len(server.log())


@pytest.mark.parametrize("commits", [3, 40])
def test_a_disk_that_breaks_stops_paying_and_loses_no_commit(commits: int, tmp_path: Path) -> None:
    with FakeServer(Settings(latency_s=0.05)) as server:
        questions = write_questions(tmp_path, 40, steps=2)
        settings = write_settings(tmp_path, server.base_url, extra=EXTRA)
        folder = tmp_path / "run"
        args = build_args(questions, settings, folder)
        breaking = [sys.executable, "-m", "tests.chaos.forking", "break", str(commits), *map(str, args)]
        done = subprocess.run(breaking, capture_output=True, text=True, timeout=120, check=False, env=ENVIRONMENT)
        check_output(done.stderr, done.returncode)
        assert done.returncode == 3, done.stderr
        assert "run.db cannot be written" in done.stderr
        asked = len(server.log())
        recorded = check_run(folder, done=False)["requests"]
        assert asked - 2 * CONCURRENCY <= recorded <= asked, "calls went on, or answers were lost"
        assert run(*args).returncode == 0
        assert check_run(folder)["requests"] == len(server.log()) - asked + recorded


@pytest.mark.parametrize("where", ["the run", "its parent"])
def test_a_folder_that_cannot_be_written_is_named_and_can_still_be_read(where: str, tmp_path: Path) -> None:
    with FakeServer() as server:
        questions, settings = write_questions(tmp_path, 3), write_settings(tmp_path, server.base_url)
        parent = tmp_path / "parent"
        parent.mkdir()
        folder = parent / "run"
        args = build_args(questions, settings, folder)
        if where == "the run":
            assert run(*args, "--set", "run.max_requests=4").returncode == 3
        asked = len(server.log())
        closed = folder if where == "the run" else parent
        modes = {path: path.stat().st_mode for path in [closed, *closed.rglob("*")]}
        for path in modes:
            path.chmod(0o500 if path.is_dir() else 0o400)
        refused = run(*args, preexec_fn=without_root)
        assert refused.returncode == 3, refused.stderr
        assert f"{folder} cannot be written: Permission denied" in refused.stderr
        assert len(server.log()) == asked, "paid for what cannot be kept"
        if where == "the run":
            status = run("status", "--run", folder, "--json", preexec_fn=without_root)
            assert json.loads(status.stdout)["requests"] == asked
            exported = run(
                "export", "--run", folder, "--what", "paths", "--out", tmp_path / "o", preexec_fn=without_root
            )
            assert exported.returncode == 0
        for path, mode in modes.items():
            path.chmod(mode)
        assert run(*args).returncode == 0
    check_run(folder)


def test_a_damaged_database_is_called_that_by_every_command(tmp_path: Path) -> None:
    with FakeServer() as server:
        questions, settings = write_questions(tmp_path, 6), write_settings(tmp_path, server.base_url)
        whole = tmp_path / "whole"
        assert run(*build_args(questions, settings, whole)).returncode == 0
        asked = len(server.log())
        data = (whole / "run.db").read_bytes()
        chance = random.Random(4)
        torn = bytearray(data)
        size = int.from_bytes(data[16:18], "big")  # of a page, as SQLite's header says
        for page in range(size, len(data), size):
            torn[page : page + 64] = chance.randbytes(64)
        damages = {
            "noise": chance.randbytes(len(data)),
            "cut": data[: len(data) // 2 + 100],
            "torn": bytes(torn),
            "text": b"SELECT 1;\n",
            "another": sqlite_of_another_program(tmp_path),
        }
        for name, damage in damages.items():
            folder = tmp_path / name
            shutil.copytree(whole, folder)
            (folder / "run.db").write_bytes(damage)
            for args in (
                ["status", "--run", folder],
                ["export", "--run", folder, "--what", "paths", "--out", tmp_path / "out"],
                build_args(questions, settings, folder),
            ):
                done = run(*args)
                assert done.returncode == 2, (name, args[0], done.stdout, done.stderr)
                assert "run.db" in done.stderr or "database is damaged" in done.stderr, (name, args[0], done.stderr)
        assert len(server.log()) == asked


RECORDS = {
    "a path": "UPDATE paths SET record = substr(record, 1, 40)",
    "a score": "UPDATE scores SET record = '{}'",
    "a call": "UPDATE calls SET replies = x'7b'",
    "a question": """UPDATE questions SET record = CAST('{"images":["sha256:' AS BLOB)""",
    "the settings": "UPDATE epochs SET settings = 'seed = 3'",
    "a row left out": "INSERT INTO bad_rows VALUES ('no')",
    "a table": "DROP TABLE scores",
}


@pytest.mark.parametrize("what", RECORDS)
def test_a_record_that_is_not_what_was_written_is_named_by_every_command(what: str, tmp_path: Path) -> None:
    with FakeServer() as server:
        questions, settings = write_questions(tmp_path, 3), write_settings(tmp_path, server.base_url)
        folder = tmp_path / "run"
        args = build_args(questions, settings, folder)
        few = ("--set", "run.max_requests=20", "--set", "run.concurrency=1")
        assert run(*args, *few).returncode == 3
        with closing(sqlite3.connect(folder / "run.db")) as connection, connection:
            connection.execute(RECORDS[what])
        told = 0
        for command in (
            ["status", "--run", folder],
            ["report", "--run", folder],
            ["export", "--run", folder, "--what", "paths", "--out", tmp_path / "out"],
            ["export", "--run", folder, "--what", "calls", "--out", tmp_path / "calls"],
            args,
        ):
            done = run(*command)
            assert "Traceback" not in done.stderr, (command[0], done.stderr)
            assert done.returncode in (0, 2, 4), (command[0], done.stderr)
            told += done.returncode == 2 and "damaged" in done.stderr
        assert told, "nobody was told"


def sqlite_of_another_program(folder: Path) -> bytes:
    import sqlite3

    with sqlite3.connect(folder / "another.db") as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    return (folder / "another.db").read_bytes()


def test_a_run_that_has_not_begun_is_not_done(tmp_path: Path) -> None:
    """What a kill leaves between the first touch of run.db and the first question."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.db").touch()
    assert run("status", "--run", folder).returncode == 2
    with FakeServer() as server:
        questions, settings = write_questions(tmp_path, 2), write_settings(tmp_path, server.base_url)
        nothing = run("build", "--run", folder, "--config", settings)
        assert nothing.returncode == 2
        assert "no questions yet" in nothing.stderr
        assert server.log() == []
        assert run(*build_args(questions, settings, folder)).returncode == 0
    assert check_run(folder)["questions"]["done"] == 2


@pytest.mark.timeout(600)
def test_of_many_that_start_at_one_moment_exactly_one_runs(tmp_path: Path) -> None:
    """5 rounds of 4: one runs to its end, the others leave with 3, name it, and take under 2 s of processor time."""
    with FakeServer(Settings(latency_s=0.4)) as server:
        questions = write_questions(tmp_path, 4, steps=2)
        settings = write_settings(tmp_path, server.base_url, paths=2)
        folder = tmp_path / "race"
        folder.mkdir()
        args = [sys.executable, "-m", "tests.chaos.forking", "race", "5", "4"]
        args += map(str, build_args(questions, settings, folder / "{round}"))
        done = subprocess.run(args, capture_output=True, text=True, timeout=500, check=False, env=ENVIRONMENT)
        asked = len(server.log())
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 20
    winners = {line["round"]: line["pid"] for line in lines if line["code"] == 0}
    assert Counter(line["code"] for line in lines) == {0: 5, 3: 15}, lines
    assert len(winners) == 5
    for line in lines:
        check_output(line["stderr"], line["code"])
        if line["code"] == 3:
            assert f"process {winners[line['round']]} on" in line["stderr"]
            assert line["cpu_s"] < 2
    rows = [path_rows(folder / str(number)) for number in winners]
    assert all(other == rows[0] for other in rows)
    assert asked == sum(check_run(folder / str(number))["requests"] for number in winners), "a second one has asked"


def test_a_stale_name_is_not_given_for_the_holder(tmp_path: Path) -> None:
    """A killed build leaves its name behind; whoever is refused later is told the one that holds the run now."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with FakeServer(Settings(latency_s=30)) as server:
        questions, settings = write_questions(tmp_path, 2), write_settings(tmp_path, server.base_url)
        folder = tmp_path / "run"
        folder.mkdir()
        for stale in (json.dumps({"pid": gone.pid, "host": "elsewhere", "started": "x"}), "[1]", "{", ""):
            (folder / "holder.json").write_text(stale)
            assert run(*build_args(questions, settings, folder), "--set", "generator.paths=0").returncode == 2
            first = subprocess.Popen(command(*build_args(questions, settings, folder)), stderr=subprocess.DEVNULL)
            while not server.log():
                assert first.poll() is None
            second = run(*build_args(questions, settings, folder))
            assert second.returncode == 3
            assert f"process {first.pid} on" in second.stderr
            first.kill()
            first.wait()
            server.model.forget()


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/srv/runs/one", None),
        ("/data/runs/one", "nfs4"),
        ("/data/local/one", None),
        ("/my disk/one", "cifs"),
        ("/home/one", "fuse.sshfs"),
        ("/datapoint", None),
    ],
)
def test_network_file_systems_are_known(place: str, kind: str | None, tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/a / ext4 rw 0 0\nserver:/x /data nfs4 rw 0 0\n/dev/b /data/local xfs rw 0 0\n"
        "//s/y /my\\040disk cifs rw 0 0\nme@host: /home fuse.sshfs rw 0 0\nbroken\n"
    )
    assert network_file_system(Path(place), mounts) == kind
    assert network_file_system(Path(place), tmp_path / "none") is None
