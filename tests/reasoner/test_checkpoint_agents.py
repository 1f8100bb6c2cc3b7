"""The trained agents of a run: taken where they are whole, refused where not. The weights are the embedded ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from insightv import Reasoner
from insightv.agents.reasoning import ThoughtsReasoner
from insightv.backends.checkpoints import MARKER, identity_of, mark
from insightv.backends.model_folder import embedded_weights
from insightv.cli.agents import answer
from insightv.config.settings import check_settings, load_settings
from insightv.errors import ConfigError, InputError
from insightv.evaluate.evaluation import Evaluation
from insightv.reasoner.checkpoint_agents import trained_folders, trained_table, with_trained
from insightv.tiny.world import write_questions
from tests.world import insightv

SETTINGS = """
[generator]
model = "tiny"
[reasoning_agent]
max_tokens = 60
tries = 1
[summary_agent]
max_tokens = 8
"""


def checkpoints(parent: Path, *names: str) -> Path:
    """Model directories with their markers."""
    for name in names:
        shutil.copytree(embedded_weights("teacher"), parent / name)
        mark(parent / name, stage=name)
    return parent


def run_in(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(SETTINGS)
    return folder


def test_a_trained_run_answers_with_its_checkpoints_and_says_so(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    assert not Reasoner.load(run).trained
    checkpoints(run / "checkpoints", "reasoning", "summary")
    reasoner = Reasoner.load(run, threads=1)
    assert reasoner.trained
    assert "trained" in repr(reasoner)
    assert f"hf/{run / 'checkpoints' / 'summary'}" in repr(reasoner)
    charts = write_questions(tmp_path / "charts", 1, seed=3, split="heldout")
    row = json.loads(charts.read_text().splitlines()[0])
    found = reasoner.answer(charts.parent / row["images"][0], row["question"])
    reasoner.close()
    assert found.text
    assert found.path is not None
    assert found.path.model == f"hf/{run / 'checkpoints' / 'reasoning'}"
    untrained = Reasoner.load(run, trained=False)
    assert not untrained.trained
    assert "tiny/teacher" in repr(untrained)


def test_the_command_says_whom_it_asks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = checkpoints(tmp_path / "copied", "reasoning", "summary")
    (folder / "config.toml").write_text(SETTINGS)
    charts = write_questions(tmp_path / "charts", 1, seed=3, split="heldout")
    row = json.loads(charts.read_text().splitlines()[0])
    answer(charts.parent / row["images"][0], row["question"], run=folder, as_json=True)
    said = capsys.readouterr()
    assert str(folder / "reasoning") in said.err
    assert json.loads(said.out)["path"]["model"] == f"hf/{folder / 'reasoning'}"


def asked_of(evaluation: Evaluation) -> str:
    return str(evaluation.settings.generator.options["agents"]["reasoning_agent"]["model"])


def test_before_and_after_training_are_two_evaluations_of_one_run(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    data = write_questions(tmp_path / "charts", 2, seed=3, split="heldout")
    before = Evaluation(run, data, system="reasoning-only")
    assert asked_of(before) == "tiny"
    checkpoints(run / "checkpoints", "reasoning")
    after = Evaluation(run, data, system="reasoning-only")
    assert asked_of(after) == f"hf/{run / 'checkpoints' / 'reasoning'}"
    assert Evaluation(run, data, system="reasoning-only", trained=False).name == before.name
    weights_file = run / "checkpoints" / "reasoning" / "model.safetensors"
    trained = weights_file.read_bytes()
    weights_file.write_bytes(trained[:-1] + bytes([trained[-1] ^ 1]))
    with pytest.raises(InputError, match="not whole"):
        Evaluation(run, data, system="reasoning-only")
    mark(run / "checkpoints" / "reasoning")
    assert len({before.name, after.name, Evaluation(run, data, system="reasoning-only").name}) == 3
    with pytest.raises(InputError, match="summary"):
        Evaluation(run, data, system="reasoner")
    with pytest.raises(InputError, match="multi-turn"):
        Evaluation(run, data, system="multi-turn", trained=True)
    assert Evaluation(run, data, system="direct").name.startswith("direct-")


def test_settings_that_name_a_model_are_not_passed_over_for_a_checkpoint(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    checkpoints(run / "checkpoints", "reasoning", "summary")
    kept = run / "config.toml"
    limited = Reasoner.load(run, settings=load_settings(kept, ["reasoning_agent.max_tokens=7"]))
    assert limited.trained
    assert isinstance(limited.reasoning_agent, ThoughtsReasoner)
    assert limited.reasoning_agent.max_tokens == 7
    for change in ("reasoning_agent.model=openai/mine", "generator.model=openai/mine"):
        settings = load_settings(kept, [change])
        with pytest.raises(ConfigError, match=r"openai/mine as the model of reasoning_agent.*--untrained"):
            Reasoner.load(run, settings=settings)
        asked = insightv("evaluate", "--run", run, "--data", tmp_path / "none.jsonl", "--set", change)
        assert asked.returncode == 2
        assert "openai/mine as the model of reasoning_agent" in asked.stderr
    untrained = Reasoner.load(run, trained=False, settings=load_settings(kept, ["generator.model=tiny/base"]))
    assert "tiny/base" in repr(untrained)
    copied = checkpoints(tmp_path / "copied", "reasoning", "summary")
    assert Reasoner.load(copied, settings=load_settings(kept)).trained


def test_what_belongs_to_a_model_is_refused_beside_a_run(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    for before in (("serve",), ("answer", tmp_path / "x.png", "Which?")):
        for option in ("--base-url", "--summary-model"):
            done = insightv(*before, "--run", run, option, "value")
            assert (done.returncode, done.stdout) == (2, "")
            assert f"{option} value belongs to --model" in done.stderr
    both = insightv("answer", tmp_path / "x.png", "Which?", "--run", run, "--model", "tiny")
    assert (both.returncode, both.stdout) == (2, "")
    assert "both name the agents; leave one of them out" in both.stderr
    bare = insightv("answer", tmp_path / "x.png", "Which?", "--model", "tiny", "--untrained")
    assert bare.returncode == 2
    assert "--untrained belongs to --run" in bare.stderr


def test_half_a_save_is_refused(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    checkpoints(run / "checkpoints", "reasoning", "summary")
    (run / "checkpoints" / "summary" / MARKER).unlink()
    with pytest.raises(InputError, match=r"summary.*is not whole.*no readable"):
        Reasoner.load(run)
    mark(run / "checkpoints" / "summary")
    (run / "checkpoints" / "reasoning" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"reasoning.*is not whole.*a file is not as"):
        Reasoner.load(run)
    assert not Reasoner.load(run, trained=False).trained


def test_one_of_two_is_not_taken_for_both(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    checkpoints(run / "checkpoints", "reasoning")
    with pytest.raises(InputError, match=r"summary.*insightv train.*--untrained"):
        Reasoner.load(run)


def test_what_is_neither_a_run_nor_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run"):
        Reasoner.load(tmp_path)
    run = run_in(tmp_path)
    with pytest.raises(InputError, match="insightv train"):
        Reasoner.load(run, trained=True)
    with pytest.raises(ConfigError, match="threads"):
        Reasoner.load(run, threads=1)
    assert trained_folders(run) == {}


def test_the_agents_keep_their_options_and_lose_where_they_were_reached(tmp_path: Path) -> None:
    settings = check_settings(
        {
            "generator": {"model": "openai/g", "base_url": "http://g"},
            "reasoning_agent": {"use": "steps", "paths": 3, "tags": ["<a>", "</a>"]},
            "summary_agent": {"model": "openai/s", "base_url": "http://s", "max_tokens": 9},
        }
    )
    made = with_trained(settings, {"reasoning_agent": Path("/r"), "summary_agent": Path("/s")}, "hf", {"threads": 1})
    reasoning, summary = made.reasoning_agent, made.summary_agent
    assert (reasoning.use, reasoning.model, reasoning.options) == ("thoughts", "hf//r", {"tags": ["<a>", "</a>"]})
    assert (summary.use, summary.model, summary.base_url) == ("summary", "hf//s", None)
    assert summary.options == {"max_tokens": 9}
    assert summary.backend_options == {"threads": 1}


def test_vllm_is_given_the_adapter_of_a_checkpoint_where_there_is_one(tmp_path: Path) -> None:
    base = checkpoints(tmp_path, "base") / "base"
    trained = checkpoints(tmp_path / "made", "reasoning") / "reasoning"
    table = check_settings({}).reasoning_agent

    def asked(backend: str) -> tuple[str | None, object]:
        found = trained_table(table, trained, backend, {"start_s": 9})
        return found.model, found.backend

    assert asked("vllm") == (f"vllm/{trained}", {"start_s": 9})
    (trained / "adapter").mkdir()
    mark(trained, base=str(base), base_identity=identity_of(base))
    assert asked("vllm") == (f"vllm/{trained}/adapter", {"start_s": 9, "base": str(base)})
    assert asked("hf") == (f"hf/{trained}", {"start_s": 9})
    mark(trained, base=str(base), base_identity="of other weights")
    assert asked("vllm") == (f"vllm/{trained}", {"start_s": 9})
