"""Evaluations against a real HTTP server on loopback, by the command line."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from insightv.errors import RunChanged
from insightv.evaluate import evaluation
from insightv.evaluate.results import OUTCOMES
from tests.servers.fake_openai import FakeServer, Settings
from tests.world import check_balance, command, insightv, wait_for, write_questions, write_settings


def world(folder: Path, base_url: str, count: int, concurrency: int = 8) -> tuple[Path, Path]:
    """A held-out file of two families, and settings whose reasoning agent goes through JSON steps."""
    data = write_questions(folder, count)
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    for number, row in enumerate(rows):
        row["meta"] = {"family": ("odd", "even")[number % 3 == 0]}
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    agents = f'[reasoning_agent]\nuse = "steps"\n[run]\nconcurrency = {concurrency}\n'
    return data, write_settings(folder, base_url, extra=agents)


def arguments(run: Path, data: Path, settings: Path, *more: object) -> list[object]:
    return ["evaluate", "--run", run, "--data", data, "--config", settings, "--json", *more]


def number_in(text: str) -> float:
    return float(re.findall(r"-?\d+(?:\.\d+)?", text)[-1])


def told(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what is chance: time, and whether a prefix was cached."""
    return {name: value for name, value in row.items() if name not in ("seconds", "usage")}


def test_both_agents_are_graded_and_the_matrix_is_that_of_the_replies(tmp_path: Path) -> None:
    with FakeServer(Settings(wrong=0.4)) as server:
        data, settings = world(tmp_path, server.base_url, 40)
        done = insightv(*arguments(tmp_path / "run", data, settings))
        log = server.log()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    counts = found["questions"]
    assert counts["total"] == sum(counts[name] for name in OUTCOMES) == 40
    finals = [entry["said"][0] for entry in log if entry["schema"] == "final_answer"]
    answers = [entry["said"][0] for entry in log if entry["schema"] is None]
    assert counts["right"] == sum(said["right"] for said in answers)
    matrix = found["reasoning"]["matrix"]
    assert found["reasoning"]["right"] == sum(said["right"] for said in finals)
    joint: Counter[tuple[str, str]] = Counter()
    for row in found["rows"]:
        truth = float(row["truth"])
        words = ("wrong", "right")
        joint[words[number_in(row["conclusion"]) == truth], words[number_in(row["answer"]) == truth]] += 1
        assert row["followed"] is (number_in(row["conclusion"]) == number_in(row["answer"]))
    assert len(joint) == 4
    assert all(matrix[reasoning][answer] == count for (reasoning, answer), count in joint.items())
    assert sum(family["total"] for family in found["families"].values()) == 40
    assert found["families"]["even"]["total"] == 14
    assert found["tokens"]["requests"] == len(log)
    assert found["seconds"]["measured"] == 40
    check_balance(tmp_path / "run" / "evaluations" / found["name"])
    kept = json.loads((tmp_path / "run" / "evaluations" / found["name"] / "result.json").read_text(encoding="utf-8"))
    assert kept == found


def test_a_killed_evaluation_goes_on_to_the_same_rows(tmp_path: Path) -> None:
    with FakeServer(Settings(wrong=0.3, latency_s=0.02)) as server:
        data, settings = world(tmp_path, server.base_url, 60)
        whole = insightv(*arguments(tmp_path / "whole", data, settings))
        undisturbed = len(server.log())
        server.model.forget()
        for share in (0.3, 0.7):
            enough = int(share * undisturbed)
            child = subprocess.Popen(command(*arguments(tmp_path / "cut", data, settings)))
            wait_for(lambda enough=enough: len(server.log()) > enough)
            child.kill()
            child.wait()
        done = insightv(*arguments(tmp_path / "cut", data, settings))
        assert done.returncode == 0, done.stderr
        asked = len(server.log())
        assert asked <= undisturbed + 2 * 8
        again = insightv(*arguments(tmp_path / "cut", data, settings))  # finished: shown again, nothing asked
        assert len(server.log()) == asked
    rows, same = (list(map(told, json.loads(text)["rows"])) for text in (done.stdout, whole.stdout))
    assert rows == same == list(map(told, json.loads(again.stdout)["rows"]))
    assert json.loads(done.stdout)["seconds"]["measured"] == 60  # each call's time is kept beside its reply


