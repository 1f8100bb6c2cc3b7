"""What is wrong with the settings of datasets and agents is said before anything is paid for or trained."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from insightv import Pipeline
from insightv.backends.checkpoints import identity_of
from insightv.backends.model_folder import embedded_weights
from insightv.cli.train import train_settings
from insightv.config.settings import Settings, check_settings
from insightv.errors import ConfigError, InputError, PluginError
from insightv.inputs.questions import QuestionFile, read_questions
from insightv.runs.status import PathCounts, QuestionCounts, RunStatus, TokenCounts
from insightv.train import row_sets
from insightv.train.heldout import read_heldout
from insightv.train.plan import plan_of
from insightv.train.row_sets import read_general
from insightv.train.run_datasets import why_empty
from tests.servers.fake_openai import FakeServer
from tests.world import build_args, insightv, write_questions, write_settings

TOLD = [
    ('datasets.general="nope.jsonl"', "the questions file 'nope.jsonl' does not exist"),
    ("datasets.summary_mix={high=0}", "must have shares of at least 0, and one above 0"),
    ("datasets.summary_mix={hihg=1}", "did you mean 'high'?"),
    ('reasoning_agent.tags=["<a>","<a>"]', "tags"),
    ("reasoning_agent.temprature=1", "agent 'thoughts' has no option 'temprature'; did you mean 'temperature'?"),
    ("summary_agent.sytem_prompt=x", "did you mean 'system_prompt'?"),
    ("summary_agent.system_prompt=5", "[summary_agent]: system_prompt is a text"),
]


@pytest.mark.parametrize(("change", "says"), TOLD)
def test_a_build_says_it_before_the_first_request(change: str, says: str, tmp_path: Path) -> None:
    with FakeServer() as server:
        questions, settings = write_questions(tmp_path, 2), write_settings(tmp_path, server.base_url)
        args = [arg for arg in build_args(questions, settings, tmp_path / "run") if arg != "--no-datasets"]
        done = insightv(*args, "--set", change, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert says in done.stderr.replace("\n", " ")
        assert server.log() == []
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    with FakeServer() as server:
        questions, settings = write_questions(folder, 6), write_settings(folder, server.base_url)
        assert insightv(*build_args(questions, settings, folder / "run")).returncode == 0
    return folder


def training(built: Path, **train: object) -> Settings:
    table = {"base": "tiny/base", "child": False, "device": "cpu"} | train
    return check_settings({"train": table, "datasets": table.pop("datasets", {})})


def hub_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub, out of its reach, with one model in two commits; "main" is the second. Returns the first."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = folder / "models--owner--charts"
    for commit in ("a" * 40, "b" * 40):
        shutil.copytree(embedded_weights("base"), model / "snapshots" / commit)
    config = model / "snapshots" / ("b" * 40) / "config.json"
    config.write_text(config.read_text() + "\n")
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("b" * 40)
    return model / "snapshots" / ("a" * 40)


def test_a_model_of_the_hub_is_held_to_a_commit(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hub_cache(tmp_path / "hub", monkeypatch)

    def plan(**train: object) -> tuple[str, str]:
        made = plan_of(training(built, recipe="dpo", base="owner/charts", **train), built / "run")
        return made.base, made.base_identity

    newest = plan()
    assert plan(revision="main") == newest == (str(first.with_name("b" * 40)), newest[1])
    assert plan(revision="a" * 40) == (str(first), identity_of(first))
    assert newest[1] != identity_of(first)
    with pytest.raises(InputError, match="at the revision 'v9' cannot be had"):
        plan(revision="v9")
    (first / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"train\.base = 'owner/charts' holds an adapter"):
        plan(revision="a" * 40)


def test_a_base_that_reaches_out_of_its_directory_is_refused(built: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(embedded_weights("base"), tmp_path / "base"))
    (base / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}')
    with pytest.raises(InputError, match="no file of its own"):
        plan_of(training(built, recipe="dpo", base=str(base)), built / "run")


@pytest.mark.parametrize(
    ("train", "kind", "says"),
    [
        ({"revision": "main"}, ConfigError, "is for a model of the hub, and 'tiny/base' is none"),
        ({"base": "owner/no/such"}, InputError, "no directory and no id"),
        ({"engine": "hff"}, PluginError, "did you mean 'hf'"),
        ({"backend_options": {"thread": 1}}, ConfigError, "did you mean 'threads'?"),
        ({"preference": {"losses": ["sigmod"]}}, ConfigError, "did you mean 'sigmoid'?"),
        ({"preference": {"trl": {"foo": 1}}}, ConfigError, r"trl\.foo is no option of TRL's"),
        ({"preference": {"trl": {"loss_type": ["ipo"]}}}, ConfigError, "use the setting losses"),
        ({"learning_rate": float("inf")}, ConfigError, "learning_rate"),
        ({"datasets": {"general": "nope.jsonl"}}, InputError, "does not exist"),
        ({"datasets": {"summary_mix": {"high": 0}}}, ConfigError, "one above 0"),
    ],
)
def test_a_training_says_it_before_its_first_step(
    built: Path, train: dict[str, object], kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        plan_of(training(built, recipe="dpo", **train), built / "run")


@pytest.mark.parametrize("recipe", ["direct", "multi-turn"])
def test_a_recipe_is_held_to_the_tables_of_its_own_agents(built: Path, recipe: str) -> None:
    wrong = {"trl": {"foo": 1}}
    with pytest.raises(ConfigError, match=rf"\[train\.{recipe}\]: trl\.foo is no option of TRL's"):
        plan_of(training(built, recipe=recipe, **{recipe: wrong}), built / "run")
    others = {agent: wrong for agent in ("reasoning", "preference", "summary")}
    assert plan_of(training(built, recipe=recipe, **others), built / "run").course.agents == (recipe,)


def test_a_run_whose_scorers_give_no_values_is_told_so(tmp_path: Path) -> None:
    with FakeServer() as server:
        settings = write_settings(tmp_path, server.base_url, path_scorer=False)
        assert insightv(*build_args(write_questions(tmp_path, 3), settings, tmp_path / "run")).returncode == 0
    train = ["train", "--run", tmp_path / "run", "--base", "tiny/base", "--recipe", "multi-agent"]
    done = insightv(*train, "--set", "train.child=false")
    assert done.returncode == 2, done.stderr
    told = " ".join(done.stderr.split())
    assert "paths are in no band, as none of the [[scorers]] (answer) gives a value; build a run with one" in told


@pytest.mark.parametrize(
    ("paths", "bands", "unjudged", "says"),
    [
        ({"ok": 0, "rejected": 3, "failed": 1}, {}, 0, "none of its 4 paths can be used (3 rejected, 1 failed)"),
        ({"ok": 4}, {"unscored": 4}, 4, "as 4 scores could not be given"),
        ({"ok": 4}, {"unscored": 1, "low": 3}, 1, "no path is good enough"),
        ({"ok": 4}, {"wrong": 4}, 0, "no path is good enough"),
    ],
)
def test_an_empty_set_is_told_with_its_cause(
    paths: dict[str, int], bands: dict[str, int], unjudged: int, says: str
) -> None:
    whole = {"total": sum(paths.values()), "rejected": 0, "failed": 0, "by_code": {}} | paths
    sorted_ = dict.fromkeys(("high", "mid", "low", "wrong", "unscored"), 0) | bands
    status = RunStatus(
        questions=QuestionCounts(total=1, done=1, bad_rows=0),
        paths=PathCounts.model_validate(whole),
        bands=sorted_,
        requests=0,
        tokens=TokenCounts(prompt=0, cached=0, completion=0),
        usd=0,
        elapsed_s=0,
        unjudged=unjudged,
        unjudged_by_code={},
        setbacks={},
        faults={},
    )
    assert says in why_empty(status, ["answer", "path"])


def test_pairs_of_somebody_else_that_cannot_be_used_are_named_beforehand(built: Path, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"question": "Which?", "images": [], "chosen": "a", "rejected": "a"}) + "\n")
    with pytest.raises(InputError, match=r"1 bad pairs\n.*the same as chosen"):
        plan_of(training(built, recipe="external", external=str(file)), built / "run")


def rewritten(built: Path, folder: Path, **changes: object) -> Path:
    """The run's questions with other ids, and more changes; in a folder with the same pictures."""
    shutil.copytree(built / "images", folder / "images")
    rows = [json.loads(line) for line in (built / "questions.jsonl").read_text("utf-8").splitlines()]
    file = folder / "heldout.jsonl"
    texts = [json.dumps(row | {"id": f"h{i}", "meta": {"family": "x"}} | changes) for i, row in enumerate(rows)]
    file.write_text("".join(f"{text}\n" for text in texts), "utf-8")
    return file


