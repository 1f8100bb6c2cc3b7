"""The pipeline from Python: roles as objects and by name, resume at the call, replay, datasets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas
import pytest
import yaml

from insightv import (
    Answer,
    ChatModel,
    Completion,
    ConfigError,
    Generator,
    InputError,
    ModelError,
    Pipeline,
    PreferencePair,
    PreferenceTrainer,
    Question,
    Reasoner,
    ReasoningPath,
    RunChanged,
    Score,
    Scorer,
    Step,
    SummaryAgent,
    load_run,
)
from insightv.agents.generator import ProgressiveGenerator
from insightv.assess.answer import AnswerScorer
from insightv.config.roles import agent_table
from insightv.config.settings import check_settings
from insightv.inputs.questions import BadRows
from insightv.records import Message, Picture, Sampling, Schema
from insightv.runs.session import Snapshot
from insightv.runs.status import RunStatus
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
    with pytest.raises(ConfigError, match="generator is the class Length; give a Generator"):
        Pipeline(run=run, generator=Length)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"backend\.client is of type object, which settings cannot hold"):
        Pipeline(run=run, generator={"model": "openai/x", "backend": {"client": object()}})
    with pytest.raises(ConfigError, match="did you mean 'base_url'"):
        Pipeline(run=run, generator={"model": "openai/x", "base_ulr": "http://localhost:1/v1"}).build(QUESTIONS)
    with pytest.raises(ConfigError, match="did you mean 'paths'"):
        Pipeline(run=run, generator={"model": "openai/x", "pathz": 4}).build(QUESTIONS)


def test_a_text_is_the_name_of_a_part_or_of_a_model(tmp_path: Path) -> None:
    named = Pipeline(run=tmp_path, generator="tiny", reasoning_agent="openai/x", summary_agent="summary").settings
    assert (named.generator.use, named.generator.model) == ("progressive", "tiny")
    assert (named.reasoning_agent.use, named.reasoning_agent.model) == ("thoughts", "openai/x")
    assert (named.summary_agent.use, named.summary_agent.model) == ("summary", None)
    assert Pipeline(run=tmp_path, generator="progresive").settings.generator.use == "progresive"  # no model either


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"generator": {"model": "openai/x", "pahts": 1}}, "no option 'pahts'; did you mean 'paths'?"),
        ({"summary_agent": {"temprature": 1}}, "did you mean 'temperature'?"),
        ({"scorers": [{"use": "answer", "base_url": "http://localhost:1/v1"}]}, "has base_url, which is for its model"),
        ({"train": {"recpie": "dpo"}}, "unknown key 'train.recpie'; did you mean 'recipe'?"),
        ({"train": {"reasonin": {"epochs": 1}}}, "unknown key 'train.reasonin'; did you mean 'reasoning'?"),
    ],
)
def test_an_unknown_key_is_refused_when_the_pipeline_is_made(
    table: dict[str, object], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        Pipeline(run=tmp_path / "run", settings=check_settings(table))
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"max_steps": 2.5}, "max_steps = 2.5: it is the most steps"),
        ({"tries": 1.5}, "tries = 1.5: it is the number of calls"),
        ({"extra": {"seed": 1}}, "extra = {'seed': 1}: it holds seed, which insightv sets itself"),
    ],
)
def test_an_option_of_the_wrong_type_is_refused_before_anything_is_asked(
    change: dict[str, object], says: str, tmp_path: Path
) -> None:
    with FakeServer() as server:
        generator = {"model": "openai/fake", "base_url": server.base_url, **change}
        with pytest.raises(ConfigError) as refused:
            Pipeline(run=tmp_path / "run", generator=generator).build(QUESTIONS)
        assert says in str(refused.value)
        assert server.log() == []


def test_an_agent_without_a_model_asks_the_generators_as_its_own_table_says(tmp_path: Path) -> None:
    generator = {"model": "openai/x", "base_url": "http://localhost:1/v1", "api_key_env": "FIRST"}
    pipeline = Pipeline(run=tmp_path, generator=generator, summary_agent={"base_url": "http://localhost:2/v1"})
    asked = agent_table(pipeline.settings, pipeline.settings.summary_agent)
    assert (asked.model, asked.base_url, asked.api_key_env) == ("openai/x", "http://localhost:2/v1", "FIRST")


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

    def build() -> RunStatus:
        pipeline = Pipeline(run=tmp_path / "run", generator=generator, scorers=["answer", Length()], settings=SETTINGS)
        return pipeline.build(QUESTIONS, datasets=False)

    status = build()
    assert status.bands == {"high": 0, "mid": 0, "low": 6, "wrong": 6, "unscored": 0}
    asked = len(model.asked)
    assert asked > 0
    again = build()
    assert {**again.as_json(), "elapsed_s": 0} == {**status.as_json(), "elapsed_s": 0}
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


def test_an_answer_check_given_as_an_object_makes_paths_wrong_like_one_by_name(tmp_path: Path) -> None:
    for name, scorer in (("named", "answer"), ("object", AnswerScorer())):
        generator = ProgressiveGenerator(ScriptedModel(reply))
        pipeline = Pipeline(run=tmp_path / name, generator=generator, scorers=[scorer, Length()], settings=SETTINGS)
        status = pipeline.build(QUESTIONS, datasets=False)
        assert status.bands == {"high": 0, "mid": 0, "low": 6, "wrong": 6, "unscored": 0}
        scorers = {score["scorer"] for row in path_rows(tmp_path / name) for score in row["scores"]}
        assert scorers == {"answer", "length"}
    with pytest.raises(BadRows, match="no answer"):
        Pipeline(run=tmp_path / "none", scorers=[AnswerScorer()], generator=generator, settings=SETTINGS).build(
            [Question(id="q", question="How high?")]
        )


def test_models_within_lists_and_slots_are_in_the_journal(tmp_path: Path) -> None:
    class Panel(Scorer):
        """The mean of what several judges say."""

        __slots__ = ("chair", "judges")

        def __init__(self, chair: ScriptedModel, judges: list[ScriptedModel]) -> None:
            self.chair, self.judges = chair, {"all": judges}

        async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
            said = [
                (await model.chat([Message(role="user", content=question.text)], Sampling()))[0].text
                for model in (self.chair, *self.judges["all"])
            ]
            return [Score(scorer="panel", value=sum(map(float, said)) / len(said), accepted=True)] * len(paths)

    judges = [ScriptedModel(value) for value in ("70", "80", "90")]
    for judge, name in zip(judges, ("one", "two", "three"), strict=True):
        judge.name = f"scripted/{name}"
    generator = ProgressiveGenerator(ScriptedModel(reply))
    for _ in range(2):
        panel = Panel(judges[0], judges[1:])
        pipeline = Pipeline(run=tmp_path / "run", generator=generator, scorers=["answer", panel], settings=SETTINGS)
        pipeline.build(QUESTIONS, datasets=False)
    assert [len(judge.asked) for judge in judges] == [3, 3, 3]
    with load_run(tmp_path / "run") as run:
        assert sum(call["kind"] == "text" for call in run.calls()) == 9


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
    assert status.paths.by_code == {"generator_error": 6, "oom": 2}
    assert status.paths.ok == 4


def test_questions_that_differ_from_the_run_are_named(tmp_path: Path) -> None:
    def build(questions: list[Question], allow_change: bool = False) -> RunStatus:
        generator = ProgressiveGenerator(ScriptedModel(reply))
        pipeline = Pipeline(run=tmp_path / "run", generator=generator, scorers=["answer"], settings=SETTINGS)
        return pipeline.build(questions, datasets=False, allow_change=allow_change)

    build(QUESTIONS[:3])
    other = [QUESTIONS[0], QUESTIONS[1].model_copy(update={"answer": "8"}), QUESTIONS[4]]
    with pytest.raises(RunChanged) as refused:
        build(other)
    assert refused.value.differences == (
        "question 'q4': is new",
        'question \'q1\': answer: "42" -> "8"',
        "question 'q2': is not in the file any more",
    )
    status = build(other, allow_change=True)
    assert status.questions.model_dump() == {"total": 3, "done": 3, "bad_rows": 0}
    assert status.bands == {"high": 0, "mid": 0, "low": 0, "wrong": 6, "unscored": 0}
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
    assert json.loads(made.stdout)["rows"] == first.status().requests
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


class Late(ScriptedModel):
    """Takes its time over each reply."""

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        await asyncio.sleep(0.3)
        return await super().chat(messages, sampling, n=n, schema=schema)


def test_what_watches_a_build_and_fails_ends_it_resumable(tmp_path: Path) -> None:
    def watch(snapshot: Snapshot) -> None:
        if snapshot.phase == "building" and snapshot.requests:
            raise RuntimeError("the bar broke")

    pipeline = Pipeline(run=tmp_path / "run", settings=SETTINGS, generator=ProgressiveGenerator(Late(reply)))
    with pytest.raises(RuntimeError, match="the bar broke"):
        pipeline.build(QUESTIONS, datasets=False, watch=watch)
    assert pipeline.status().requests > 0
    assert pipeline.build(datasets=False).paths.ok == 12

    async def unheard(snapshot: Snapshot) -> None:
        """Nobody would await this."""

    with pytest.raises(ConfigError, match="watch is an async function"):
        pipeline.build(watch=unheard)  # type: ignore[arg-type]


def test_an_interrupted_cell_leaves_the_run_free(tmp_path: Path) -> None:
    pipeline = Pipeline(run=tmp_path / "run", settings=SETTINGS, generator=ProgressiveGenerator(Late(reply)))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
    threading.Timer(0.8, os.kill, [os.getpid(), signal.SIGINT]).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            pipeline.build(QUESTIONS, datasets=False)
    finally:
        signal.signal(signal.SIGINT, before)
    assert pipeline.build(datasets=False).paths.ok == 12


class Client:
    """Somebody's own object around a model."""

    def __init__(self, model: ChatModel) -> None:
        self.model = model


