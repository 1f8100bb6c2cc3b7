"""What `[train]` says, and what of it is refused before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from insightv.config.file import write_settings
from insightv.config.settings import check_settings, load_settings
from insightv.errors import ConfigError
from insightv.pipeline import Pipeline
from insightv.runs.stage_facts import StageId
from insightv.train.plan import TrainingPlan
from insightv.train.recipes import agent_settings, check_train, course_of


def test_a_recipe_is_one_word() -> None:
    rounds = {
        "multi-agent": 0,
        "dpo": 1,
        "iterative-dpo": 3,
        "external": 1,
        "direct": 0,
        "multi-turn": 0,
        "summary-only": 0,
    }
    for recipe, number in rounds.items():
        assert course_of(check_settings({"train": {"recipe": recipe}})).rounds == number
    agents = {name: course_of(check_settings({"train": {"recipe": name}})).agents for name in rounds}
    assert agents["multi-agent"] == ("reasoning", "summary")
    assert agents["dpo"] == ("reasoning", "preference", "summary")
    assert (agents["summary-only"], agents["direct"]) == (("summary",), ("direct",))
    assert course_of(check_settings({})).rounds == 3
    assert course_of(check_settings({"train": {"rounds": 2}})).rounds == 2
    assert course_of(check_settings({"train": {"recipe": "dpo", "rounds": 2}})).rounds == 1


def test_another_trainer_takes_its_own_options() -> None:
    Pipeline(run="nowhere", generator="tiny", trainer={"use": "mine", "alpha": 1})
    with pytest.raises(ConfigError, match="training setting alpha: unknown"):
        Pipeline(run="nowhere", generator="tiny", trainer={"use": "dpo", "alpha": 1})


def test_an_agents_own_settings_come_last() -> None:
    table = {"epochs": 3, "learning_rate": 1e-3, "summary": {"learning_rate": 2e-3}, "multi-turn": {"epochs": 5}}
    settings = check_settings({"seed": 5, "train": table})
    assert (agent_settings(settings, "reasoning").learning_rate, agent_settings(settings, "reasoning").epochs) == (
        1e-3,
        3,
    )
    assert agent_settings(settings, "summary").learning_rate == 2e-3
    assert agent_settings(settings, "multi-turn").epochs == 5
    assert agent_settings(settings, "preference").seed == 5
    paper = check_settings({"train": {"preset": "paper"}})
    assert agent_settings(paper, "reasoning").learning_rate == 5e-6
    assert agent_settings(paper, "preference").learning_rate == 5e-7


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"recipee": "dpo"}, "recipee"),
        ({"learning_rat": 1}, "learning_rate"),
        ({"preference": {"betta": 1}}, "did you mean 'beta'"),
        ({"generation": {"path": 3}}, "paths"),
        ({"pairs": {"margin": 0}}, "margin"),
        ({"recipe": "magic"}, "recipe"),
        ({"preset": "none"}, "preset"),
        ({"trl": {"max_length": 5}}, "never cut"),
        ({"preference": {"lora_rank": 64}}, "lora_rank = 64, and the rounds continue .* has 16; set both alike"),
    ],
)
def test_what_is_wrong_is_refused_before_a_build(tmp_path: Path, table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pipeline(run=tmp_path / "run", generator="tiny/teacher", settings=check_settings({"train": table}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "table",
    [
        {"lora_rank": 64},
        {"preference": {"lora_rank": 64, "continue_adapter": False}},
        {"method": "full", "preference": {"lora_rank": 64}},
        {"recipe": "multi-agent", "preference": {"lora_rank": 64}},
    ],
)
def test_adapters_of_another_shape_are_taken_where_none_is_gone_on_with(table: dict[str, object]) -> None:
    check_train(check_settings({"train": table}))


def test_settings_of_training_come_back_from_their_file(tmp_path: Path) -> None:
    table = {"recipe": "dpo", "epochs": 2.5, "pairs": {"margin": 5}, "multi-turn": {"epochs": 1.5}, "child": False}
    settings = check_settings({"train": table})
    write_settings(settings, tmp_path / "config.toml")
    again = load_settings(tmp_path / "config.toml", ["train.rounds=1"])
    assert again.train == settings.train.model_copy(update={"rounds": 1})


def test_a_stage_is_known_as_in_the_ledgers_of_before() -> None:
    def made_with(**datasets: object) -> dict[str, object]:
        settings = check_settings({"datasets": datasets})
        plan = TrainingPlan(settings, course_of(settings), "base", "its hash", "the run's hash", None, None)
        found: dict[str, object] = plan.stages()[StageId("reasoning")]["datasets"]
        return found

    before = ["best_per_question", "general", "general_share", "summary_mix", "summary_per_question", "summary_total"]
    assert sorted(made_with()) == before
    assert made_with(general_columns={"question": "query"}) != made_with()
