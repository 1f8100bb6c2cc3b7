"""A build over a Batch API: waves of steps as jobs, half the price, and a kill while a job is out costs nothing."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from insightv.runs.reader import load_run
from tests.servers.fake_batches import FakeBatchServer, Jobs
from tests.servers.fake_openai import Settings
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

PRICES = '[run.prices."openai/fake"]\nprompt = 100.0\ncompletion = 1000.0\n'
BATCH = 'mode = "batch"\nbackend = { gather_s = 1.0, poll_s = 0.05 }\n'


def batch_settings(folder: Path, base_url: str) -> Path:
    """Settings with the generator in batches; the judges are asked one call at a time."""
    path = write_settings(folder, base_url, paths=3, extra=PRICES)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("[generator]\n", "[generator]\n" + BATCH, 1), encoding="utf-8")
    return path


def test_each_step_of_all_chains_is_one_job_and_costs_half(tmp_path: Path) -> None:
    with FakeBatchServer(Settings(wrong=0.3)) as server:
        questions = write_questions(tmp_path, 6, steps=3)
        batched = insightv(*build_args(questions, batch_settings(tmp_path, server.base_url), tmp_path / "batched"))
        assert batched.returncode == 0, batched.stderr
        jobs, log = server.jobs.made, server.log()
        server.model.forget()
        plain = write_settings(tmp_path, server.base_url, paths=3, extra=PRICES)
        assert insightv(*build_args(questions, plain, tmp_path / "plain")).returncode == 0
        again = insightv(*build_args(questions, plain, tmp_path / "batched"))
        assert again.returncode == 0, again.stderr  # the mode is free to change
    assert [len(job["lines"]) for job in jobs] == [6, 18, 18, 18]  # three steps and the answer
    assert path_rows(tmp_path / "batched") == path_rows(tmp_path / "plain")
    status, other = check_balance(tmp_path / "batched"), check_balance(tmp_path / "plain")
    assert status["requests"] == other["requests"] == len(log)
    generating = ("reasoning_step", "final_answer")
    assert {entry["schema"] for entry in log if "path" not in entry} == set(generating)  # these came by a job
    with load_run(tmp_path / "batched") as run:
        calls = list(run.calls())
    assert status["usd"] == pytest.approx(
        sum(cost(call) * (0.5 if call["kind"] in generating else 1) for call in calls)
    )
    assert other["usd"] > 1.3 * status["usd"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stop_while_a_job_is_out_sends_and_counts_nothing_twice(number: signal.Signals, tmp_path: Path) -> None:
    jobs = Jobs(hold=True)
    with FakeBatchServer(Settings(wrong=0.3), jobs) as server:
        questions, settings = write_questions(tmp_path, 5, steps=3), batch_settings(tmp_path, server.base_url)
        args = [*build_args(questions, settings, tmp_path / "run"), "--set", "run.grace_s=1"]
        for wave in (1, 2, 3):
            polls = jobs.asked["poll"]
            build = subprocess.Popen(command(*args), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            wait_for(lambda wave=wave, polls=polls: len(jobs.made) >= wave and jobs.asked["poll"] > polls + 2)
            build.send_signal(number)
            build.wait()
            server.end_jobs()  # the next process finds them at their end, and sends the next ones
        jobs.hold = False
        last = insightv(*args)
        assert last.returncode == 0, last.stderr
        log = server.log()
    sent = Counter(line["custom_id"] for job in jobs.made for line in job["lines"])
    assert set(sent.values()) == {1}
    assert sum(sent.values()) == 5 + 3 * 15
    assert check_balance(tmp_path / "run")["requests"] == len(log)


def cost(call: dict[str, Any]) -> float:
    """Dollars of a recorded call by the list."""
    usage = Counter[str]()
    for reply in call["completions"]:
        usage.update(reply.get("usage", {}))
    return (100 * usage["prompt_tokens"] + 1000 * usage["completion_tokens"]) / 1e6


def test_a_pilot_over_batches_tells_money_at_half_the_price_and_no_time(tmp_path: Path) -> None:
    with FakeBatchServer(Settings()) as server:
        questions, settings = write_questions(tmp_path, 6, steps=2), batch_settings(tmp_path, server.base_url)
        piloted = insightv(*build_args(questions, settings, tmp_path / "run"), "--pilot", 3)
        assert piloted.returncode == 0, piloted.stderr
        report = json.loads(piloted.stdout)
    assert report["whole"]["seconds"] is None
    assert any("batch jobs" in note for note in report["notes"])
