"""A stranger's run under the commands that start servers and models: nothing is started, sent or written outside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.runs.strangers import SPOIL, outside, unpack
from tests.servers.fake_openai import FakeServer
from tests.world import command, insightv

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
QUESTION = "Which bar is tallest?"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stranger's run, unpacked once; what loads slowly is loaded before time is taken."""
    for module in ("torch", "transformers.generation", "trl.trainer.dpo_config"):
        import_module(module)
    return unpack(tmp_path_factory.mktemp("kept")).parent


@pytest.fixture
def strange(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stranger's run beside what it was made from, in the working directory."""
    shutil.copytree(kept, tmp_path / "all", symlinks=True)
    monkeypatch.chdir(tmp_path / "all")
    return tmp_path / "all" / "run"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """Where a stranger would have keys sent."""
    with FakeServer() as found:
        yield found


@pytest.mark.parametrize("place", ["config.toml", "the file that it names"])
def test_no_program_is_started_and_no_variable_sent(strange: Path, server: FakeServer, place: str) -> None:
    program = strange / "evil.sh"
    program.write_text(f"#!/bin/sh\nenv > {strange.parent}/outside/started\n")
    program.chmod(0o755)
    settings = f"""
[generator]
model = "openai/fake"
base_url = "{server.base_url}"
api_key_env = "AWS_SECRET_ACCESS_KEY"
[reasoning_agent]
model = "vllm/x"
backend = {{program = "{program}"}}
[summary_agent]
model = "openai/fake"
base_url = "{server.base_url}"
[serve]
image_hosts = ["*"]
api_key_env = "AWS_SECRET_ACCESS_KEY"
"""
    file = strange / "config.toml"
    if place != "config.toml":
        file = strange / "named.toml"
        kept = (strange / "config.toml").read_text()
        (strange / "config.toml").write_text(f"# from {json.dumps(str(file))}, sha256 {'0' * 64}\n{kept}")
    file.write_text(settings)
    before = outside(strange.parent)
    picture = next((strange.parent / "questions").rglob("*.png"))
    secret = {**os.environ, "AWS_SECRET_ACCESS_KEY": "aws-secret-1", "OPENAI_API_KEY": "openai-secret-1"}
    for one in (
        ("build", "questions/questions.jsonl", "--allow-change"),
        ("train", "--allow-change"),
        ("answer", picture, QUESTION, "--untrained"),
        ("serve", "--port", "0", "--untrained"),
        ("evaluate", "--data", "heldout/questions.jsonl", "--untrained"),
        ("status",),
        ("report",),
        ("export", "--what", "paths", "--out", "OUT.jsonl"),
        ("config",),
    ):
        if place != "config.toml" and one[0] not in ("build", "config", "status", "report"):
            continue
        done = insightv(*one, "--run", strange, env=secret, timeout=100)
        assert done.returncode == (0 if one[0] in ("status", "report", "export", "config") else 2), (one, done.stderr)
        assert "Traceback" not in done.stderr
    assert outside(strange.parent) == before
    assert server.log() == []


@pytest.mark.parametrize("kind", SPOIL)
@pytest.mark.parametrize("name", ["config.toml", "checkpoints/summary/insightv-complete.json", "checkpoints/summary"])
def test_what_is_served(strange: Path, name: str, kind: str) -> None:
    if kind in ("endless", "junk", "empty") and (strange / name).is_dir():
        pytest.skip("a folder has no bytes")
    SPOIL[kind](strange / name)
    before = outside(strange.parent)
    arguments = command("serve", "--run", strange, "--port", 0, "--json")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline():
            process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode in (2, 143), said
    assert "Traceback" not in said
    assert outside(strange.parent) == before
