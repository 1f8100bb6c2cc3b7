"""A build of a run against a real HTTP server on loopback, by the command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from insightv import ConfigError, Pipeline, Question, StorageFull
from insightv.runs import database
from insightv.runs.lock import RunLock
from insightv.runs.reader import load_run
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


def test_a_hundred_questions_complete_and_only_the_wrong_answers_are_in_the_wrong_band(tmp_path: Path) -> None:
    with FakeServer(Settings(wrong=0.3)) as server:
        questions, settings = write_questions(tmp_path, 100), write_settings(tmp_path, server.base_url)
        run = tmp_path / "run"
        done = insightv(*build_args(questions, settings, run))
        log = server.log()
    assert done.returncode == 0, done.stderr
    status = check_balance(run)
    assert json.loads(done.stdout)["paths"] == status["paths"]
    assert status["paths"]["total"] == 400
    wrong = sum(not entry["said"][0]["right"] for entry in log if entry["schema"] == "final_answer")
    assert wrong > 50
    assert status["bands"]["wrong"] == wrong
    assert status["requests"] == len(log)


def test_every_call_of_a_chain_begins_with_the_bytes_of_the_one_before(tmp_path: Path) -> None:
    with FakeServer() as server:
        questions, settings = write_questions(tmp_path, 10, steps=4), write_settings(tmp_path, server.base_url)
        assert insightv(*build_args(questions, settings, tmp_path / "run")).returncode == 0
        log = server.log()
    steps = [entry for entry in log if entry["schema"] in ("reasoning_step", "final_answer")]
    first = [entry for entry in steps if entry["messages"] == 2]
    assert [entry["n"] for entry in first] == [4] * 10  # the first step of all paths in one request
    later = [entry for entry in steps if entry["messages"] > 2]
    assert len(later) == 10 * 4 * 4  # three more steps and the answer
    assert all(entry["extends"] is not None for entry in later)


def test_a_killed_build_goes_on_to_the_same_rows(tmp_path: Path) -> None:
    with FakeServer(Settings(wrong=0.3, latency_s=0.01)) as server:
        questions, settings = write_questions(tmp_path, 60), write_settings(tmp_path, server.base_url)
        settings.write_text(settings.read_text() + "[run]\nconcurrency = 16\n")
        whole = tmp_path / "whole"
        assert insightv(*build_args(questions, settings, whole)).returncode == 0
        undisturbed = len(server.log())
        server.model.forget()
        kills = 0
        for share in (0.2, 0.5, 0.8):
            enough = int(share * undisturbed)
            build = subprocess.Popen(command(*build_args(questions, settings, tmp_path / "cut")))
            wait_for(lambda enough=enough: len(server.log()) > enough)
            build.kill()
            build.wait()
            kills += 1
        assert insightv(*build_args(questions, settings, tmp_path / "cut")).returncode == 0
        assert len(server.log()) <= undisturbed + kills * 16
    check_balance(tmp_path / "cut")
    assert path_rows(tmp_path / "cut") == path_rows(whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_drains_what_is_in_flight(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with FakeServer(Settings(latency_s=0.3)) as server:
        questions, settings = write_questions(tmp_path, 30), write_settings(tmp_path, server.base_url)
        run = tmp_path / "run"
        args = command(*build_args(questions, settings, run))
        build = subprocess.Popen(args, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: len(server.log()) > 60)
        build.send_signal(number)
        _, errors = build.communicate(timeout=10)
        assert build.returncode == code
        assert f"resume with: insightv build --run {run}" in errors
        answered = len(server.log())
        assert check_balance(run, done=False)["requests"] == answered  # nothing that was answered is lost
        assert insightv("build", "--run", run, "--no-datasets").returncode == 0  # the run has its questions
        done = check_balance(run)
        assert done["requests"] == len(server.log())
    assert done["paths"]["ok"] == 120


def test_the_second_process_says_who_holds_the_run(tmp_path: Path) -> None:
    with FakeServer(Settings(latency_s=20)) as server:
        questions, settings = write_questions(tmp_path, 20), write_settings(tmp_path, server.base_url)
        args = build_args(questions, settings, tmp_path / "run")
        first = subprocess.Popen(command(*args), stderr=subprocess.DEVNULL)
        wait_for(lambda: len(server.log()) > 5)
        second = insightv(*args)
        assert second.returncode == 3
        server.change(latency_s=0)
        assert f"process {first.pid}" in second.stderr
        first.kill()
        first.wait()
        assert insightv(*args).returncode == 0  # the lock died with its holder
    check_balance(tmp_path / "run")


def test_changed_settings_prompts_and_data_are_refused_by_name(tmp_path: Path) -> None:
    with FakeServer() as server:
        questions, settings = write_questions(tmp_path, 4), write_settings(tmp_path, server.base_url)
        args = build_args(questions, settings, tmp_path / "run")
        assert insightv(*args).returncode == 0
        asked = len(server.log())
        assert insightv(*args, "--set", "run.concurrency=3", "--set", "run.max_requests=100000").returncode == 0
        refused = insightv(*args, "--set", "generator.temperature=0.1", "--set", 'generator.next_prompt="Go on."')
        assert refused.returncode == 2
        assert "generator.temperature" in refused.stderr
        assert "generator.prompts.next" in refused.stderr
        text = questions.read_text(encoding="utf-8")
        questions.write_text(text.replace("What is 0 + 1", "How much is 0 + 1"), encoding="utf-8")
        changed = insightv(*args)
        assert changed.returncode == 2
        assert "question 'q0': question: \"What is 0 + 1" in changed.stderr
        assert '-> "How much is 0 + 1' in changed.stderr
        assert len(server.log()) == asked
        allowed = insightv(*args, "--allow-change")
        assert allowed.returncode == 0
        assert len(server.log()) > asked
    status = check_balance(tmp_path / "run")
    assert status["questions"]["total"] == 4


def test_a_run_goes_on_with_data_that_has_moved_and_from_another_folder(tmp_path: Path) -> None:
    data, moved, run = tmp_path / "data", tmp_path / "moved", tmp_path / "run"
    data.mkdir()
    with FakeServer() as server:
        write_questions(data, 6)
        settings = write_settings(tmp_path, server.base_url)
        args = build_args(Path("questions.jsonl"), settings, run)
        few = ("--set", "run.max_requests=6", "--set", "run.concurrency=1")
        assert insightv(*args, *few, cwd=data).returncode == 3
        data.rename(moved)
        (moved / "images" / "5.png").rename(moved / "images" / "five.png")
        text = (moved / "questions.jsonl").read_text("utf-8").replace("images/5.png", "images/five.png")
        (moved / "questions.jsonl").write_text(text, "utf-8")
        done = insightv(*build_args(moved / "questions.jsonl", settings, run), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert check_balance(run)["paths"]["ok"] == 24


def test_pictures_of_another_size_are_opened_anew(tmp_path: Path) -> None:
    with FakeServer() as server:
        questions, settings = write_questions(tmp_path, 4), write_settings(tmp_path, server.base_url)
        args = build_args(questions, settings, tmp_path / "run")
        few = ("--set", "run.max_requests=6", "--set", "run.concurrency=1")
        assert insightv(*args, *few).returncode == 3
        smaller = ("--set", "images.max_pixels=784", "--allow-change")
        resumed = ("build", "--run", tmp_path / "run", "--no-datasets")
        refused = insightv(*resumed, *smaller)
        assert refused.returncode == 2
        assert "give the questions file too" in refused.stderr
        assert insightv(*args, *smaller).returncode == 0
    with load_run(tmp_path / "run") as run:
        sizes = {q.question.id: q.question.pictures[0].width for q in run.assessed()}
    assert sizes == dict.fromkeys(sizes, 32)


def test_a_budget_holds_across_resumes(tmp_path: Path) -> None:
    with FakeServer(Settings(faults={"500": 0.1})) as server:
        questions, settings = write_questions(tmp_path, 20), write_settings(tmp_path, server.base_url)
        settings.write_text(settings.read_text() + "[run]\nconcurrency = 8\n")
        args = build_args(questions, settings, tmp_path / "run")
        for limit in (40, 80, 120):
            stopped = insightv(*args, "--set", f"run.max_requests={limit}")
            assert stopped.returncode == 3
            assert f"run.max_requests = {limit} is reached" in stopped.stderr
            status = check_balance(tmp_path / "run", done=False)
            assert json.loads(stopped.stdout) == status
            spent = status["requests"]
            assert spent == len(server.log())
            assert limit <= spent <= limit + 8
        assert insightv(*args).returncode == 0
    assert check_balance(tmp_path / "run")["requests"] == len(server.log())


def test_a_refused_key_stops_at_once_and_is_shown_nowhere(tmp_path: Path) -> None:
    canary = "canary-5f1d77c0"
    with FakeServer(Settings(key="another")) as server:
        questions, settings = write_questions(tmp_path, 20), write_settings(tmp_path, server.base_url)
        done = insightv(
            *build_args(questions, settings, tmp_path / "run"),
            "--set",
            "run.concurrency=4",
            env={"OPENAI_API_KEY": canary},
        )
        assert len(server.log()) <= 4
    assert done.returncode == 3
    assert "resume with" in done.stderr
    assert canary not in done.stderr + done.stdout
    assert not any(canary.encode() in file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file())


def on_a_small_disk(blocks: int, *args: object) -> subprocess.CompletedProcess[str]:
    """The command line, where no file may grow over `blocks` KiB."""
    limited = ["bash", "-c", f'ulimit -f {blocks}; exec "$@"', "limited", *command(*args)]
    return subprocess.run(limited, capture_output=True, text=True, timeout=60, check=False)


def test_a_full_disk_stops_paying_and_loses_nothing(tmp_path: Path) -> None:
    with FakeServer(Settings(latency_s=0.01)) as server:
        questions, settings = write_questions(tmp_path, 60), write_settings(tmp_path, server.base_url)
        settings.write_text(settings.read_text() + "[run]\nconcurrency = 8\n")
        run = tmp_path / "run"
        args = [*build_args(questions, settings, run), "--set", "run.grace_s=3"]
        limited = on_a_small_disk(300, *args)
        assert limited.returncode == 3, limited.stderr
        assert "run.db cannot be written" in limited.stderr
        asked = len(server.log())
        recorded = check_balance(run, done=False)["requests"]
        assert asked - 16 <= recorded <= asked
        assert insightv(*args).returncode == 0
        assert check_balance(run)["questions"]["done"] == 60
        assert len(server.log()) - asked + recorded == check_balance(run)["requests"]


def test_a_disk_that_fills_while_questions_are_taken_in_ends_it_before_anything_is_paid_for(tmp_path: Path) -> None:
    with FakeServer() as server:
        settings, questions = write_settings(tmp_path, server.base_url), tmp_path / "long.jsonl"
        rows = [{"id": f"q{i}", "question": f"What is {i}? " + "so " * 300, "answer": "1"} for i in range(600)]
        questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
        args = build_args(questions, settings, tmp_path / "run")
        limited = on_a_small_disk(100, *args)
        assert limited.returncode == 3, limited.stderr
        assert "run.db cannot be written" in limited.stderr
        assert server.log() == []


def test_a_run_that_another_program_holds_open_for_writing_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_S", 0.5)
    with FakeServer() as server:
        questions, settings = write_questions(tmp_path, 2), write_settings(tmp_path, server.base_url)
        pipeline = Pipeline.from_config(settings, run=tmp_path / "run")
        pipeline.build(questions, datasets=False)
        with contextlib.closing(sqlite3.connect(tmp_path / "run" / "run.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageFull, match="locked, by another program; end that"):
                pipeline.build(questions, datasets=False)
        pipeline.build(questions, datasets=False)


def test_bad_rows_are_refused_at_once_with_all_of_them_named(tmp_path: Path) -> None:
    with FakeServer() as server:
        questions, settings = write_questions(tmp_path, 3), write_settings(tmp_path, server.base_url)
        (tmp_path / "images" / "text.png").write_text("not an image")
        good = questions.read_text(encoding="utf-8")
        bad: list[dict[str, object]] = [
            {"id": "gone", "question": "?", "images": ["images/gone.png"], "answer": "1"},
            {"id": "text", "question": "?", "images": ["images/text.png"], "answer": "1"},
            {"id": "q1", "question": "another", "images": [], "answer": "1"},
            {"id": "mute", "question": "?", "images": []},
            {"id": "out", "question": "?", "images": ["../x.png"], "answer": "1"},
            {"id": "typed", "question": 7, "images": [], "answer": "1"},
        ]
        questions.write_text(good + "".join(json.dumps(row) + "\n" for row in bad), encoding="utf-8")
        args = build_args(questions, settings, tmp_path / "run")
        refused = insightv(*args)
        assert refused.returncode == 2
        for line, row in enumerate(bad, 4):
            assert f"questions.jsonl:{line}: {row['id']}" in refused.stderr
        assert server.log() == []
        assert not (tmp_path / "run").exists()
        assert insightv(*args, "--bad-rows", "skip").returncode == 0
    assert check_balance(tmp_path / "run")["questions"]["total"] == 3
    status = json.loads(insightv("status", "--run", tmp_path / "run", "--json").stdout)
    assert {row["id"] for row in status["rows_left_out"]} == {str(row["id"]) for row in bad}
    assert "left out   questions.jsonl:4: " in insightv("status", "--run", tmp_path / "run").stdout


def test_failed_paths_are_listed_and_can_be_tried_again(tmp_path: Path) -> None:
    with FakeServer(Settings(faults={"400": 0.3})) as server:
        questions, settings = write_questions(tmp_path, 8), write_settings(tmp_path, server.base_url, path_scorer=False)
        args = build_args(questions, settings, tmp_path / "run")
        first = insightv(*args)
        assert first.returncode == 4
        status = check_balance(tmp_path / "run")
        assert status["paths"]["failed"] == status["paths"]["by_code"]["bad_request"] > 0
        server.change(faults={})
        again = insightv("build", "--run", tmp_path / "run", "--no-datasets", "--retry-failed")
        assert again.returncode == 0, again.stderr
        answered = [(entry["sha"], entry["seed"]) for entry in server.log() if entry["fault"] is None]
        assert len(answered) == len(set(answered))  # what was answered is not asked again
    assert check_balance(tmp_path / "run")["paths"] == {
        "total": 32,
        "ok": 32,
        "rejected": 0,
        "failed": 0,
        "by_code": {},
    }


def test_a_server_that_refuses_whatever_it_is_asked_stops_the_run(tmp_path: Path) -> None:
    with FakeServer(Settings(faults={"400": 1.0})) as server:
        questions, settings = (
            write_questions(tmp_path, 40),
            write_settings(tmp_path, server.base_url, path_scorer=False),
        )
        args = [*build_args(questions, settings, tmp_path / "run"), "--set", "run.concurrency=4"]
        stopped = insightv(*args)
        assert stopped.returncode == 3, stopped.stderr
        assert "first 3 requests were all refused" in stopped.stderr
        assert "scripted 400" in stopped.stderr
        assert len(server.log()) <= 20  # two for a call (with n and without), and those in flight
        server.change(faults={})
        done = insightv(*args, "--retry-failed")
        assert done.returncode == 0, done.stderr
    assert check_balance(tmp_path / "run")["paths"]["ok"] == 160


def test_a_file_in_the_place_of_the_run_is_said(tmp_path: Path) -> None:
    questions, settings = write_questions(tmp_path, 1), write_settings(tmp_path, "http://127.0.0.1:9/v1")
    for place in (questions, questions / "run"):
        refused = insightv(*build_args(questions, settings, place))
        assert refused.returncode == 2, refused.stderr
        assert "a file is in its place" in refused.stderr


def test_a_server_that_is_not_there_is_said_before_anything_is_started(tmp_path: Path) -> None:
    questions, settings = write_questions(tmp_path, 2), write_settings(tmp_path, "http://127.0.0.1:9/v1")
    refused = insightv(*build_args(questions, settings, tmp_path / "run"))
    assert refused.returncode == 2
    assert "no server can be reached: http://127.0.0.1:9/v1" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_laid_out_as_by_the_release_before_goes_on(tmp_path: Path) -> None:
    """Its calls and paths were tables without rowids, with another index."""
    with FakeServer() as server:
        questions, settings = write_questions(tmp_path, 12), write_settings(tmp_path, server.base_url)
        run = tmp_path / "run"
        assert insightv(*build_args(questions, settings, run), "--set", "run.max_requests=60").returncode == 3
        with contextlib.closing(sqlite3.connect(run / "run.db")) as connection:
            for table, key in (("calls", "question, key"), ("paths", "question, epoch, path")):
                (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
                assert f"UNIQUE ({key})" in sql
                older = sql.replace(f"UNIQUE ({key}))", f"PRIMARY KEY ({key})) WITHOUT ROWID")
                connection.execute(older.replace(f"CREATE TABLE {table}", "CREATE TABLE older"))
                connection.execute(f"INSERT INTO older SELECT * FROM {table}")
                connection.execute(f"DROP TABLE {table}")
                connection.execute(f"ALTER TABLE older RENAME TO {table}")
            connection.execute("CREATE INDEX paths_outcome ON paths (epoch, status, code, band)")
            connection.commit()
        assert insightv(*build_args(questions, settings, run)).returncode == 0
        asked = len(server.log())
    assert check_balance(run)["requests"] == asked


def test_a_run_that_another_process_is_about_to_begin_is_held_and_nothing_worse(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.db").touch()  # as it is until the first commit
    settings = write_settings(tmp_path, "http://127.0.0.1:9/v1")
    lock = RunLock(run)
    lock.acquire()
    try:
        done = insightv(*build_args(write_questions(tmp_path, 2), settings, run))
    finally:
        lock.release()
    assert done.returncode == 3, done.stderr
    assert "is held by process" in done.stderr
    assert "cannot be read now" in done.stderr
    assert not done.stdout


NO_SERVER = "http://127.0.0.1:9/v1"


def refused_build(pipeline: Pipeline, questions: Path, meanwhile: Callable[[], object]) -> None:
    """Build what cannot be built, as no server is there; `meanwhile` happens once the run's folder is made."""
    happened = False

    def watch(_: object) -> None:
        nonlocal happened
        if not happened:
            happened = True
            meanwhile()

    with pytest.raises(ConfigError):
        pipeline.build(questions, watch=watch)
    assert happened


