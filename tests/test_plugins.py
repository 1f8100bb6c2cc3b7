"""Plugins: a real installed one in use, and a zoo of broken ones that cost nobody but themselves."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from insightv import ConfigError, Pipeline, PluginError, RunChanged
from insightv.config.plugin_loading import load_registry
from insightv.config.sections import RunSection
from insightv.config.settings import check_settings
from insightv.plugins import PluginSource, Registry, hookimpl
from insightv.testing import ScriptedModel, check_backend, check_scorer
from tests.installing import insightv, pip_install, write_distribution, write_questions

PACKAGE = Path(__file__).parent / "plugin_package"

CONFIG = """
[generator]
model = "echo"
paths = 2
[[scorers]]
use = "answer"
[[scorers]]
use = "wordcount"
most = 90
"""

GOOD = """
from insightv import Score, Scorer, hookimpl

class Good(Scorer):
    async def score(self, question, paths):
        return [Score(scorer="good", value=70) for _ in paths]

@hookimpl
def register_scorers(register):
    register("good", Good)
"""

ZOO = {
    "missing": "import a_package_that_is_not_there",
    "broken": "def oops(:",
    "exits": "import sys; sys.exit('no licence found')",
    "fatal": "class Fatal(BaseException): ...\nraise Fatal('beyond Exception')",
    "mute": "class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute",
    "mutehook": (
        "from insightv import hookimpl\nclass Mute(Exception):\n    def __str__(self): raise ValueError\n"
        "@hookimpl\ndef register_scorers(register): raise Mute"
    ),
    "misspelt": "from insightv import hookimpl\n@hookimpl\ndef register_scorer(register): ...",
    "unmarked": "def register_scorers(register): register('never', print)",
    "wrongargs": "from insightv import hookimpl\n@hookimpl\ndef register_scorers(registry): ...",
    "raises": (
        "from insightv import hookimpl\n@hookimpl\ndef register_scorers(register):\n"
        "    register('half', print)\n    raise RuntimeError('half way')"
    ),
    "hookexits": "from insightv import hookimpl\n@hookimpl\ndef register_backends(register): raise SystemExit(0)",
    "nothing": "from insightv import hookimpl\n@hookimpl\ndef register_scorers(register): register('empty', None)",
}
REASONS = {
    "missing": "No module named 'a_package_that_is_not_there'",
    "broken": "SyntaxError",
    "exits": "SystemExit: no licence found",
    "fatal": "Fatal: beyond Exception",
    "mute": "Mute: (an error whose text cannot be shown)",
    "mutehook": "Mute: (an error whose text cannot be shown)",
    "misspelt": "register_scorer",
    "unmarked": "@insightv.hookimpl",
    "wrongargs": "registry",
    "raises": "RuntimeError: half way",
    "hookexits": "SystemExit",
    "nothing": "register(name, factory) got 'empty', None",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed `plugin_package`."""
    site = tmp_path_factory.mktemp("site")
    pip_install(PACKAGE, site)
    return site


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    site = tmp_path / "zoo"
    for name, module in ZOO.items():
        write_distribution(site, name, module)
    write_distribution(site, "good", GOOD)
    return site


