"""A pilot: its sample, its projection, its audit of the judges, and that going on pays for nothing again."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from insightv import ConfigError, Pipeline, Question
from insightv.agents.generator import ProgressiveGenerator
from insightv.assess.answer import AnswerScorer
from insightv.assess.path import PathScorer
from insightv.cli.status_table import pilot_lines
from insightv.config.settings import check_settings
from insightv.evaluate.pilot import Call, Projection, Sampled, sample
from insightv.evaluate.statistics import Estimate
from insightv.records import Message, Picture, Schema, Usage
from insightv.runs.budget import Budget
from insightv.runs.reader import load_run
from insightv.runs.schema import TOTALS, open_database
from insightv.runs.store import AUDIT
from insightv.testing import ScriptedModel
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

PRICES = '[run]\nconcurrency = 16\n[run.prices."openai/fake"]\nprompt = 1.0\ncompletion = 10.0\n'


def rows_of(run: Path, sql: str) -> list[Any]:
    with load_run(run) as reader:
        return reader._connection.execute(sql).fetchall()


def test_a_pilot_is_a_spread_sample_whose_work_counts_in_the_full_run(tmp_path: Path) -> None:
    with FakeServer(Settings(wrong=0.3, steps=(2, 6))) as server:
        questions = write_questions(tmp_path, 48)
        settings = write_settings(tmp_path, server.base_url, paths=2, extra=PRICES)
        args = build_args(questions, settings, tmp_path / "run")
        piloted = insightv(*args, "--pilot", 12)
        assert piloted.returncode == 0, piloted.stderr
        report = json.loads(piloted.stdout)
        asked = len(server.log())
        again = insightv(*args, "--pilot", 12)
        assert json.loads(again.stdout) == {**report, "spent": json.loads(again.stdout)["spent"]}
        assert len(server.log()) == asked  # the same pilot again is free
        done = insightv("build", "--run", tmp_path / "run", "--no-datasets")
        assert done.returncode == 0, done.stderr
        log = server.log()
        status = check_balance(tmp_path / "run")
        undisturbed = insightv(*build_args(questions, settings, tmp_path / "whole"))
        assert undisturbed.returncode == 0
    assert (report["total"], report["sampled"]) == (48, 12)
    places = [
        seq for (seq,) in rows_of(tmp_path / "run", "SELECT DISTINCT question FROM calls WHERE kind LIKE 'audit:%'")
    ]
    assert [(place - 1) // 4 for place in sorted(places)] == list(range(12))  # one of every four in a row
    answered = [(entry["sha"], entry["seed"]) for entry in log]
    assert len(answered) == len(set(answered))  # nothing is paid twice
    assert status["requests"] == len(log)
    assert path_rows(tmp_path / "run") == path_rows(tmp_path / "whole")  # and the audit is in no row
    audit = rows_of(tmp_path / "run", f"SELECT count(*) FROM calls WHERE kind LIKE '{AUDIT}%'")[0][0]
    assert audit == report["audit"]["requests"]
    whole = check_balance(tmp_path / "whole")
    assert whole["requests"] == status["requests"] - audit
    for name, real in (
        ("requests", whole["requests"]),
        ("prompt_tokens", whole["tokens"]["prompt"]),
        ("completion_tokens", whole["tokens"]["completion"]),
        ("usd", whole["usd"]),
    ):
        projected = report["whole"][name]
        assert projected["low"] <= real <= projected["high"], name
        assert projected["low"] < projected["value"] < projected["high"] < 2 * projected["value"]
        assert report["left"][name]["value"] == pytest.approx(projected["value"] * 36 / 48, rel=0.05)


def test_a_pilot_keeps_within_its_budget_and_goes_on(tmp_path: Path) -> None:
    with FakeServer(Settings(wrong=0.3)) as server:
        questions = write_questions(tmp_path, 12)
        settings = write_settings(tmp_path, server.base_url, paths=2, extra="[run]\nconcurrency = 4\n")
        args = [*build_args(questions, settings, tmp_path / "run"), "--pilot", 8]
        for limit in (30, 70):
            stopped = insightv(*args, "--set", f"run.max_requests={limit}")
            assert stopped.returncode == 3
            assert "insightv build --run" in stopped.stderr
            assert stopped.stdout == ""
            spent = check_balance(tmp_path / "run", done=False)["requests"]
            assert limit <= spent == len(server.log()) <= limit + 4
        audited = rows_of(tmp_path / "run", "SELECT count(*) FROM calls WHERE kind LIKE 'audit:%'")[0][0]
        assert audited > 0  # the second stop came while the judges were audited
        assert insightv(*args).returncode == 0
        assert check_balance(tmp_path / "run", done=False)["requests"] == len(server.log())


def test_a_pilot_whose_judges_hang_is_left_after_the_grace_time(tmp_path: Path) -> None:
    with FakeServer(Settings(wrong=0.3)) as server:
        settings = write_settings(tmp_path, server.base_url, paths=2, extra="[run]\nconcurrency = 4\ngrace_s = 1\n")
        args = [*build_args(write_questions(tmp_path, 12), settings, tmp_path / "run"), "--pilot", 8]
        assert insightv(*args, "--set", "run.max_requests=70").returncode == 3  # while the judges are audited
        server.change(faults={"hang": 1.0})
        pilot = subprocess.Popen(command(*args), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        wait_for(lambda: any(entry["fault"] == "hang" for entry in server.log()))
        pilot.send_signal(signal.SIGINT)
        errors = pilot.communicate(timeout=100)[1]  # a call's own deadline is 300 s
        assert pilot.returncode == 130, errors
        assert "Traceback" not in errors
        server.change(faults={})
        assert insightv(*args).returncode == 0


def test_a_killed_pilot_pays_again_for_what_was_in_flight_at_most(tmp_path: Path) -> None:
    with FakeServer(Settings(wrong=0.3, latency_s=0.02)) as server:
        questions = write_questions(tmp_path, 40)
        settings = write_settings(tmp_path, server.base_url, extra="[run]\nconcurrency = 4\n")
        args = [*build_args(questions, settings, tmp_path / "run"), "--pilot", 10]
        for enough in (40, 100):
            pilot = subprocess.Popen(command(*args), stderr=subprocess.DEVNULL)
            wait_for(lambda enough=enough: len(server.log()) > enough)
            pilot.kill()
            pilot.wait()
        last = insightv(*args)
        assert last.returncode == 0, last.stderr
        asked = Counter((entry["sha"], entry["seed"]) for entry in server.log())
        assert sum(asked.values()) - len(asked) <= 2 * 4
        assert json.loads(last.stdout)["sampled"] == 10


def test_what_cannot_be_looked_at_is_said_and_no_number_is_given(tmp_path: Path) -> None:
    with FakeServer() as server:
        questions = write_questions(tmp_path, 6)
        pipeline = Pipeline(
            run=tmp_path / "run",
            generator={"model": "openai/fake", "base_url": server.base_url, "paths": 2},
            scorers=["answer"],
        )
        report = pipeline.pilot(questions, 3)
    assert report.judges["agreement"] == {"absent": "no model judge is configured: answers are judged by rules alone"}
    assert report.judges["spread"] == report.judges["blank"]
    assert "no path scorer" in report.judges["spread"]["absent"]
    assert report.whole["usd"] is None
    assert "run.prices has no price for openai/fake" in report.notes[0]
    text = pilot_lines(report)
    assert "no path scorer is configured" in text
    assert "cannot be told" in text
    assert report.audit["requests"] == 0
    with pytest.raises(ConfigError, match="a pilot of 0 questions"):
        pipeline.pilot(questions, 0)


class Judges:
    """Judges of known faults: the first says the opposite about every fourth question; the second never looks at
    pictures of the odd ones, does as a path of theirs tells it, and is 10 points off by turns."""

    def __init__(self) -> None:
        self.turns: Counter[str] = Counter()

    def generate(self, messages: Sequence[Message], schema: Schema | None) -> str:
        if schema is not None and schema.name == "final_answer":
            return json.dumps({"answer": "42"})
        turn = sum(message.role == "assistant" for message in messages)
        content = ("The left bar ends at forty.", "Two more make forty-two.")[turn]
        return json.dumps({"title": f"Step {turn}", "content": content, "action": ("continue", "summary")[turn]})

    def verdict(self, messages: Sequence[Message], schema: Schema | None) -> str:
        number = self.number(messages)
        return json.dumps({"correct": number % 4 != 0, "reason": "so it is"})

    def scores(self, messages: Sequence[Message], schema: Schema | None) -> str:
        number = self.number(messages)
        (picture,) = (part for part in messages[-1].parts if isinstance(part, Picture))
        grey = len(picture.data) < 150
        if not grey:
            self.turns[str(number)] += 1
        score = 30 if grey and number % 2 == 0 else 90 + (0 if grey else 10 * (self.turns[str(number)] % 2) - 10)
        text = "".join(part for part in messages[-1].parts if isinstance(part, str))
        blocks = text.split("=== PATH ")[2:]  # the first is named where the delimiters are told
        values = [(95 if number % 2 else 5) if "is flawless" in block else score for block in blocks]
        rows = [
            {"path": at, "logic": v, "grounding": v, "completeness": v, "score": v, "first_error": None}
            for at, v in enumerate(values, start=1)
        ]
        return json.dumps({"scores": rows})

    @staticmethod
    def number(messages: Sequence[Message]) -> int:
        text = "".join(part for part in messages[-1].parts if isinstance(part, str))
        return int(text.split("number ")[1].split("?")[0])


def test_the_audit_finds_the_faults_of_judges_that_have_them(tmp_path: Path) -> None:
    judges = Judges()
    pipeline = Pipeline(
        run=tmp_path / "run",
        generator=ProgressiveGenerator(ScriptedModel(judges.generate)),
        scorers=[AnswerScorer(ScriptedModel(judges.verdict)), PathScorer(ScriptedModel(judges.scores))],
        settings=check_settings({"generator": {"paths": 1}, "run": {"concurrency": 1}}),
    )
    write_questions(tmp_path, 12)
    noisy = tmp_path / "images" / "0.png"
    from PIL import Image

    Image.frombytes("RGB", (40, 30), random.Random(1).randbytes(3600)).save(noisy)
    asked = [
        Question(id=f"q{i}", question=f"How high is bar number {i}?", images=(str(noisy),), answer="42")
        for i in range(12)
    ]
    report = pipeline.pilot(asked, 12)
    agreement, spread, blank = (report.judges[name] for name in ("agreement", "spread", "blank"))
    assert (agreement["answers"], agreement["too_strict"], agreement["too_lenient"]) == (12, 3, 0)
    assert agreement["agree"].value == 0.75
    assert agreement["agree"].low < 0.75 < agreement["agree"].high
    assert (spread["paths"], spread["unreadable"]) == (12, 0)
    assert spread["stdev"].value == pytest.approx((100 / 3) ** 0.5)  # 90, 80, 90
    assert blank["survived"].value == 0.5
    assert blank["mean_change"].value == pytest.approx((-60 * 6) / 12)
    canary = report.judges["canary"]
    assert (canary["paths"], canary["passed"].value, canary["mean"].value) == (12, 0.5, 50)
    assert "50 % (" in next(line for line in pilot_lines(report).splitlines() if line.startswith("canary"))
    before = pipeline.status()
    status = pipeline.build()
    assert status.requests == before.requests  # all twelve were the sample
    rows = path_rows(tmp_path / "run")
    assert [row["scores"][1]["value"] for row in rows] == [90] * 12


def test_the_sample_is_one_of_each_stretch_and_another_by_seed(tmp_path: Path) -> None:
    database = open_database(tmp_path / "run.db", lambda trouble: None)
    fill = "INSERT INTO questions VALUES (?, ?, 1, '', 'pending', ?, '{}', '')"
    rows = [(seq, f"q{seq}", int(seq % 10 > 0)) for seq in range(1, 1001)]
    database.submit(lambda connection: connection.executemany(fill, rows)).result()

    def chosen(size: int, seed: int) -> list[int]:
        return database.submit(lambda connection: sample(connection, size, seed)).result()

    first = chosen(30, 1)
    assert first == chosen(30, 1) != chosen(30, 2)
    present = [seq for seq, _, there in rows if there]
    assert [present.index(seq) // 30 for seq in first] == list(range(30))
    assert chosen(5000, 1) == present
    database.close()


def test_the_interval_holds_the_true_cost_about_as_often_as_it_says() -> None:
    settings = check_settings({"run": {"concurrency": 4, "prices": {"m": {"prompt": 1, "completion": 1}}}})
    budget = Budget(settings.run, dict.fromkeys(TOTALS, 0.0))
    covered, wide = 0, []
    for trial in range(40):
        rng = random.Random(trial)
        costs = [round(rng.lognormvariate(5, 0.6)) for _ in range(200)]
        calls = [[Call("m", Usage(prompt_tokens=cost, requests=1), cost / 10, audit=False)] for cost in costs]
        sampled = Sampled(total=200, done=20, progress=[], calls=rng.sample(calls, 20), spent={})
        whole = Projection(settings, budget, sampled).whole()
        tokens, seconds = whole["prompt_tokens"], whole["seconds"]
        assert tokens is not None
        assert seconds is not None
        assert tokens.low is not None
        assert tokens.high is not None
        covered += tokens.low <= sum(costs) <= tokens.high
        wide.append((tokens.high - tokens.low) / tokens.value)
        assert seconds.value == pytest.approx(tokens.value / 40)
        assert whole["requests"] == Estimate(200, 200, 200)
    assert covered >= 32  # of 40, from skewed costs
    assert 0.2 < sum(wide) / 40 < 0.8