def test_a_refused_build_leaves_nothing_of_its_own(tmp_path: Path) -> None:
    pipeline = Pipeline.from_config(write_settings(tmp_path, NO_SERVER), run=tmp_path / "run")
    refused_build(pipeline, write_questions(tmp_path, 2), lambda: None)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_the_same_relative_name_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    (there / "run").mkdir(parents=True)
    (there / "run" / "thesis.txt").write_text("years of work", encoding="utf-8")
    here.mkdir()
    settings, questions = write_settings(tmp_path, NO_SERVER), write_questions(tmp_path, 2)
    monkeypatch.chdir(here)
    refused_build(Pipeline.from_config(settings, run="run"), questions, lambda: os.chdir(there))
    assert (there / "run" / "thesis.txt").read_text(encoding="utf-8") == "years of work"
    assert not (here / "run").exists()


def test_a_folder_put_in_the_place_of_a_renamed_run_is_not_touched(tmp_path: Path) -> None:
    run, aside = tmp_path / "run", tmp_path / "aside"

    def swap() -> None:
        run.rename(aside)
        run.mkdir()
        for name in ("run.lock", "log.jsonl", "holder.json", "notes.txt"):
            (run / name).write_text("mine", encoding="utf-8")

    pipeline = Pipeline.from_config(write_settings(tmp_path, NO_SERVER), run=run)
    refused_build(pipeline, write_questions(tmp_path, 2), swap)
    assert {path.name: path.read_text(encoding="utf-8") for path in run.iterdir()} == dict.fromkeys(
        ("run.lock", "log.jsonl", "holder.json", "notes.txt"), "mine"
    )