Load = Callable[..., Registry]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads the registry of this process, with the plugins of a folder."""
    monkeypatch.delenv("INSIGHTV_PLUGINS", raising=False)
    path = list(sys.path)

    def loaded(*sites: Path) -> Registry:
        for name in [name for name in sys.modules if name.startswith("zoo_")]:
            monkeypatch.delitem(sys.modules, name)  # of another test's folder
        monkeypatch.setattr(sys, "path", [*map(str, sites), *path])
        importlib.invalidate_caches()
        return load_registry()

    return loaded


def test_an_installed_plugin_is_listed_with_its_distribution(installed: Path, tmp_path: Path) -> None:
    done = insightv("plugins", "--json", site=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["failed"] == []
    theirs = [name for name in found["names"] if name["distribution"] != "insightv"]
    where = {"plugin": "echo", "distribution": "insightv-echo", "version": "1.2.3"}
    assert theirs == [{"kind": "backend", "name": "echo", **where}, {"kind": "scorer", "name": "wordcount", **where}]


def test_a_build_uses_an_installed_backend_and_scorer(installed: Path, tmp_path: Path) -> None:
    write_questions(tmp_path)
    (tmp_path / "insightv.toml").write_text(CONFIG, encoding="utf-8")
    done = insightv("build", "questions.jsonl", "--run", "run", "--json", site=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert status["paths"]["ok"] == 4
    assert status["bands"]["wrong"] == 2
    out = tmp_path / "paths.jsonl"
    insightv("export", "--run", "run", "--what", "paths", "--out", out, site=installed, cwd=tmp_path)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    right = [row for row in rows if row["question_id"] == "q0"]
    assert [[score["scorer"] for score in row["scores"]] for row in right] == [["answer", "wordcount"]] * 2
    words = sum(len(step["content"].split()) for step in right[0]["steps"])
    assert right[0]["scores"][1]["value"] == words
    assert right[0]["model"] == "echo"


def test_a_run_made_with_a_plugin_asks_for_it_and_notices_another_version(
    installed: Path, tmp_path: Path, load: Load
) -> None:
    bare = load()
    newer = tmp_path / "newer"
    write_distribution(newer, "echo", (installed / "insightv_echo.py").read_text(encoding="utf-8"), version="2.0")
    other = load(newer)
    run, settings = tmp_path / "run", check_settings(tomllib.loads(CONFIG))
    made = Pipeline(run=run, settings=settings, registry=load(installed))
    made.build(write_questions(tmp_path), datasets=False)
    with pytest.raises(PluginError, match="there is no backend 'echo'"):
        Pipeline.from_config(run=run, registry=bare).build()
    with pytest.raises(RunChanged) as changed:
        Pipeline.from_config(run=run, registry=other).build()
    assert "insightv-echo 1.2.3" in str(changed.value)
    assert "zoo-echo 2.0" in str(changed.value)
    assert Pipeline.from_config(run=run, registry=bare).status().questions.done == 2


def test_the_package_keeps_the_contracts_it_is_an_example_of(installed: Path, load: Load) -> None:
    registry = load(installed)
    check_scorer(registry.factory("scorer", "wordcount")[1], per_path=True)  # type: ignore[arg-type]  # a factory of objects
    check_backend(registry.factory("backend", "echo")[1], deterministic=True, structured=True)  # type: ignore[arg-type]


def test_each_broken_plugin_is_named_with_its_reason_and_the_others_are_kept(zoo: Path, load: Load) -> None:
    registry = load(zoo)
    failed = {failure.source.plugin: failure for failure in registry.failures}
    assert set(failed) == set(ZOO)
    for name, failure in failed.items():
        assert REASONS[name] in failure.reason, (name, failure.reason)
        assert (failure.source.distribution, failure.source.version) == (f"zoo-{name}", "3.1")
    names = {entry.name for entry in registry.entries()}
    assert {"good", "answer", "path", "openai"} <= names
    assert not names & {"half", "never", "empty"}


def test_unrelated_commands_do_not_mind_broken_plugins(zoo: Path, tmp_path: Path) -> None:
    write_questions(tmp_path)
    listed = insightv("plugins", "--json", site=zoo, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert {failed["distribution"] for failed in json.loads(listed.stdout)["failed"]} == {f"zoo-{name}" for name in ZOO}
    for_people = insightv("plugins", site=zoo, cwd=tmp_path)
    assert for_people.returncode == 0
    assert "zoo-exits 3.1: SystemExit: no licence found" in for_people.stdout
    missing = insightv("status", "--run", "none", site=zoo, cwd=tmp_path)
    assert missing.returncode == 2
    assert "zoo" not in missing.stderr


def test_a_name_of_a_broken_plugin_is_refused_with_the_plugins_reason(zoo: Path, load: Load) -> None:
    registry = load(zoo)
    with pytest.raises(PluginError) as caught:
        registry.find("scorer", "half")
    assert "plugin 'raises' of zoo-raises 3.1 did not load: RuntimeError: half way" in str(caught.value)


def test_a_name_that_is_taken_is_refused_and_both_owners_named(tmp_path: Path, load: Load) -> None:
    site = tmp_path / "zoo"
    write_distribution(site, "one", GOOD)
    write_distribution(site, "two", GOOD, version="0.9")
    write_distribution(site, "answering", GOOD.replace('"good"', '"answer"'))
    registry = load(site)
    assert registry.failures == []
    with pytest.raises(PluginError) as clash:
        registry.find("scorer", "good")
    assert "plugin 'one' of zoo-one 3.1 and plugin 'two' of zoo-two 0.9" in str(clash.value)
    with pytest.raises(PluginError) as taken:
        registry.find("scorer", "answer")
    assert "of insightv " in str(taken.value)
    assert "zoo-answering 3.1" in str(taken.value)
    assert registry.find("scorer", "path").source.distribution == "insightv"


def test_two_distributions_may_give_their_plugins_the_same_name(tmp_path: Path, load: Load) -> None:
    site = tmp_path / "zoo"
    write_distribution(site, "one", GOOD, plugin="mine")
    write_distribution(site, "two", GOOD.replace('"good"', '"better"'), plugin="mine")
    registry = load(site)
    assert registry.failures == []
    assert registry.find("scorer", "good").source.distribution == "zoo-one"
    assert registry.find("scorer", "better").source.distribution == "zoo-two"


def test_insightv_plugins_chooses_what_is_loaded(zoo: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    load(zoo)
    monkeypatch.setenv("INSIGHTV_PLUGINS", "")
    none = load_registry()
    assert none.failures == []
    assert {entry.source.distribution for entry in none.entries()} == {"insightv"}
    with pytest.raises(PluginError, match=r"INSIGHTV_PLUGINS leaves out .*good"):
        none.find("scorer", "good")
    monkeypatch.setenv("INSIGHTV_PLUGINS", "good, raises")
    some = load_registry()
    assert some.find("scorer", "good").source.plugin == "good"
    assert [failure.source.plugin for failure in some.failures] == ["raises"]
    monkeypatch.setenv("INSIGHTV_PLUGINS", "god")
    assert [failure.source.plugin for failure in load_registry().failures] == ["god"]


def test_the_command_heeds_insightv_plugins(zoo: Path, tmp_path: Path) -> None:
    done = insightv("plugins", "--json", site=zoo, cwd=tmp_path, plugins="")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["failed"] == []
    assert {name["distribution"] for name in found["names"]} == {"insightv"}


BAD_SCORERS = """
import asyncio
from insightv import Score, Scorer, hookimpl