def test_held_out_questions_that_are_trained_on_are_found_by_what_they_ask(built: Path, tmp_path: Path) -> None:
    file = rewritten(built, tmp_path)
    with pytest.raises(InputError, match=r"6 of 6 held-out questions are trained on too .*'h0', in the run that"):
        read_heldout(training(built, heldout=str(file)), built / "run")


def test_other_questions_about_the_same_pictures_may_be_held_out(built: Path, tmp_path: Path) -> None:
    file = rewritten(built, tmp_path, question="Is it red?", answer="no")
    found = read_heldout(training(built, heldout=str(file)), built / "run")
    assert found is not None
    assert len(found) == 6


def test_general_data_is_trained_on_too(built: Path, tmp_path: Path) -> None:
    file = rewritten(built, tmp_path, question="Is it red?", answer="no")
    settings = training(built, heldout=str(file), datasets={"general": str(file), "general_share": 0.2})
    with pytest.raises(InputError, match=r"6 of 6 held-out .* datasets\.general"):
        read_heldout(settings, built / "run", read_general(settings))


def test_general_data_has_columns_of_its_own_and_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    general = tmp_path / "general.csv"
    general.write_text("id,query,label\n" + "".join(f"g{i},What is {i}?,{i}\n" for i in range(4)), "utf-8")
    reads = []

    def counted(*args: Any, **options: Any) -> QuestionFile:
        reads.append(args[0])
        return read_questions(*args, **options)

    monkeypatch.setattr(row_sets, "read_questions", counted)
    chosen = {"general": str(general), "general_columns": {"question": "query", "answer": "label"}}
    with FakeServer() as server:
        file = write_settings(tmp_path, server.base_url, paths=2)
        table = tomllib.loads(file.read_text("utf-8")) | {"datasets": chosen}
        pipeline = Pipeline(run=tmp_path / "run", settings=check_settings(table))
        pipeline.build(write_questions(tmp_path, 6))
    assert reads == [str(general)]
    (file,) = (tmp_path / "run" / "datasets" / "summary").glob("*.parquet")
    rows = pq.read_table(file).to_pylist()
    mixed = {row["question_id"]: row for row in rows if row["question_id"].startswith("g")}
    assert mixed
    assert all(row["completion"][-1]["content"][-1]["text"] == id[1:] for id, row in mixed.items())


