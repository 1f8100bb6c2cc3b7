"""The pipeline from Python: roles as objects and by name, resume at the call, replay, datasets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from insightv import (
    ConfigError,
    Generator,
    ModelError,
    Pipeline,
    PreferencePair,
    PreferenceTrainer,
    Question,
    ReasoningPath,
    RunChanged,
    Score,
    Scorer,
    Step,
    load_run,
)
from insightv.agents.generator import ProgressiveGenerator
from insightv.assess.answer import AnswerScorer
from insightv.config import check_settings
from insightv.records import Message, Schema
from insightv.testing import ScriptedModel
from tests.servers.fake_openai import FakeServer, Settings
from tests.world import check_balance, insightv, path_rows, write_questions

STEPS = ("continue", "summary")
SETTINGS = check_settings({"generator": {"paths": 2}})


def reply(messages: Sequence[Message], schema: Schema | None) -> str:
    """What a scripted model says, by the name of the schema asked for."""
    if schema is not None and schema.name == "final_answer":
        return json.dumps({"answer": "42"})
    turn = sum(message.role == "assistant" for message in messages)
    content = ("The left bar ends at forty.", "Two more make forty-two.")[turn]
    return json.dumps({"title": f"Step {turn + 1}", "content": content, "action": STEPS[turn]})


class Same(PreferenceTrainer):
    """Trains nothing: hands the policy back."""

    def train(self, policy: Path, pairs: Sequence[PreferencePair], out: Path) -> Path:
        return policy


class Length(Scorer):
    """One point for a character of the last step; a scorer without a model."""

    async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
        return [Score(scorer="length", value=float(len(path.steps[-1].content)), accepted=True) for path in paths]


QUESTIONS = [Question(id=f"q{i}", question=f"How high is bar {i}?", answer="42" if i % 2 else "7") for i in range(6)]


def test_what_is_no_role_is_refused_at_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match="generator is a Length; give a Generator"):
        Pipeline(run=run, generator=Length())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"scorers\.1 is a ProgressiveGenerator; give a Scorer"):
        Pipeline(run=run, scorers=["answer", ProgressiveGenerator(ScriptedModel(reply))])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="scorers is one scorer; give a list"):
        Pipeline(run=run, scorers=Length())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="did you mean 'base_url'"):
        Pipeline(run=run, generator={"model": "openai/x", "base_ulr": "http://localhost:1/v1"}).build(QUESTIONS)
    with pytest.raises(ConfigError, match="did you mean 'paths'"):
        Pipeline(run=run, generator={"model": "openai/x", "pathz": 4}).build(QUESTIONS)


def test_a_trainer_is_an_object_a_name_or_a_table(tmp_path: Path) -> None:
    named = Pipeline(run=tmp_path, trainer="dpo").settings.train
    assert (named.trainer, named.preference) == ("dpo", {})
    table = Pipeline(run=tmp_path, trainer={"use": "dpo", "beta": 0.2}).settings.train
    assert (table.trainer, table.preference) == ("dpo", {"beta": 0.2})
    assert Pipeline(run=tmp_path, trainer=Same()).settings.train.trainer.endswith(".Same")
    with pytest.raises(ConfigError, match="trainer is a Length; give a PreferenceTrainer"):
        Pipeline(run=tmp_path, trainer=Length())  # type: ignore[arg-type]


def test_objects_are_roles_and_their_models_are_in_the_journal(tmp_path: Path) -> None:
    model = ScriptedModel(reply)
    generator = ProgressiveGenerator(model)

    def build() -> dict[str, object]:
        pipeline = Pipeline(run=tmp_path / "run", generator=generator, scorers=["answer", Length()], settings=SETTINGS)
        return pipeline.build(QUESTIONS, datasets=False)

    status = build()
    assert status["bands"] == {"high": 0, "mid": 0, "low": 6, "wrong": 6, "unscored": 0}
    asked = len(model.asked)
    assert asked > 0
    again = build()
    assert {**again, "elapsed_s": 0} == {**status, "elapsed_s": 0}
    assert len(model.asked) == asked  # everything came from the record
    with pytest.raises(ConfigError, match="ProgressiveGenerator"):
        Pipeline.from_config(run=tmp_path / "run").build(QUESTIONS)


def test_the_calls_of_a_judge_given_as_an_object_are_in_the_journal(tmp_path: Path) -> None:
    judge = ScriptedModel('{"correct": true, "reason": "The same."}')
    scorers = [AnswerScorer(judge)]
    generator = ProgressiveGenerator(ScriptedModel(reply))
    asked = [Question(id="q", question="What is shown?", answer="a harbour at dusk")]
    Pipeline(run=tmp_path / "run", generator=generator, scorers=scorers, settings=SETTINGS).build(asked, datasets=False)
    assert len(judge.asked) == 1
    with load_run(tmp_path / "run") as run:
        assert sum(call["kind"] == "answer_verdict" for call in run.calls()) == 1


def test_a_role_that_breaks_its_contract_costs_its_questions_only(tmp_path: Path) -> None:
    class Odd(Generator):
        async def generate(self, question: Question, n: int, *, seed: int = 0) -> list[ReasoningPath]:
            if question.id == "q0":
                raise ModelError("oom", "no memory left")
            if question.id == "q1":
                raise KeyError("a bug")
            if question.id == "q2":
                return []
            step = Step(title="Look", content="It is 42.", action="summary")
            paths = [
                ReasoningPath(question_id=question.id, index=i, status="ok", steps=(step,), answer="42")
                for i in range(n)
            ]
            return paths[::-1] if question.id == "q3" else paths

    pipeline = Pipeline(run=tmp_path / "run", generator=Odd(), scorers=["answer"], settings=SETTINGS)
    status = pipeline.build(QUESTIONS, datasets=False)
    check_balance(tmp_path / "run")
    assert status["paths"]["by_code"] == {"generator_error": 6, "oom": 2}
    assert status["paths"]["ok"] == 4


def test_questions_that_differ_from_the_run_are_named(tmp_path: Path) -> None:
    def build(questions: list[Question], **options: bool) -> dict[str, object]:
        generator = ProgressiveGenerator(ScriptedModel(reply))
        pipeline = Pipeline(run=tmp_path / "run", generator=generator, scorers=["answer"], settings=SETTINGS)
        return pipeline.build(questions, datasets=False, **options)

    build(QUESTIONS[:3])
    other = [QUESTIONS[0], QUESTIONS[1].model_copy(update={"answer": "8"}), QUESTIONS[4]]
    with pytest.raises(RunChanged) as refused:
        build(other)
    assert refused.value.differences == (
        "question 'q4': is new",
        "question 'q1': its content has changed",
        "question 'q2': is not in the file any more",
    )
    status = build(other, allow_change=True)
    assert status["questions"] == {"total": 3, "done": 3, "bad_rows": 0}
    assert status["bands"] == {"high": 0, "mid": 0, "low": 0, "wrong": 6, "unscored": 0}
    with load_run(tmp_path / "run") as run:
        assert len(run.epochs()) == 2
        old = run._connection.execute("SELECT DISTINCT epoch FROM paths ORDER BY 1").fetchall()
    assert old == [(1,), (2,)]  # the old rows of q1 are kept under their epoch


def test_a_run_can_be_replayed_without_a_server(tmp_path: Path) -> None:
    questions = write_questions(tmp_path, 6)
    table = {"use": "answer"}
    with FakeServer(Settings(wrong=0.3)) as server:
        first = Pipeline(
            run=tmp_path / "first",
            generator={"model": "openai/fake", "base_url": server.base_url, "paths": 3},
            scorers=[table],
        )
        first.build(questions)
    made = insightv(
        "export", "--run", tmp_path / "first", "--what", "calls", "--out", tmp_path / "calls.jsonl", "--json"
    )
    assert json.loads(made.stdout)["rows"] == first.status()["requests"]
    again = Pipeline(
        run=tmp_path / "again", generator={"model": f"replay/{tmp_path / 'calls.jsonl'}", "paths": 3}, scorers=[table]
    )
    again.build(questions)
    unequal = {"model", "calls"}

    def rows(run: str) -> list[dict[str, object]]:
        return [{key: value for key, value in row.items() if key not in unequal} for row in path_rows(tmp_path / run)]

    assert rows("again") == rows("first")


def test_the_sets_hold_what_the_bands_say(tmp_path: Path) -> None:
    import datasets

    questions = write_questions(tmp_path, 30)
    with FakeServer(Settings(wrong=0.3)) as server:
        model = {"model": "openai/fake", "base_url": server.base_url}
        pipeline = Pipeline(
            run=tmp_path / "run",
            generator={**model, "paths": 4},
            scorers=[{"use": "answer"}, {"use": "path", **model}],
            settings=check_settings({"datasets": {"best_per_question": 2, "licence": "CC0-1.0"}}),
        )
        pipeline.build(questions)
    folder = tmp_path / "run" / "datasets"
    reason = datasets.load_dataset("parquet", data_files=str(folder / "reason" / "*.parquet"), split="train")
    summary = datasets.load_dataset("parquet", data_files=str(folder / "summary" / "*.parquet"), split="train")
    rows = {(row["question_id"], row["path"]): row for row in path_rows(tmp_path / "run")}
    assert len(reason) > 0
    for row in reason:
        assert rows[row["question_id"], row["path"]]["band"] == "high"
        assert row["completion"][0]["content"][0]["text"].startswith("<thoughts>")
        assert row["images"][0].size == (40, 30)
    assert {row["band"] for row in summary} == {"high", "mid", "low", "wrong"}
    card = (folder / "summary" / "README.md").read_text(encoding="utf-8")
    assert "CC0-1.0" in card
    hashes = yaml.safe_load(card.split("---")[1])["insightv"]["prompts"]
    assert len(set(hashes.values())) == len(hashes) == 9  # each prompt has a hash of its own