def test_notes_in_a_new_runs_folder_stay_and_so_does_the_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    pipeline = Pipeline.from_config(write_settings(tmp_path, NO_SERVER), run=run)
    refused_build(pipeline, write_questions(tmp_path, 2), lambda: (run / "notes.txt").write_text("mine"))
    assert [path.name for path in run.iterdir()] == ["notes.txt"]


def test_notes_in_a_run_whose_database_was_lost_stay(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "images").mkdir(parents=True)
    (run / "notes.txt").write_text("mine", encoding="utf-8")
    pipeline = Pipeline.from_config(write_settings(tmp_path, NO_SERVER), run=run)
    refused_build(pipeline, write_questions(tmp_path, 2), lambda: None)
    assert sorted(path.name for path in run.iterdir()) == ["images", "notes.txt"]


def test_pictures_of_a_refused_build_are_removed_again(tmp_path: Path) -> None:
    from PIL import Image

    from insightv.inputs.images import open_picture

    Image.new("RGB", (40, 30), "red").save(tmp_path / "one.png")
    question = Question(id="a", question="which?", images=(open_picture(tmp_path / "one.png"),), answer="x")
    pipeline = Pipeline.from_config(write_settings(tmp_path, NO_SERVER), run=tmp_path / "run")
    with pytest.raises(ConfigError):
        pipeline.build([question])
    assert not (tmp_path / "run").exists()