def test_a_signal_ends_it_resumable(tmp_path: Path) -> None:
    with FakeServer(Settings(latency_s=0.2)) as server:
        data, settings = world(tmp_path, server.base_url, 30)
        args = command(*arguments(tmp_path / "run", data, settings))
        child = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: len(server.log()) > 20)
        child.send_signal(signal.SIGTERM)
        output, errors = child.communicate(timeout=30)
    assert child.returncode == 143
    assert output == ""
    assert "resume with: insightv evaluate --run" in errors


def test_every_system_can_be_evaluated_and_two_compared(tmp_path: Path) -> None:
    with FakeServer(Settings(wrong=0.3)) as server:
        data, settings = world(tmp_path, server.base_url, 24)
        files = {}
        for system, calls in (("direct", 24), ("summary-only", 24), ("reasoning-only", None)):
            server.model.forget()
            done = insightv(*arguments(tmp_path / "run", data, settings, "--system", system))
            assert done.returncode == 0, done.stderr
            files[system] = tmp_path / f"{system}.json"
            files[system].write_text(done.stdout, encoding="utf-8")
            found = json.loads(done.stdout)
            assert found["reasoning"] is None
            assert calls is None or len(server.log()) == calls
        server.model.forget()
        first = json.loads(files["direct"].read_text(encoding="utf-8"))["name"]
        against = insightv(
            *arguments(tmp_path / "run", data, settings, "--system", "reasoning-only", "--against", first)
        )
        assert server.log() == []  # both were done
    compared = insightv("evaluate", "--compare", files["direct"], files["reasoning-only"], "--json")
    assert compared.returncode == 0, compared.stderr
    found = json.loads(compared.stdout)
    assert json.loads(against.stdout)["against"] == found
    rights = [
        {row["id"]: row["outcome"] == "right" for row in json.loads(files[name].read_text(encoding="utf-8"))["rows"]}
        for name in ("direct", "reasoning-only")
    ]
    pairs = Counter((rights[0][id], rights[1][id]) for id in rights[0])
    assert (found["only_first"], found["only_second"]) == (pairs[True, False], pairs[False, True])
    assert sum(found[name] for name in ("both_right", "only_first", "only_second", "both_wrong")) == 24
    table = insightv("evaluate", "--compare", files["direct"], files["reasoning-only"])
    assert "McNemar" in table.stdout


def test_without_json_there_is_a_table_on_stdout(tmp_path: Path) -> None:
    with FakeServer() as server:
        data, settings = world(tmp_path, server.base_url, 4)
        args = [part for part in arguments(tmp_path / "run", data, settings) if part != "--json"]
        done = insightv(*args)
    assert done.returncode == 0
    assert "reasoning by answer" in done.stdout
    assert "100.0" in done.stdout


def test_another_seed_or_other_data_is_another_evaluation(tmp_path: Path) -> None:
    with FakeServer() as server:
        data, config = world(tmp_path, server.base_url, 3)
        run = tmp_path / "run"
        first = insightv(*arguments(run, data, config, "--system", "direct"))
        names = [json.loads(first.stdout)["name"]]
        for changes in ([], ["run.concurrency=3"], ["seed=7"], ["scorers.0.tolerance=0"], ["generator.model='tiny'"]):
            settings = evaluation.run_settings(run, config, changes)
            names.append(evaluation.Evaluation(run, data, system="direct", settings=settings).name)
        write_questions(tmp_path, 2)
        same = evaluation.run_settings(run, config)
        names.append(evaluation.Evaluation(run, data, system="direct", settings=same).name)
        assert names[0] == names[1] == names[2]
        assert len(set(names)) == 5
        refused = insightv(*arguments(run, data, config, "--system", "direct", "--name", names[0]))
    assert refused.returncode == 2
    assert "another --name" in refused.stderr
    assert "is not in the file any more" in refused.stderr


