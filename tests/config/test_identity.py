"""What of a role makes up a run's identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from insightv import ChatModel, ConfigError, Pipeline, Question, ReasoningPath, RunChanged, Score, Scorer, StopRun
from insightv.agents.generator import ProgressiveGenerator
from insightv.config.identity import object_identity, role_identity
from insightv.config.roles import Part
from insightv.config.settings import ScorerTable
from insightv.plugin_guard import models_in
from insightv.plugins import PluginSource
from insightv.testing import ScriptedModel


class OneScorer(Scorer):
    async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
        return [Score(scorer="one", value=1.0) for _ in paths]


@pytest.mark.parametrize(("distribution", "counts"), [("insightv", False), ("zoo-backend", True)])
def test_how_a_model_is_run_is_free_for_our_backends_alone(distribution: str, counts: bool) -> None:
    """A plugin's `batch` may be what its results depend on."""
    part = Part[Scorer](OneScorer(), None, backend=PluginSource("backends", distribution, "1"))
    table = ScorerTable.model_validate(
        {"use": "one", "model": "zoo/x", "backend": {"batch": 8, "threads": 2, "proxy": "none"}}
    )
    assert ("backend" in role_identity(part, table)) is counts


class Lengthy(Scorer):
    def __init__(self, words: int, *, judge: Scorer | None = None, model: ChatModel | None = None) -> None:
        self._most = words
        self.calls = 0

    async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
        self.calls += 1
        return [Score(scorer="lengthy", value=50.0, accepted=True) for _ in paths]


@dataclass
class Declared(Scorer):
    words: int = 5

    async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
        return []


class Learned(Scorer):
    """One whose argument says nothing; it declares what changes its results."""

    def __init__(self, table: object) -> None:
        self.table = table

    @property
    def identity(self) -> dict[str, object]:
        return {"table": 3}

    async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
        return []


class Opaque(Lengthy):
    def __init__(self, table: object) -> None:
        super().__init__(3)
        self.table = table


def test_an_object_is_known_by_the_arguments_that_it_was_made_with() -> None:
    model = ScriptedModel("fine", name="zoo/a")
    scorer = Lengthy(7, judge=Declared(9), model=model)
    scorer.calls = 12
    assert object_identity(scorer) == {
        "words": 7,
        "judge": {"class": "tests.config.test_identity.Declared", "options": {"words": 9}},
        "model": {"model": "zoo/a", "options": {"script": "fine", "name": "zoo/a"}},
    }
    assert object_identity(Learned(object())) == {"table": 3}


def test_an_object_that_cannot_be_known_must_say_its_identity(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Opaque\.table is .*object.*give the class a property `identity`"):
        Pipeline(run=tmp_path / "run", scorers=[Opaque(object())])
    assert not (tmp_path / "run").exists()


def stopped_at_four(run: Path, **parts: Any) -> Pipeline:
    settings = {"seed": 1, "run": {"concurrency": 1, "max_requests": 4}, "generator": {"paths": 1}}
    pipeline = Pipeline(run=run, settings=settings, **parts)
    with pytest.raises(StopRun):
        pipeline.build(QUESTIONS, datasets=False)
    return pipeline


def of(model: str, words: int) -> dict[str, Any]:
    replies = ['{"title": "Look", "content": "It is 4.", "action": "summary"}', '{"answer": "4"}']
    scripted = ScriptedModel(lambda messages, schema: replies[len(messages) > 2], name=model)
    return {"generator": ProgressiveGenerator(scripted, min_steps=1), "scorers": [Lengthy(words)]}


QUESTIONS = [Question(id=f"q{i}", question="How many?", answer="4") for i in range(6)]


@pytest.mark.parametrize(
    ("again", "difference"),
    [(of("zoo/b", 7), "generator.object.model"), (of("zoo/a", 8), "scorers.0.object.words: 7 -> 8")],
)
def test_a_build_of_objects_is_not_resumed_with_other_ones(
    again: dict[str, Any], difference: str, tmp_path: Path
) -> None:
    """Seen: it went on with another model and other options, and finished as one epoch without a word."""
    stopped_at_four(tmp_path / "run", **of("zoo/a", 7))
    settings = {"seed": 1, "generator": {"paths": 1}}
    with pytest.raises(RunChanged) as refused:
        Pipeline(run=tmp_path / "run", settings=settings, **again).build(datasets=False)
    assert difference in str(refused.value)
    same = Pipeline(run=tmp_path / "run", settings=settings, **of("zoo/a", 7))
    assert same.build(datasets=False)["questions"]["done"] == 6


class Mixin:
    def __init__(self, words: int = 5) -> None:
        self.words = words


class Mixed(Mixin, Scorer):
    async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
        return []


def test_an_argument_that_is_its_default_does_not_count() -> None:
    assert object_identity(Lengthy(5, judge=None)) == {"words": 5}


def test_a_constructor_of_another_class_must_be_declared() -> None:
    with pytest.raises(ConfigError, match=r"Mixed was made with is not known; give the class a property `identity`"):
        object_identity(Mixed(1))


def test_models_that_say_other_things_are_other_models() -> None:
    def identity(script: Any) -> Any:
        return object_identity(Lengthy(3, model=ScriptedModel(script)))["model"]

    assert identity(lambda messages, schema: "a") != identity(lambda messages, schema: "b")


def test_a_model_of_an_object_is_put_into_the_journal_once() -> None:
    scorer = Lengthy(3, model=ScriptedModel("fine"))
    assert list(models_in(scorer)) == []  # it holds none under a name of its own
    scorer.model = ScriptedModel("fine")  # type: ignore[attr-defined]
    assert len(list(models_in(scorer))) == 1
