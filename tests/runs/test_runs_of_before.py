"""What release 0.1.0 wrote is taken up by every command: nothing counts as changed, nothing is done or paid again."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import pytest

from insightv import RunChanged
from insightv.pipeline import Pipeline
from tests.server.test_command import serving
from tests.world import insightv

ARCHIVE = Path(__file__).with_name("run_0_1_0.tar.gz")


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that release 0.1.0 worked in, now the working directory."""
    with tarfile.open(ARCHIVE) as archive:
        safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since Python 3.11.4
        archive.extractall(tmp_path, **safely)
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("half/run.db") as database:  # the questions' pictures have moved with the folder
        database.execute("UPDATE questions SET place = ?", (str(tmp_path / "questions"),))
    database.close()
    return tmp_path


def as_json(*args: object) -> Any:
    done = insightv(*args, timeout=110)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def expected(name: str) -> Any:
    text = Path("expected", name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if name.endswith("l") else json.loads(text)


@pytest.mark.usefixtures("before")
def test_status_says_the_same() -> None:
    seconds = {"elapsed_s": 0}  # a resume that had nothing to do added some after the status was written
    assert as_json("status", "--run", "run", "--json") | seconds == expected("status.json") | seconds
    assert as_json("status", "--run", "half", "--json") == expected("half_status.json")


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize("what", ["paths", "reason", "summary"])
def test_exports_are_the_same(what: str) -> None:
    out = Path(f"{what}.jsonl")
    done = insightv("export", "--run", "run", "--what", what, "--format", "jsonl", "--out", out)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] == expected(out.name)


@pytest.mark.usefixtures("before")
def test_a_whole_run_has_nothing_left_to_build() -> None:
    asked = expected("status.json")["requests"]
    status = as_json("build", "questions/questions.jsonl", "--run", "run", "--json")
    assert status["requests"] == asked


@pytest.mark.usefixtures("before")
def test_a_stopped_build_continues() -> None:
    before = expected("half_status.json")
    assert before["questions"]["done"] < before["questions"]["total"]
    status = as_json("build", "--run", "half", "--set", "run.max_requests=1000", "--json")
    assert status["questions"]["done"] == status["questions"]["total"]
    whole = expected("status.json")
    assert (status["paths"], status["bands"]) == (whole["paths"], whole["bands"])
    assert status["requests"] == whole["requests"]


@pytest.mark.usefixtures("before")
def test_what_does_change_results_is_still_refused() -> None:
    pipeline = Pipeline.from_config(run="half", changes=["generator.temperature=0.1", "run.max_requests=1000"])
    with pytest.raises(RunChanged) as refused:
        pipeline.build()
    assert refused.value.differences == ("generator.temperature: 0.8 -> 0.1",)


@pytest.mark.usefixtures("before")
def test_a_training_is_done_already() -> None:
    done = insightv("train", "--run", "run", timeout=110)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("done already") + done.stdout.count("done already") == 3


@pytest.mark.usefixtures("before")
def test_the_report_is_written() -> None:
    Path("run/report.html").unlink(missing_ok=True)
    done = insightv("report", "--run", "run")
    assert done.returncode == 0, done.stderr
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert "round 1" in page
    assert "reasoner-3cb938c2" in page  # an evaluation of before


@pytest.mark.usefixtures("before")
def test_its_agents_are_served() -> None:
    from urllib.request import urlopen

    with serving("--run", "run") as (_, url), urlopen(f"{url}/v1/models", timeout=60) as reply:
        models = [model["id"] for model in json.load(reply)["data"]]
    assert models == ["insightv", "insightv-reason", "insightv-summary"]
