"""The examples that ask the reasoner, each as a program of its own, against fake model servers on loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from insightv.config.settings import load_settings
from insightv.config.trust import confirm
from insightv.testing import sample_picture
from tests.server.serving import chat
from tests.servers.fake_openai import FakeServer, Settings
from tests.world import check_balance, insightv, write_questions

EXAMPLES = Path(__file__).parents[2] / "examples"
ASKED = "What is 3 + 4? [truth=7] [steps=3]"


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def run(fake: FakeServer, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    table = f'[generator]\nmodel = "openai/fake"\nbase_url = "{fake.base_url}"\n'
    (folder / "config.toml").write_text(table, encoding="utf-8")
    confirm(folder, load_settings(folder / "config.toml"), trust=True)  # as `--trust` does
    (tmp_path / "chart.png").write_bytes(sample_picture().data)
    return folder


def example(name: str, *args: object, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_stream_to_a_terminal(run: Path, tmp_path: Path) -> None:
    said = example("stream_terminal/stream.py", run, "chart.png", ASKED, cwd=tmp_path)
    assert [f"\n{number}. " in said for number in (1, 2, 3, 4)] == [True, True, True, False]
    assert "=> The answer is 7.\n" in said
    assert "reasoning: followed; " in said


def test_another_model_as_the_summary_agent(run: Path, fake: FakeServer, tmp_path: Path) -> None:
    with FakeServer(Settings(models=("judge",))) as judge:
        before = len(fake.log())
        said = example("api_summary/answer.py", run, "judge", judge.base_url, "chart.png", ASKED, cwd=tmp_path)
        assert [entry["model"] for entry in judge.log()] == ["judge"]
        assert [entry["model"] for entry in fake.log()[before:]] == ["fake"]
    assert said.endswith("answer: The answer is 7.\n")
    assert "Conclude: So the answer is 7." in said


def test_inside_a_fastapi_app(run: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "app:app",
        "--port",
        str(port),
        "--app-dir",
        str(EXAMPLES / "embed_fastapi"),
    ]
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "RUN": str(run)}) as server:
        try:
            ask = {"image": sample_picture().data_url, "question": ASKED}
            form = json.loads(post(f"http://127.0.0.1:{port}/answers", ask, server))
            assert (form["answer"], form["followed"], len(form["steps"])) == ("The answer is 7.", True, 3)
            with pytest.raises(urllib.error.HTTPError, match="422"):
                post(f"http://127.0.0.1:{port}/answers", {**ask, "image": "/etc/hostname"}, server)
            mounted = json.loads(post(f"http://127.0.0.1:{port}/ai/v1/chat/completions", chat(), server))
            assert mounted["choices"][0]["message"]["content"] == "The answer is 7."
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ai/page.js", timeout=60) as reply:
                assert b"textContent" in reply.read()
        finally:
            server.terminate()
            server.wait(30)


def post(url: str, form: dict[str, Any], server: subprocess.Popen[bytes]) -> str:
    """The reply; until the server listens the request is tried again."""
    request = urllib.request.Request(url, json.dumps(form).encode(), {"Content-Type": "application/json"})
    end = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return str(reply.read().decode())
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:
            assert time.monotonic() < end
            assert server.poll() is None, "the server has ended"
            time.sleep(0.1)


def test_a_build_over_two_servers_and_a_judge(tmp_path: Path) -> None:
    questions = write_questions(tmp_path, 6)
    with FakeServer() as one, FakeServer() as two, FakeServer() as judge:
        text = (EXAMPLES / "two_servers" / "insightv.toml").read_text(encoding="utf-8")
        for name, server in (("gpu1", one), ("gpu2", two), ("gpu3", judge)):
            assert f"http://{name}:8000/v1" in text
            text = text.replace(f"http://{name}:8000/v1", server.base_url)
        (tmp_path / "insightv.toml").write_text(text, encoding="utf-8")
        args = ("--config", tmp_path / "insightv.toml", "--run", tmp_path / "run", "--no-datasets", "--json")
        done = insightv("build", questions, *args, timeout=110)
        assert done.returncode == 0, done.stderr
        assert check_balance(tmp_path / "run")["paths"]["ok"] == 48
        assert one.log()
        assert two.log()
        assert {entry["model"] for entry in judge.log()} <= {"qwen2.5-72b"}
        for server in (one, two):  # a chain stays where it began: each further step extends one that this server knows
            steps = [entry for entry in server.log() if entry["schema"] == "reasoning_step" and entry["messages"] > 2]
            assert steps
            assert all(entry["extends"] is not None for entry in steps)
