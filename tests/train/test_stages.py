"""A whole training on the embedded model: every stage measured, nothing done twice, nothing changed unseen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from insightv.backends.checkpoints import identity_of, is_complete
from insightv.config.settings import Settings, check_settings
from insightv.errors import ConfigError, InputError, RunChanged
from insightv.pipeline import Pipeline
from insightv.runs.reader import DATABASE, load_run
from insightv.runs.stage_ledger import Entry, TrainingResult, read_ledger
from insightv.tiny.world import write_questions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),  # of torch and trl, about their own insides
]

TRAIN: dict[str, Any] = {
    "base": "tiny/teacher",
    "recipe": "dpo",
    "child": False,
    "device": "cpu",
    "max_steps": 2,
    "batch_size": 2,
    "accumulation": 1,
    "warmup": 0.0,
    "log_steps": 1,
    "save_dtype": "float32",
    "backend_options": {"threads": 1},
    "summary_paths": 1,
    "generation": {"questions": 6, "paths": 4},
    "pairs": {"margin": 1},
    "preference": {"learning_rate": 1e-4},
}


def settings(**train: Any) -> Settings:
    return check_settings(
        {
            "seed": 7,
            "generator": {"model": "tiny", "paths": 4, "max_steps": 6, "max_tokens": 96, "temperature": 0.8},
            "scorers": [{"use": "answer", "tolerance": 0.0, "exact_text": True}, {"use": "chart-steps"}],
            "reasoning_agent": {"max_tokens": 256},
            "summary_agent": {"max_tokens": 32},
            "train": TRAIN | train,
        }
    )


@pytest.fixture(scope="module")
def heldout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("heldout"), 8, seed=99, split="heldout")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    questions = write_questions(folder / "questions", 10, seed=7, split="heldout")
    Pipeline(run=folder / "run", settings=settings()).build(questions)
    return folder / "run"


@pytest.fixture(scope="module")
def trained(built: Path, heldout: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingResult]:
    run = tmp_path_factory.mktemp("trained") / "run"
    shutil.copytree(built, run)
    return run, Pipeline(run=run, settings=settings(heldout=str(heldout))).train()


def again(run: Path, heldout: Path, allow_change: bool = False, **train: Any) -> list[tuple[str, str]]:
    told: list[tuple[str, str]] = []

    def tell(event: str, stage: Entry) -> None:
        told.append((event, stage.name))

    pipeline = Pipeline(run=run, settings=settings(heldout=str(heldout), **train))
    pipeline.train(tell=tell, allow_change=allow_change)
    return told


def test_every_stage_is_done_and_measured(trained: tuple[Path, TrainingResult]) -> None:
    run, result = trained
    found = result.as_json()
    assert [stage["stage"] for stage in found["stages"]] == ["reasoning", "round 1", "summary"]
    for stage in found["stages"]:
        assert stage["before"]["total"] == stage["after"]["total"] == 8
        assert stage["after"]["interval"]
        assert stage["before"]["failed"] == stage["after"]["failed"] == 0
        assert stage["compared"]["pairs"] == 8
    assert found["failed"] == 0
    for agent in ("reasoning", "summary"):
        assert is_complete(run / "checkpoints" / agent)
        assert found["checkpoints"][agent] == str(run / "checkpoints" / agent)
    assert identity_of(run / "checkpoints" / "reasoning") == identity_of(run / found["stages"][1]["result"])


def test_the_ledger_says_what_a_round_was_made_of(trained: tuple[Path, TrainingResult]) -> None:
    run, found = trained
    with load_run(run) as reader:
        assert tuple(reader.training()) == found.stages
    one = found.stages[1].facts.as_json()
    assert one["policy"] == "rounds/0/policy"
    assert one["policy_identity"] == identity_of(run / "rounds/0/policy")
    assert one["questions"] == 6
    assert one["paths"]["total"] == 24
    assert one["pairs"] >= 1
    assert one["age"]["rounds"] == 0
    assert one["margins"]["least"] >= 1
    assert one["lengths"]["pairs"] == one["pairs"]
    assert one["drift"]["log_ratio_chosen"]["first"] == pytest.approx(0, abs=1e-4)
    with load_run(run / "rounds/1/paths") as fresh:
        models = {path.path.model for item in fresh.assessed(pictures=False) for path in item.paths}
    assert models == {f"hf/{(run / 'rounds/0/policy').absolute()}"}


def test_the_summary_agent_has_met_the_reasoner_it_will_judge(trained: tuple[Path, TrainingResult]) -> None:
    import datasets

    run, _ = trained
    rows = datasets.load_dataset("parquet", data_files=str(run / "rounds/last/set/*.parquet"), split="train")
    models = set(rows["model"])
    assert "tiny/teacher" in models
    assert any(model.startswith("hf/") and "rounds/1/policy" in model for model in models)


def test_what_is_done_is_not_done_again(trained: tuple[Path, TrainingResult], heldout: Path) -> None:
    run, _ = trained
    before = read_ledger(run / DATABASE)
    assert again(run, heldout) == [("kept", "reasoning"), ("kept", "round 1"), ("kept", "summary")]
    assert again(run, heldout, backend_options={"threads": 2}, save_steps=7)[0] == ("kept", "reasoning")
    assert read_ledger(run / DATABASE) == before


def test_what_changed_is_named_and_nothing_is_started(trained: tuple[Path, TrainingResult], heldout: Path) -> None:
    run, _ = trained
    before = (run / "config.toml").read_bytes()
    with pytest.raises(RunChanged) as refused:
        again(run, heldout, learning_rate=3e-4, pairs={"margin": 2})
    assert "reasoning: settings.learning_rate: 0.0001 -> 0.0003" in refused.value.differences
    assert any(difference.startswith("round 1: pairs.margin: 1.0 -> 2.0") for difference in refused.value.differences)
    assert (run / "config.toml").read_bytes() == before


def test_a_longer_recipe_keeps_the_rounds_that_it_shares(
    trained: tuple[Path, TrainingResult], heldout: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    with pytest.raises(RunChanged, match="summary: rounds: 1 -> 2"):
        again(run, heldout, recipe="iterative-dpo", rounds=2)
    told = again(run, heldout, allow_change=True, recipe="iterative-dpo", rounds=2)
    assert told[:2] == [("kept", "reasoning"), ("kept", "round 1")]
    assert told[2:] == [("begin", "round 2"), ("done", "round 2"), ("begin", "summary"), ("done", "summary")]


def test_what_is_gone_is_made_again(trained: tuple[Path, TrainingResult], heldout: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    shutil.rmtree(run / "checkpoints")
    assert again(run, heldout)[-2:] == [("begin", "summary"), ("done", "summary")]
    assert is_complete(run / "checkpoints/reasoning")
    assert is_complete(run / "checkpoints/summary")


def test_external_preferences_stand_in_for_the_policys_own(
    trained: tuple[Path, TrainingResult], heldout: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    other = write_questions(tmp_path / "others", 2, seed=5, split="train")
    rows = [json.loads(line) for line in other.read_text().splitlines()]
    for row in rows:
        image = str(other.parent / row["images"][0])
        row |= {"image": Path(image).name, "chosen": f"It is {row['answer']}.", "rejected": "I do not know."}
        shutil.copy(image, tmp_path)
    file = tmp_path / "pairs.jsonl"
    keys = ("question", "image", "chosen", "rejected")
    file.write_text("".join(json.dumps({key: row[key] for key in keys}) + "\n" for row in rows))
    told = again(run, heldout, allow_change=True, recipe="external", external=str(file))
    assert told[0] == ("kept", "reasoning")
    [_, one, _] = load_run(run).training()
    assert one.name == "round 1"
    assert one.facts.pairs == 2
    assert one.facts.source == str(file)


def test_what_cannot_be_trained_is_refused_at_once(built: Path, heldout: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(built, run)
    with pytest.raises(ConfigError, match=r"train\.base is not set"):
        Pipeline(run=run, settings=settings(base=None)).train()
    with pytest.raises(InputError, match="no directory and no id"):
        Pipeline(run=run, settings=settings(base="/no/where")).train()
    with pytest.raises(InputError, match="held-out questions are trained on too"):
        Pipeline(run=run, settings=settings(heldout=str(built.parent / "questions/questions.jsonl"))).train()
    with pytest.raises(ConfigError, match=r"train\.external is not set"):
        Pipeline(run=run, settings=settings(recipe="external")).train()
    with pytest.raises(ConfigError, match="fsdp2, zero2, zero3"):
        Pipeline(run=run, settings=settings(accelerate_config="zero9")).train()
    with pytest.raises(ConfigError, match="needs processes of its own"):
        Pipeline(run=run, settings=settings(preference={"accelerate_config": "zero3"})).train()
    with pytest.raises(InputError, match="insightv build"):
        Pipeline(run=tmp_path / "none", settings=settings()).train()
    theirs = run / "checkpoints" / "summary" / "notes.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    with pytest.raises(ConfigError, match="insightv did not write"):
        Pipeline(run=run, settings=settings()).train()
    assert theirs.read_text() == "mine"
    assert not (run / "rounds").exists()


@pytest.mark.parametrize(("recipe", "system"), [("direct", "direct-cot"), ("multi-turn", "multi-turn")])
def test_a_model_alone_is_trained_beside_the_agents(
    trained: tuple[Path, TrainingResult], heldout: Path, tmp_path: Path, recipe: str, system: str
) -> None:
    from insightv.evaluate.evaluation import Evaluation

    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    assert again(run, heldout, recipe=recipe) == [("begin", recipe), ("done", recipe)]
    assert is_complete(run / "checkpoints" / recipe)
    assert again(run, heldout)[-1] == ("kept", "summary")  # the two agents are as they were
    [one] = [stage for stage in load_run(run).training() if stage.name == recipe]
    assert one.facts.after is not None
    assert one.facts.after.evaluation.startswith(system)
    assert Evaluation(run, heldout, system=system).run().models


def test_the_summary_agent_alone(trained: tuple[Path, TrainingResult], heldout: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    with pytest.raises(RunChanged, match="summary: rounds: 1 -> 0"):
        again(run, heldout, recipe="summary-only")
    assert again(run, heldout, recipe="summary-only", allow_change=True) == [("begin", "summary"), ("done", "summary")]
    aside = [stage.name for stage in load_run(run).training() if stage.laid_aside]
    assert aside == ["reasoning", "round 1"]
    assert not (run / "checkpoints" / "reasoning").exists()  # the summary agent has not met it
