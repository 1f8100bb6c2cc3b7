"""What `insightv report` writes: figures that balance with the run, limits that are told, and nothing in `run.db`."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from insightv import ConfigError, InputError, load_run
from insightv.report import write_report
from insightv.report.charts import bins_of
from insightv.runs.stage_facts import StageFacts
from insightv.runs.stage_ledger import Ledger
from tests.report.world import HOSTILE, blob, build, noisy, questions
from tests.servers.fake_openai import FakeServer, Settings
from tests.world import build_args, command, insightv, wait_for, write_questions, write_settings


def digest(run: Path) -> str:
    return hashlib.sha256((run / "run.db").read_bytes()).hexdigest()


def test_a_run_against_a_server_is_told_as_status_and_export_tell_it(tmp_path: Path) -> None:
    with FakeServer(Settings(wrong=0.3, faults={"400": 0.03})) as server:
        config = write_settings(tmp_path, server.base_url)
        built = insightv(*build_args(write_questions(tmp_path, 15), config, tmp_path / "run"))
    assert built.returncode == 4, built.stderr
    before = digest(tmp_path / "run")
    done = insightv("report", "--run", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert digest(tmp_path / "run") == before
    told, page = json.loads(done.stdout), tmp_path / "run" / "report.html"
    assert told["path"] == str(page)
    assert told["bytes"] == page.stat().st_size
    assert told["shown_paths"] == told["paths"] == 60
    status = json.loads(built.stdout)
    shown = Counter(path["outcome"] for one in blob(page)["questions"] for path in one["paths"])
    expected = {**status["bands"], **{name: status["paths"][name] for name in ("rejected", "failed")}}
    assert shown == {name: count for name, count in expected.items() if count}
    text = page.read_text("utf-8")
    for name, count in expected.items():
        assert f"{name} {count}" in text
    assert f"{status['tokens']['cached']:,} (" in text
    assert "bad_request" in text


def test_every_path_is_there_with_what_was_said_of_it(tmp_path: Path) -> None:
    run = build(tmp_path / "run", questions(tmp_path / "images", 12))
    write_report(run)
    data = blob(run / "report.html")
    assert len(data["images"]) == 12
    assert all(image["url"].startswith("data:image/") for image in data["images"])
    with load_run(run) as reader:
        for asked, told in zip(reader.assessed(pictures=False), data["questions"], strict=True):
            assert (told["id"], told["text"]) == (asked.question.id, asked.question.question)
            for item, path in zip(asked.paths, told["paths"], strict=True):
                assert path.get("steps", []) == [[step.title, step.content] for step in item.path.steps]
                assert path.get("answer") == item.path.answer
                assert path.get("score") == item.score
                assert [one.get("ok") for one in path.get("scores", [])] == [one.accepted for one in item.scores]
                judged = [one.details["first_error"] for one in item.scores if "first_error" in one.details]
                assert path.get("fault") == (judged[0] if judged else None)


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    run = build(tmp_path / "run", questions(tmp_path / "images", 12, texts=HOSTILE), texts=HOSTILE)
    write_report(run)
    page = run / "report.html"
    text = page.read_text("utf-8")
    assert text.count("<script") == 2
    assert text.count("</script>") == 2
    assert "<img" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert "<!--" not in text
    assert not re.search("[\x00-\x08\x0e-\x1f]", text)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src &#x27;none&#x27;" in policy[1]
    assert "unsafe" not in policy[1]
    assert "http" not in policy[1]
    data = blob(page)
    assert data["questions"][0]["text"] == HOSTILE[0]
    assert {step[1][:20] for one in data["questions"] for path in one["paths"] for step in path.get("steps", [])}


def test_what_does_not_fit_is_left_out_by_whole_questions_and_told(tmp_path: Path) -> None:
    run = build(tmp_path / "run", questions(tmp_path / "images", 40))
    made = write_report(run, tmp_path / "some.html", most_paths=50)
    assert made.paths == 160
    assert made.shown_paths == 48
    assert not (run / "report.html").exists()
    data = blob(tmp_path / "some.html")
    assert [len(one["paths"]) for one in data["questions"]] == [4] * 12
    numbers = [int(one["id"][1:]) for one in data["questions"]]
    assert numbers == sorted(numbers)
    assert max(numbers) > 20
    text = (tmp_path / "some.html").read_text("utf-8")
    assert "48 of 160 paths are shown here" in text
    assert "--max-paths 160" in text
    again = write_report(run, tmp_path / "again.html", most_paths=50)
    assert again.shown_paths == 48
    assert blob(tmp_path / "again.html") == data
    assert write_report(run, tmp_path / "one.html", most_paths=1).shown_paths == 4


def test_pictures_get_smaller_and_then_go_to_keep_the_size(tmp_path: Path) -> None:
    asked = questions(tmp_path / "images", 8)
    for number in range(8):
        (tmp_path / "images" / f"{number}.png").write_bytes(noisy(400, number))
    run = build(tmp_path / "run", asked, paths=1)
    made = write_report(run, most_bytes=1_000_000)
    assert made.bytes < 1_100_000
    assert made.shown_pictures == 8
    assert made.smaller_pictures == 8
    assert "8 of 8 pictures are shown smaller" in (run / "report.html").read_text("utf-8")
    whole = write_report(run, most_bytes=50_000_000)
    assert whole.bytes > made.bytes
    next((run / "images").iterdir()).unlink()
    assert write_report(run).shown_pictures == 7
    assert "1 of 8 pictures could not be read" in (run / "report.html").read_text("utf-8")


def test_a_run_that_is_being_written_can_be_reported(tmp_path: Path) -> None:
    with FakeServer(Settings(latency_s=0.05)) as server:
        config = write_settings(tmp_path, server.base_url, extra="[run]\nconcurrency = 4\n")
        args = build_args(write_questions(tmp_path, 200), config, tmp_path / "run")
        child = subprocess.Popen(command(*args), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: len(server.log()) > 120, 60)
            made = write_report(tmp_path / "run")
            assert child.poll() is None, "the build ended before the report was written"
        finally:
            child.terminate()
            child.wait()
    assert made.questions < 200
    text = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "The run is not finished." in text
    assert made.shown_paths == made.paths == sum(len(one["paths"]) for one in blob(Path(made.path))["questions"])


def test_bad_rows_and_evaluations_are_told(tmp_path: Path) -> None:
    with FakeServer(Settings(wrong=0.3)) as server:
        file = write_questions(tmp_path, 8)
        config = write_settings(tmp_path, server.base_url, extra='[reasoning_agent]\nuse = "steps"\n')
        file.write_text(file.read_text("utf-8") + '{"id": "<b>bad</b>", "question": "?", "images": ["gone.png"]}\n')
        run = tmp_path / "run"
        built = insightv(*build_args(file, config, run), "--bad-rows", "skip")
        assert built.returncode == 0, built.stderr
        held_out = write_questions(tmp_path / "held", 6)
        for system in ("direct", "reasoner"):
            done = insightv("evaluate", "--run", run, "--data", held_out, "--system", system, "--name", system)
            assert done.returncode == 0, done.stderr
    (run / "evaluations" / "broken").mkdir()
    (run / "evaluations" / "broken" / "result.json").write_text("{")
    (run / "evaluations" / "begun").mkdir()
    write_report(run)
    text = (run / "report.html").read_text("utf-8")
    assert "questions.jsonl:9" in text
    assert "&lt;b&gt;bad&lt;/b&gt;" in text
    assert "Difference to direct, question by question" in text
    assert "The evaluation broken could not be read" in text
    assert "The evaluation begun is not finished." in text
    assert write_report(run / "evaluations" / "direct").paths == 6  # an evaluation is a run of its own


def test_the_stages_of_training_are_a_curve_and_a_table(tmp_path: Path) -> None:
    run = build(tmp_path / "run", questions(tmp_path / "images", 2))
    write_report(run)
    assert 'id="training"' not in (run / "report.html").read_text("utf-8")
    with Ledger(run / "run.db") as ledger:
        for name, before, after, back in (("reasoning", 0.4, 0.6, False), ("round 1", 0.6, 0.3, True)):
            ledger.begin(name, {"name": name})
            sides = {
                key: {"accuracy": one, "interval": [one - 0.1, one + 0.1]}
                for key, one in (("before", before), ("after", after))
            }
            sides["after"] |= {"ungraded": 5, "total": 9} if back else {"ungraded": 0, "total": 9}
            compared = {"difference": after - before, "p": 0.03}
            facts = {**sides, "compared": compared, "rolled_back": back, "pairs": 12}
            ledger.finish(name, StageFacts.model_validate(facts))
        ledger.begin("<b>summary</b>", {})
    write_report(run)
    text = (run / "report.html").read_text("utf-8")
    assert 'id="training"' in text
    assert "round 1: 30.0 %, rolled back" in text
    assert 'class="hollow"' in text
    assert "-30.0 %" in text
    assert text.count("30.0 % (5 of 9 not graded)") == text.count("not graded") == 1
    assert "&lt;b&gt;summary&lt;/b&gt;" in text


def test_exit_codes_and_cures(tmp_path: Path) -> None:
    missing = insightv("report", "--run", tmp_path / "none", "--json")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "insightv build" in missing.stderr
    run = build(tmp_path / "run", questions(tmp_path / "images", 1))
    folder = insightv("report", "--run", run, "--out", tmp_path)
    assert folder.returncode == 2
    assert "is a folder" in folder.stderr
    with pytest.raises(ConfigError, match="1 MB"):
        write_report(run, most_bytes=10)
    with pytest.raises(InputError):
        write_report(tmp_path / "none")
    assert insightv("report", "--run", run).stdout.startswith(str(run / "report.html"))


def test_bins_are_round_and_outliers_share_the_last() -> None:
    values = Counter({(value, "high"): 10 for value in range(100)}) + Counter({(90_000, "low"): 1})
    bins = bins_of(values)
    assert sum(one.total for one in bins) == 1001
    assert {one.width for one in bins} == {5}
    assert bins[-1].open
    assert bins[-1].counts["low"] == 1
    assert bins_of(Counter()) == []
    assert [one.low for one in bins_of(Counter({(4, "mid"): 2}), low=4)] == [4]
