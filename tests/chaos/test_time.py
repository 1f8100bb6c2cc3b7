"""Signals and clocks: told to stop while the server hangs, stopped and continued, a clock that jumps."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from insightv.runs.reader import load_run
from tests.chaos.after import ENVIRONMENT, check_output, check_run, run
from tests.chaos.test_limits import build
from tests.servers.fake_openai import FakeServer, Settings
from tests.world import build_args, command, wait_for, write_questions, write_settings

pytestmark = pytest.mark.chaos


def slowness() -> float:
    """Seconds that a bare interpreter takes to start: about 0.05 on an idle machine."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import json"], check=True)
    return time.monotonic() - began


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_told_to_stop_while_the_server_hangs_it_ends_after_the_grace_time(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    with FakeServer(Settings(script=("ok",) * 30, faults={"hang": 1.0})) as server:
        questions, settings = write_questions(tmp_path, 10), write_settings(tmp_path, server.base_url)
        folder = tmp_path / "run"
        args = command(*build_args(questions, settings, folder), "--set", "run.grace_s=1")
        hung = subprocess.Popen(args, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=ENVIRONMENT)
        wait_for(lambda: sum(entry["fault"] == "hang" for entry in server.log()) >= 10, 60)
        began = time.monotonic()
        hung.send_signal(number)
        errors = hung.communicate(timeout=300)[1]
        took = time.monotonic() - began
        assert took < 1 + 2 + 40 * slowness(), f"{took:.1f} s with a grace time of 1 s"
        check_output(errors, hung.returncode)
        assert hung.returncode == code
        assert f"resume with: insightv build --run {folder}" in errors
        answered = sum(entry["fault"] is None for entry in server.log())
        recorded = check_run(folder, done=False)
        cut_off = recorded["faults"]["cancelled"]
        assert recorded["requests"] - cut_off == answered, "an answer was lost, or a hung call was counted as answered"
        assert recorded["requests"] == len(server.log()), "a call that was sent and cut off is not counted"
        assert recorded["paths"]["failed"] == 0


def test_a_second_signal_ends_it_at_once_and_it_can_be_resumed(tmp_path: Path) -> None:
    with FakeServer(Settings(script=("ok",) * 20, faults={"hang": 1.0})) as server:
        questions, settings = write_questions(tmp_path, 6), write_settings(tmp_path, server.base_url)
        folder = tmp_path / "run"
        args = command(*build_args(questions, settings, folder), "--set", "run.grace_s=600")
        hung = subprocess.Popen(args, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=ENVIRONMENT)
        assert hung.stderr is not None
        wait_for(lambda: sum(entry["fault"] == "hang" for entry in server.log()) >= 5, 60)
        hung.send_signal(signal.SIGINT)
        for line in hung.stderr:
            if "once more to end at once" in line:
                break
        hung.send_signal(signal.SIGTERM)
        assert hung.wait(60) == 143
        hung.stderr.close()
        server.change(faults={}, script=())
        assert run(*build_args(questions, settings, folder)).returncode == 0
    assert check_run(folder)["paths"]["ok"] == 24


def test_told_to_stop_while_questions_are_read_nothing_has_begun(tmp_path: Path) -> None:
    with FakeServer() as server:
        settings = write_settings(tmp_path, server.base_url)
        questions = tmp_path / "many.jsonl"
        with questions.open("w") as file:
            for i in range(400_000):
                file.write(json.dumps({"id": f"q{i}", "question": f"What is {i}?", "answer": "1"}) + "\n")
        folder = tmp_path / "run"
        reading = subprocess.Popen(
            command(*build_args(questions, settings, folder)),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=ENVIRONMENT,
        )
        assert reading.stderr is not None
        for line in reading.stderr:
            if "checking" in line:
                break
        reading.terminate()
        errors = reading.communicate(timeout=300)[1]
        check_output(errors, reading.returncode)
        assert reading.returncode == 143
        assert server.log() == []
    assert not folder.exists(), "an empty run is left behind"


@pytest.mark.timeout(300)
def test_stopped_and_continued_it_asks_again_what_it_had_waited_for(tmp_path: Path) -> None:
    """SIGSTOP for 12 s with a deadline of 4 s (a minute in the fault model): no path fails by that."""
    with FakeServer(Settings(latency_s=0.5)) as server:
        questions, settings = write_questions(tmp_path, 12, steps=2), write_settings(tmp_path, server.base_url)
        folder = tmp_path / "run"
        args = command(*build_args(questions, settings, folder), "--set", "run.deadline_s=4")
        building = subprocess.Popen(args, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=ENVIRONMENT)
        wait_for(lambda: len(server.log()) > 40, 60)
        building.send_signal(signal.SIGSTOP)
        time.sleep(12)
        building.send_signal(signal.SIGCONT)
        errors = building.communicate(timeout=200)[1]
        check_output(errors, building.returncode)
        assert building.returncode == 0, errors
    status = check_run(folder)
    assert status["faults"] == {}
    assert status["paths"]["ok"] == 48
    assert 0 < status["elapsed_s"] < 300


def test_a_clock_that_jumps_by_days_changes_no_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock of the client is a day ahead, a day behind, and another with every look; the server's is right."""
    real, chance = time.time, random.Random(26)
    serving = [sys.executable, "-m", "tests.servers.fake_openai"]
    play = {"script": ["ok"] * 10 + ["429=2"] * 8 + ["ok"] * 5 + ["429={date+3}"] * 8, "latency_s": 0.1}
    with subprocess.Popen([*serving, "--settings", json.dumps(play)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = f"http://127.0.0.1:{int(process.stdout.readline())}"
        questions = write_questions(tmp_path, 10, steps=2)
        monkeypatch.setattr(time, "time", lambda: real() + chance.choice([-86_400, 0, 86_400]))
        began = time.monotonic()
        status = build(tmp_path / "run", f"{address}/v1", questions, concurrency=8)
        took = time.monotonic() - began
        monkeypatch.undo()
        with urllib.request.urlopen(f"{address}/log") as reply:
            log = json.loads(reply.read())
        process.terminate()
    assert status["paths"]["failed"] == 0
    assert took < 120, "a retry that never ends"
    assert 0 < status["elapsed_s"] < 120
    for fault, wait_s in (("429=2", 2.0), ("429={date+3}", 2.0)):
        told = min(entry["done"] for entry in log if entry["fault"] == fault)
        early = [entry["number"] for entry in log if told + 0.5 < entry["time"] < told + wait_s - 0.05]
        assert not early, f"{fault}: requests {early} before the moment"
    check_run(tmp_path / "run")
    with load_run(tmp_path / "run") as reader:
        assert all(seconds >= 0 for (seconds,) in reader._connection.execute("SELECT value FROM totals"))


def test_blocking_and_cancelled_by_its_own_loop_the_run_is_left_resumable(tmp_path: Path) -> None:
    """`asyncio` users cancel; what was answered by then is kept, and the lock is given back."""
    from insightv import Pipeline

    with FakeServer(Settings(latency_s=0.1)) as server:
        questions, settings = write_questions(tmp_path, 10, steps=2), write_settings(tmp_path, server.base_url)
        pipeline = Pipeline.from_config(settings, run=tmp_path / "run")

        async def cancelled() -> None:
            task = asyncio.create_task(pipeline.abuild(questions, datasets=False))
            while len(server.log()) < 30:
                await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cancelled())
        assert check_run(tmp_path / "run", done=False)["requests"] == len(server.log())
        assert Pipeline.from_config(run=tmp_path / "run").build(datasets=False).paths.ok == 40
        assert check_run(tmp_path / "run")["requests"] == len(server.log())