class Hidden(Scorer):
    def __init__(self, client: Client) -> None:
        self.client = client

    @property
    def identity(self) -> dict[str, str]:
        return {"model": self.client.model.name}

    async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
        message = Message(role="user", content=question.text)
        said = (await self.client.model.chat([message], Sampling()))[0].text
        return [Score(scorer="hidden", value=float(said), accepted=True)] * len(paths)


class Declared(Hidden):
    @property
    def models(self) -> dict[str, ChatModel]:
        return {"judge": self.client.model}

    def with_models(self, models: Mapping[str, ChatModel]) -> Declared:
        return Declared(Client(models["judge"]))


def test_a_model_within_somebodys_object_is_declared_or_refused(tmp_path: Path) -> None:
    judge, generator = ScriptedModel("80"), ProgressiveGenerator(ScriptedModel(reply))

    def build(scorer: Scorer) -> None:
        parts: dict[str, Any] = {"generator": generator, "scorers": ["answer", scorer], "settings": SETTINGS}
        Pipeline(run=tmp_path / "run", **parts).build(QUESTIONS, datasets=False)

    with pytest.raises(ConfigError, match=r"Hidden holds a model within its client.*`models` and `with_models`"):
        build(Hidden(Client(judge)))
    assert not (tmp_path / "run").exists()
    build(Declared(Client(judge)))
    asked = len(judge.asked)
    assert asked == 3
    with load_run(tmp_path / "run") as run:
        assert sum(call["kind"] == "text" for call in run.calls()) == 3
    build(Declared(Client(judge)))
    assert len(judge.asked) == asked