def bad(answer):
    class Bad(Scorer):
        async def score(self, question, paths):
            result = answer(question, paths)
            return await result if asyncio.iscoroutine(result) else result
    return Bad

def raising(question, paths):
    raise KeyError("no such field")

def exiting(question, paths):
    raise SystemExit(0)

async def hanging(question, paths):
    await asyncio.Event().wait()

class NoRoom(Scorer):
    def __init__(self):
        raise MemoryError("model does not fit")
    async def score(self, question, paths):
        return []

class Mute(Scorer):
    def __init__(self):
        raise type("Mute", (Exception,), {"__str__": lambda _: 1 / 0})
    async def score(self, question, paths):
        return []

class Fatal(Scorer):
    def __init__(self):
        raise BaseException("beyond Exception")
    async def score(self, question, paths):
        return []

class NoPaths(Scorer):
    async def score(self, question):
        return []

class Yields(Scorer):
    async def score(self, question, paths):
        yield Score(scorer="yields", value=9)

KINDS = {
    "nopaths": NoPaths,
    "yields": Yields,
    "truths": bad(lambda question, paths: [Score(scorer="t", value=path.answer == question.answer) for path in paths]),
    "dicts": bad(lambda question, paths: [{"value": 1} for _ in paths]),
    "nothing": bad(lambda question, paths: None),
    "short": bad(lambda question, paths: [Score(scorer="short", value=90)]),
    "over": bad(lambda question, paths: [Score.model_construct(scorer="over", value=850.0) for _ in paths]),
    "nan": bad(lambda question, paths: [Score.model_construct(scorer="nan", value=float("nan")) for _ in paths]),
    "objects": bad(lambda question, paths: [Score(scorer="o", value=90, details={"x": object()}) for _ in paths]),
    "raising": bad(raising),
    "exiting": bad(exiting),
    "hanging": bad(hanging),
    "noroom": NoRoom,
    "mute": Mute,
    "fatal": Fatal,
    "stranger": lambda: object(),
    "elsewhere": "zoo_bad:not_there",
}

