"""The `vllm` backend inside a run: one server for all roles, its log in the run's folder. Against a fake program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from insightv import Pipeline
from insightv.config.settings import check_settings
from insightv.errors import ConfigError
from insightv.records import Question
from tests.backends.vllm_models import model_folder
from tests.servers.fake_vllm import installed, starts

QUESTIONS = [
    Question(id=f"q{number}", question=f"What is 3 + {number}? [truth={3 + number}] [steps=2]", answer=str(3 + number))
    for number in range(3)
]


def pipeline(base: Path, fake: Path, run: Path, **behaviour: object) -> Pipeline:
    place = {"model": f"vllm/{base}", "backend": installed(fake, **behaviour)}
    scorers = [{"use": "answer", **place}, {"use": "path", **place}]
    return Pipeline(run=run, settings=check_settings({"generator": {"paths": 2, **place}, "scorers": scorers}))


def test_all_roles_of_a_run_share_one_server(tmp_path: Path) -> None:
    base, fake, run = model_folder(tmp_path / "base"), tmp_path / "fake", tmp_path / "run"
    status = pipeline(base, fake, run).build(QUESTIONS, datasets=False)
    assert status.paths.ok == 6
    assert len(starts(fake)) == 1
    assert "fake vllm, start 0" in (run / "vllm-base.log").read_text()
    said = [json.loads(line)["message"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert any("answers after" in line for line in said)


def test_a_start_that_fails_ends_the_build_before_it_begins_and_keeps_the_log(tmp_path: Path) -> None:
    base, fake, run = model_folder(tmp_path / "base"), tmp_path / "fake", tmp_path / "run"
    with pytest.raises(ConfigError, match="there is not enough memory") as caught:
        pipeline(base, fake, run, refuse="memory").build(QUESTIONS, datasets=False)
    assert caught.value.exit_code == 2
    assert "No available memory" in (run / "vllm-base.log").read_text()
    assert not (run / "run.db").exists()