@pytest.mark.parametrize(
    ("questions", "says"),
    [
        (QUESTIONS[0], "questions is one question; give a list"),
        ({"id": "q", "question": "How high?"}, "questions is one question; give a list"),
        (pandas.DataFrame({"id": ["a"]}), r"pandas DataFrame; give its rows: frame\.to_dict"),
        (5, "questions is of type int; give a file's path, or an iterable"),
    ],
)
def test_what_are_no_questions_is_said(questions: Any, says: str, tmp_path: Path) -> None:
    pipeline = Pipeline(run=tmp_path / "run", settings=SETTINGS, generator=ProgressiveGenerator(ScriptedModel(reply)))
    with pytest.raises(InputError, match=says):
        pipeline.build(questions)
    with pytest.raises(ConfigError, match='bad_rows is \'ignore\'; it is "stop" or "skip"'):
        pipeline.build(QUESTIONS, bad_rows="ignore")  # type: ignore[arg-type]


def test_settings_may_be_a_table(tmp_path: Path) -> None:
    assert Pipeline(run=tmp_path, settings={"generator": {"paths": 3}}).settings.generator.paths == 3
    with pytest.raises(ConfigError, match="did you mean 'generator'"):
        Pipeline(run=tmp_path, settings={"generater": {"paths": 3}})


def test_a_dataset_object_is_read_with_its_images(tmp_path: Path) -> None:
    import datasets
    from PIL import Image

    rows: dict[str, Any] = {"id": ["a", "b"], "question": ["How high?"] * 2, "answer": ["42", "7"]}
    rows["images"] = [[Image.new("RGB", (40, 30), colour)] for colour in ("red", "blue")]
    model = ScriptedModel(reply)
    pipeline = Pipeline(run=tmp_path / "run", settings=SETTINGS, generator=ProgressiveGenerator(model))
    status = pipeline.build(datasets.Dataset.from_dict(rows), datasets=False)
    assert status.paths.ok == 4
    seen = {part.sha256 for asked in model.asked for part in asked.messages[-1].parts if isinstance(part, Picture)}
    seen |= {part.sha256 for asked in model.asked for part in asked.messages[1].parts if isinstance(part, Picture)}
    assert len(seen) == 2


def test_a_run_of_objects_says_what_its_reasoner_needs(tmp_path: Path) -> None:
    class Mine(SummaryAgent):
        async def summarize(self, question: Question, path: ReasoningPath) -> Answer:
            return Answer(text="42")

    generator = ProgressiveGenerator(ScriptedModel(reply))
    Pipeline(run=tmp_path / "a", generator=generator, settings=SETTINGS).build(QUESTIONS[:1])
    with pytest.raises(ConfigError, match=r"agent 'thoughts' needs a model; set its model, or that of \[generator\]"):
        Reasoner.load(tmp_path / "a")
    agents: dict[str, Any] = {"reasoning_agent": {"model": "tiny"}, "summary_agent": Mine()}
    Pipeline(run=tmp_path / "b", generator=generator, **agents).build(QUESTIONS[:1])
    with pytest.raises(ConfigError, match=r"SummaryAgent of this run was an object of .*Mine; give such objects again"):
        Reasoner.load(tmp_path / "b")