def test_a_column_that_general_data_lacks_is_named_with_its_own_setting(tmp_path: Path) -> None:
    general = tmp_path / "general.csv"
    general.write_text("id,query,answer\ng,What?,1\n", "utf-8")
    with pytest.raises(InputError, match=r"no column question; .* in \[datasets\.general_columns\]"):
        read_general(check_settings({"datasets": {"general": str(general)}}))


@pytest.mark.parametrize("out", ["run.db", "config.toml", "datasets/reason", "checkpoints/reasoning", "images", "."])
def test_an_export_does_not_go_where_the_run_is(built: Path, out: str) -> None:
    kept = built / "run" / "exports.jsonl"
    kept.unlink(missing_ok=True)
    before = sorted(path for path in (built / "run").rglob("*"))
    for what in ("paths", "calls"):
        done = insightv("export", "--run", built / "run", "--what", what, "--out", built / "run" / out)
        assert done.returncode == 2
        assert "name another place" in done.stderr
    assert sorted(path for path in (built / "run").rglob("*")) == before
    assert insightv("export", "--run", built / "run", "--what", "paths", "--out", kept).returncode == 0


def test_training_does_not_rewrite_how_the_run_was_built(built: Path) -> None:
    change = "generator.model=openai/other"
    done = insightv("train", "--run", built / "run", "--base", "tiny/base", "--set", change)
    assert done.returncode == 2
    assert "says how the run was built" in done.stderr


CHANGES = ("seed=99", "bands.high=95", "images.max_pixels=100000")


def test_settings_to_keep_after_a_training_are_those_of_the_build(built: Path) -> None:
    pipeline = Pipeline.from_config(run=built / "run", changes=[*CHANGES, "train.epochs=3"])
    kept = pipeline._as_built()
    assert (kept.seed, kept.bands.high, kept.train.common) == (3, 80, {"epochs": 3})
    assert kept.images == Settings().images


def test_what_the_options_of_a_training_name(built: Path) -> None:
    asked = train_settings(
        built / "run",
        None,
        [],
        recipe="dpo",
        base="tiny/base",
        heldout="hf:owner/name?split=test",
        external="pairs.jsonl",
    )
    assert (asked.train.recipe, asked.train.base, asked.train.heldout) == (
        "dpo",
        "tiny/base",
        "hf:owner/name?split=test",
    )
    assert asked.train.external == str(Path("pairs.jsonl").absolute())