def test_bad_rows_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with FakeServer() as server:
        data, settings = world(tmp_path, server.base_url, 3)
        good = data.read_text(encoding="utf-8")
        bad = [
            {"id": "mute", "question": "no truth", "images": []},
            {"id": "gone", "question": "?", "images": ["images/gone.png"], "answer": "1"},
        ]
        data.write_text(good + "".join(json.dumps(row) + "\n" for row in bad), encoding="utf-8")
        args = arguments(tmp_path / "run", data, settings)
        refused = insightv(*args)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "questions.jsonl:4: mute" in refused.stderr
        assert "questions.jsonl:5: gone" in refused.stderr
        assert server.log() == []
        assert not (tmp_path / "run" / "evaluations").exists()
        skipped = insightv(*args, "--bad-rows", "skip")
    assert skipped.returncode == 0, skipped.stderr
    assert json.loads(skipped.stdout)["questions"]["total"] == 3


def test_failed_calls_are_no_wrong_answers_and_can_be_tried_again(tmp_path: Path) -> None:
    with FakeServer(Settings(faults={"400": 0.3})) as server:
        data, settings = world(tmp_path, server.base_url, 20)
        args = arguments(tmp_path / "run", data, settings, "--system", "direct")
        first = insightv(*args)
        counts = json.loads(first.stdout)["questions"]
        assert first.returncode == 4
        assert counts["wrong"] == counts["rejected"] == 0
        assert counts["failed"] > 0
        assert counts["accuracy"] == 1
        assert counts["bounds"] == [pytest.approx(1 - counts["failed"] / 20), 1]
        server.change(faults={})
        again = insightv(*args, "--retry-failed")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["questions"]["right"] == 20


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--system", "reasonor"], "reasoner"),
        (["--name", "../out"], "--name"),
        (["--base-url", "http://127.0.0.1:9"], "--model"),
        (["--set", "scorers.0.tolerence=1"], "tolerance"),
        (["--model", "opnai/x"], "openai"),
        (["--compare"], "--compare A.json B.json"),
        (["held_out.jsonl"], "held_out.jsonl stands alone: questions are named by --data FILE"),
        (["--against", "nowhere"], "nowhere"),
    ],
)
def test_wrong_arguments_end_with_2_and_the_cure(tmp_path: Path, args: list[str], said: str) -> None:
    data, settings = world(tmp_path, "http://127.0.0.1:9/v1", 1)
    refused = insightv(*arguments(tmp_path / "run", data, settings, *args))
    assert (refused.returncode, refused.stdout) == (2, ""), refused.stderr
    assert said in refused.stderr
    assert not (tmp_path / "run" / "evaluations").exists()


def test_there_must_be_a_run_or_settings(tmp_path: Path) -> None:
    data = write_questions(tmp_path, 1)
    refused = insightv("evaluate", "--run", tmp_path / "none", "--data", data)
    assert refused.returncode == 2
    assert "--config" in refused.stderr
    assert insightv("evaluate", "--run", tmp_path / "none").returncode == 2


def test_the_python_door(tmp_path: Path) -> None:
    with FakeServer(Settings(wrong=0.5)) as server:
        data, config = world(tmp_path, server.base_url, 6)
        options: dict[str, Any] = {"settings": evaluation.run_settings(tmp_path, config), "system": "direct"}
        job = evaluation.Evaluation(tmp_path / "run", data, **options)
        result = job.run()
        assert len(result.rows) == 6
        assert job.status().requests == len(server.log())
        other = evaluation.Evaluation(tmp_path / "run", data, model="openai/fake", base_url=server.base_url, **options)
        assert other.name == job.name  # where a model is reached changes nothing
        changed = evaluation.Evaluation(
            tmp_path / "run", data, model="openai/other", base_url=server.base_url, name=job.name, **options
        )
        with pytest.raises(RunChanged, match="openai/other"):
            changed.run()
