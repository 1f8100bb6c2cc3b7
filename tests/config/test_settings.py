"""Settings: what is refused, and what the refusal says."""

from __future__ import annotations

from pathlib import Path

import pytest

from insightv.config.file import write_settings
from insightv.config.settings import check_settings, load_settings
from insightv.errors import ConfigError


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("run.concurency=3", "did you mean 'concurrency'"),
        ("rum.concurrency=3", "did you mean 'run'"),
        ("bands.mid=90", "mid = 90 is above high = 80"),
        ("bands.high=0", "bands.high"),
        ("run.deadline_s=nan", "run.deadline_s"),
        ("run.concurrency=0", "run.concurrency"),
        ("run.executor=rya", "run.executor = 'rya': Input should be 'local', 'process' or 'ray'; did you mean 'ray'?"),
        ("run.executor=spark", "run.executor = 'spark': Input should be 'local', 'process' or 'ray'"),
        ("run.ray.actor=3", "did you mean 'actors'"),
        ("generator.paths=1000000", "generator.paths"),
        ("generator.paths=many", "generator.paths"),
        ("seed=-1", "seed"),
        ("generator.api_key=abc", "environment variable"),
        ("generator.backend.password=abc", "environment variable"),
        ("generator.api_key_env=sk-live-abcdef", "the name of an environment variable"),
        ("generator.base_url=http://user:secret@host/v1", "user name or password"),
        ("generator.model=sk-abcdefghijklmnopqrstuvwxyz", "looks like a key"),
        ("datasets.general_share=1", "datasets.general_share"),
        ("generator.base_url=http://[::1/v1", "generator.base_url: this is not a URL"),
        ("generator.extra.x=nan", "generator.extra.x = nan: a number is needed"),
        ("generator.extra.x=[1.0, inf]", "generator.extra.x.1 = inf: a number is needed"),
        ("generator.extra.day=2020-01-01", "generator.extra.day = 2020-01-01: dates and times are given as text"),
        ("generator.extra.at=10:30:00", "generator.extra.at = 10:30:00: dates and times are given as text"),
        ("generator", "section.key=value"),
        ("generator.backend.environment.HF_TOKEN=abcdef123456", "environment variable"),
        ("generator.api_key_env=gsk_abcdefghijklmnop1234", "the name of an environment variable"),
        ("questions.columns.imges=x", "did you mean 'images'?"),
        ("scorers.1.use=x", "positions 0..0 of a list"),
        ("scorers={use = 'answer'}", "a list is needed; begin each table with [[scorers]]"),
        ("images.hosts=a.org", "images.hosts = 'a.org': a list is needed; put it into [ ]"),
        ("[a]\n[b]\nc=1", "unknown key"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_place_and_cure(change: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings(None, [change])
    assert says in str(refused.value)
    assert "secret" not in str(refused.value)


def test_what_only_looks_like_a_secret_is_not_refused() -> None:
    changes = ["generator.backend.pad_token=<pad>", "generator.sort_key=created", "generator.api_key_env=HF_TOKEN_2"]
    assert load_settings(None, changes).generator.backend == {"pad_token": "<pad>"}


def test_every_key_can_be_set() -> None:
    changes = ['run.prices."openai/qwen2.5".prompt=1', 'run.prices."openai/qwen2.5".completion=2']
    settings = load_settings(None, [*changes, "scorers.0.tolerance=0.1"])
    assert settings.run.prices["openai/qwen2.5"].prompt == 1
    assert [(table.use, table.options) for table in settings.scorers] == [("answer", {"tolerance": 0.1})]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    changes = ["generator.model=openai/x", "generator.max_steps=3", "run.max_usd=2.5", "run.prices.m.prompt=1"]
    settings = load_settings(None, [*changes, "run.prices.m.completion=2"])
    write_settings(settings, tmp_path / "config.toml")
    assert load_settings(tmp_path / "config.toml") == settings
    assert settings.generator.options == {"max_steps": 3}


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("seed = = 1")
    with pytest.raises(ConfigError, match=r"bad\.toml: not valid TOML"):
        load_settings(tmp_path / "bad.toml")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 5000)
    with pytest.raises(ConfigError, match=r"deep\.toml: not valid TOML"):
        load_settings(tmp_path / "deep.toml")
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*gone\.toml"):
        load_settings(tmp_path / "gone.toml")


def test_keys_of_before_still_load_and_are_named(caplog: pytest.LogCaptureFixture) -> None:
    before = {"run": {"engine": "process"}, "train": {"engine": "vllm", "engine_options": {"gpus": 2}}}
    settings = check_settings(before, "insightv.toml")
    assert (settings.run.executor, settings.train.backend) == ("process", "vllm")
    assert settings.train.backend_options == {"gpus": 2}
    assert "insightv.toml: run.engine is called run.executor now; rename it" in caplog.messages
    assert len(caplog.messages) == 3
    assert load_settings(changes=["run.engine=ray"]).run.executor == "ray"


def test_a_key_under_both_of_its_names_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"run\.engine is run\.executor now, and both are set"):
        check_settings({"run": {"engine": "ray", "executor": "local"}})
