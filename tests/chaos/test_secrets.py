"""The key in every place where it could come out again: 0 hits on disk, in output and in exports.

tests/backends/test_openai_secrets.py has the backend's own texts one by one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from insightv import Pipeline, Question, ReasoningPath, Score, Scorer, hookimpl
from insightv.config.settings import check_settings
from insightv.plugins import PluginSource, Registry
from tests.chaos.after import CANARY, ENVIRONMENT, check_run, run
from tests.chaos.test_strangers import OddGenerator
from tests.servers.fake_openai import FakeServer, Settings
from tests.world import build_args, write_questions, write_settings

pytestmark = pytest.mark.chaos
ECHOES = ("400", "500", "503=0", "429", "401")
"""The fake server says the key that it was given in the text of each of these."""


@pytest.mark.parametrize("where", ["the default variable", "a variable of one's own", "the user of OPENAI_BASE_URL"])
def test_a_server_that_says_the_key_again_and_again(where: str, tmp_path: Path) -> None:
    with FakeServer(Settings(script=tuple(f for fault in ECHOES for f in ("ok", fault)))) as server:
        questions, settings = write_questions(tmp_path, 4, steps=2), write_settings(tmp_path, server.base_url)
        env = dict(ENVIRONMENT)
        if where == "a variable of one's own":
            env = {**ENVIRONMENT, "OPENAI_API_KEY": "", "SESAME": CANARY}
            settings.write_text(settings.read_text().replace("[[", 'api_key_env = "SESAME"\n[[', 1))
        if where == "the user of OPENAI_BASE_URL":
            env = {**ENVIRONMENT, "OPENAI_BASE_URL": server.base_url.replace("//", f"//me:{CANARY}@")}
            settings.write_text(settings.read_text().replace(f'base_url = "{server.base_url}"\n', ""))
        folder = tmp_path / "run"
        stopped = run(*build_args(questions, settings, folder), env=env)
        assert stopped.returncode == 3, stopped.stderr
        assert "refused" in stopped.stderr or "401" in stopped.stderr
        check_run(folder, done=False)
        run(*build_args(questions, settings, folder), "--retry-failed", env=env)
        check_run(folder)
        for args in (
            ["status"],
            ["status", "--json"],
            ["config"],
            ["export", "--what", "calls", "--out", tmp_path / "c"],
        ):
            assert run(*args, "--run", folder, env=env).returncode == 0
        assert CANARY not in (tmp_path / "c").read_text()


@pytest.mark.parametrize(
    "change",
    [
        f"generator.api_key={CANARY}",
        f"generator.backend.api_key={CANARY}",
        f"generator.base_url=http://me:{CANARY}@localhost/v1",
        f"generator.extra.password={CANARY}",
        f"serve.authorization={CANARY}",
    ],
)
def test_a_key_in_the_settings_is_refused_unshown(change: str, tmp_path: Path) -> None:
    questions, settings = write_questions(tmp_path, 1), write_settings(tmp_path, "http://127.0.0.1:9/v1")
    assert run(*build_args(questions, settings, tmp_path / "run"), "--set", change).returncode == 2
    assert not (tmp_path / "run").exists()


class Talkative(Scorer):
    """A plugin that logs and raises with all that it knows."""

    async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
        logging.getLogger("insightv").warning("asking with Authorization: Bearer %s", CANARY)
        logging.getLogger("insightv.plugin").error("headers {'x-key': '%s'}", CANARY)
        try:
            raise PermissionError(f"GET /?token={CANARY}")
        except PermissionError as error:
            raise RuntimeError(f"the service refused {CANARY}") from error


def test_a_plugin_that_logs_and_raises_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Plugin:
        @hookimpl
        def register_scorers(self, register: object) -> None:
            register("talkative", Talkative)  # type: ignore[operator]

    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    registry = Registry()
    registry.add(Plugin(), PluginSource("talkative", "notebook", "0"))
    settings = check_settings({"generator": {"paths": 2}, "scorers": [{"use": "talkative"}]})
    folder = tmp_path / "run"
    pipeline = Pipeline(run=folder, settings=settings, generator=OddGenerator(), registry=registry)
    status = pipeline.build([Question(id="q", question="Which?", answer="1")], datasets=False)
    assert status.unjudged == 2
    check_run(folder)
    assert "[secret]" in (folder / "log.jsonl").read_text()