@hookimpl
def register_scorers(register):
    for name, factory in KINDS.items():
        register(name, factory)
"""


@pytest.mark.parametrize(
    "name", ["truths", "dicts", "nothing", "short", "over", "nan", "objects", "raising", "exiting", "hanging"]
)
def test_a_scorer_that_breaks_its_contract_costs_its_own_scores_only(
    name: str, installed: Path, tmp_path: Path, load: Load
) -> None:
    site = tmp_path / "zoo"
    write_distribution(site, "bad", BAD_SCORERS)
    registry = load(installed, site)
    table = {
        "generator": {"model": "echo", "paths": 2},
        "scorers": [{"use": "answer"}, {"use": name}, {"use": "wordcount"}],
        "run": {"deadline_s": 1.0},
    }
    pipeline = Pipeline(run=tmp_path / "run", settings=check_settings(table), registry=registry)
    status = pipeline.build(write_questions(tmp_path), datasets=False)
    assert status.paths.ok == 4
    assert status.bands == {"high": 0, "mid": 0, "low": 0, "wrong": 2, "unscored": 2}
    assert status.unjudged == 2
    code = "timeout" if name == "hanging" else "scorer_error"
    assert status.unjudged_by_code == {f"{name}: {code}": 2}


def test_parts_that_cannot_be_made_are_refused_before_anything_is_paid_for(
    installed: Path, tmp_path: Path, load: Load
) -> None:
    site = tmp_path / "zoo"
    write_distribution(site, "bad", BAD_SCORERS)
    registry = load(installed, site)
    questions = write_questions(tmp_path)

    def build(**scorer: object) -> None:
        settings = check_settings({"generator": {"model": "echo"}, "scorers": [scorer]})
        Pipeline(run=tmp_path / "run", settings=settings, registry=registry).build(questions)

    with pytest.raises(ConfigError, match=r"zoo-bad 3\.1.*MemoryError: model does not fit"):
        build(use="noroom")
    with pytest.raises(ConfigError, match=r"zoo-bad 3\.1.*Mute: \(an error whose text cannot be shown"):
        build(use="mute")
    with pytest.raises(ConfigError, match=r"zoo-bad 3\.1.*BaseException: beyond Exception"):
        build(use="fatal")
    with pytest.raises(PluginError, match=r"zoo-bad 3\.1.*made a object, which is not a Scorer"):
        build(use="stranger")
    with pytest.raises(PluginError, match=r"zoo-bad 3\.1.*cannot be imported"):
        build(use="elsewhere")
    with pytest.raises(PluginError, match=r"zoo-bad 3\.1.*NoPaths.score\(\) does not take what Scorer.score takes"):
        build(use="nopaths")
    with pytest.raises(PluginError, match=r"zoo-bad 3\.1.*Yields.score\(\) has a yield"):
        build(use="yields")
    with pytest.raises(PluginError, match="there is no scorer 'wordcuont'; did you mean 'wordcount'"):
        build(use="wordcuont")
    with pytest.raises(ConfigError, match="no option 'mots'; did you mean 'most'"):
        build(use="wordcount", mots=3)
    assert not (tmp_path / "run").exists()


def test_plugins_can_be_added_by_hand() -> None:
    class Plugin:
        @hookimpl
        def register_scorers(self, register: Callable[[str, object], None]) -> None:
            register("mine", object)

    registry = Registry()
    registry.add(Plugin(), PluginSource("mine", "notebook", "0"))
    assert [entry.name for entry in registry.entries()] == ["mine"]


class Unwell(ScriptedModel):
    """A model whose check or end fails."""

    def __init__(self, check: BaseException | None = None, end: BaseException | None = None) -> None:
        super().__init__(lambda messages, schema: json.dumps({"title": "a", "content": "b", "action": "summary"}))
        self._check, self._end = check, end

    async def check(self) -> None:
        if self._check is not None:
            raise self._check

    async def aclose(self) -> None:
        if self._end is not None:
            raise self._end


def unwell(tmp_path: Path, make: Callable[..., Unwell]) -> Pipeline:
    class Plugin:
        @hookimpl
        def register_backends(self, register: Callable[[str, object], None]) -> None:
            register("unwell", make)

    registry = Registry()
    registry.add(importlib.import_module("insightv.config.builtin"), PluginSource("builtin", "insightv", "0"))
    registry.add(Plugin(), PluginSource("mine", "notebook", "0"))
    settings = check_settings({"generator": {"model": "unwell", "paths": 1, "max_steps": 2, "tries": 1}})
    return Pipeline(run=tmp_path / "run", settings=settings, registry=registry)


@pytest.mark.parametrize("error", [RuntimeError("no GPU"), SystemExit(1)])
def test_a_check_that_fails_is_told_as_the_models(error: BaseException, tmp_path: Path) -> None:
    pipeline = unwell(tmp_path, lambda model: Unwell(check=error))
    with pytest.raises(ConfigError, match=f"'scripted' cannot be asked: its check failed: {type(error).__name__}"):
        pipeline.build(write_questions(tmp_path), datasets=False)
    with pytest.raises(PluginError, match="takes no `model`"):
        unwell(tmp_path, Unwell).build(write_questions(tmp_path))


def test_a_check_that_hangs_ends_by_the_deadline(tmp_path: Path) -> None:
    class Hangs(Unwell):
        async def check(self) -> None:
            await asyncio.Event().wait()

    pipeline = unwell(tmp_path, lambda model: Hangs())
    pipeline = Pipeline(
        run=tmp_path / "run",
        settings=pipeline.settings.model_copy(update={"run": RunSection(deadline_s=0.5)}),
        registry=pipeline._registry,
    )
    with pytest.raises(ConfigError, match=r"its check did not end within run\.deadline_s = 0\.5 s"):
        pipeline.build(write_questions(tmp_path), datasets=False)


def test_a_model_that_cannot_be_closed_costs_no_build(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    status = unwell(tmp_path, lambda model: Unwell(end=RuntimeError("stuck"))).build(
        write_questions(tmp_path), datasets=False
    )
    assert status.questions.done == status.questions.total
    assert "could not be closed: RuntimeError: stuck" in caplog.text


def test_a_plugin_that_is_slow_to_load_is_named_meanwhile(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("insightv.config.plugin_loading.SLOW_S", 0.05)
    write_distribution(tmp_path / "zoo", "slow", f"import time\ntime.sleep(0.4)\n{GOOD}")
    assert load(tmp_path / "zoo").failures == []
    assert (
        "plugin 'slow' of zoo-slow 3.1 has been loading for 0.05 s; wait, or leave it out: INSIGHTV_PLUGINS"
        in caplog.text
    )
