"""`insightv serve` as a process: it starts, drains and ends as it should, and the README's curl lines work."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from insightv.tiny import world
from tests.server.serving import chat
from tests.servers.fake_openai import FakeServer, Settings
from tests.world import command, insightv, wait_for

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@contextmanager
def serving(*args: object, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and the address that it says it serves on."""
    env = {**os.environ, **environment}
    arguments = command("serve", *args, "--port", 0, "--json")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            yield process, json.loads(line)["url"]
        finally:
            process.kill()


def post(url: str, stream: bool = False, **asked: str) -> str:
    body = json.dumps(chat(**asked, stream=stream)).encode()
    request = urllib.request.Request(f"{url}/v1/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return str(reply.read().decode())


def test_a_run_is_served_and_drained_on_sigterm(tmp_path: Path) -> None:
    with FakeServer(Settings(piece_s=0.02)) as fake:
        run = tmp_path / "run"
        run.mkdir()
        table = f'[generator]\nmodel = "openai/fake"\nbase_url = "{fake.base_url}"\n[serve]\ndrain_s = 30\n'
        (run / "config.toml").write_text(table, encoding="utf-8")
        said: list[str] = []
        with serving("--run", run, "--trust") as (process, url):
            asking = threading.Thread(target=lambda: said.append(post(url, stream=True)))
            asking.start()
            wait_for(lambda: len(fake.log()) == 1, 60)
            process.send_signal(signal.SIGTERM)
            asking.join(60)
            assert process.wait(30) == 143
        assert said[0].endswith("data: [DONE]\n\n")
        assert '"content":"The' in said[0]
        with pytest.raises(OSError, match="refused"):
            post(url)


def test_what_is_set_on_the_command_line_reaches_the_agents(tmp_path: Path) -> None:
    with FakeServer() as fake:
        table = f'[generator]\nmodel = "openai/fake"\nbase_url = "{fake.base_url}"\n'
        (tmp_path / "config.toml").write_text(table, encoding="utf-8")
        with serving("--run", tmp_path, "--trust", "--set", "reasoning_agent.max_tokens=321") as (_, url):
            post(url)
        assert fake.log()[0]["fields"]["max_tokens"] == 321


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with (
        FakeServer(Settings(latency_s=600)) as fake,
        serving("--model", "openai/fake", "--base-url", fake.base_url) as (process, url),
    ):
        threading.Thread(target=lambda: _ignore(url), daemon=True).start()
        wait_for(lambda: len(fake.log()) == 1, 60)
        process.send_signal(signal.SIGINT)
        wait_for(lambda: _is_closed(url))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_what_outlasts_the_drain_is_told_so_in_the_shape_of_the_api() -> None:
    with (
        FakeServer(Settings(latency_s=600)) as fake,
        serving(*("--model", "openai/fake", "--base-url", fake.base_url), "--set", "serve.drain_s=0.5") as (
            process,
            url,
        ),
    ):
        said: list[str] = []
        asking = [
            threading.Thread(target=lambda: said.append(post(url, stream=True))),
            threading.Thread(target=lambda: said.append(_refused(url))),
        ]
        for thread in asking:
            thread.start()
        wait_for(lambda: len(fake.log()) == 2, 60)
        process.send_signal(signal.SIGTERM)
        for thread in asking:
            thread.join(30)
        _, log = process.communicate(timeout=30)
    assert process.returncode == 143
    for text in said:
        assert '"code":"engine_unavailable"' in text
        assert "being stopped" in text
    assert sum(text.endswith("data: [DONE]\n\n") for text in said) == 1
    assert "Traceback" not in log
    assert all(entry["gone"] for entry in fake.log())


def _refused(url: str) -> str:
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(url)
    assert (caught.value.code, caught.value.headers["Retry-After"]) == (503, "30")
    return caught.value.read().decode()


def test_a_signal_before_or_as_it_is_ready_ends_it_as_well() -> None:
    with FakeServer() as fake:
        model = ("--model", "openai/fake", "--base-url", fake.base_url)
        for _ in range(3):
            with serving(*model) as (process, _url):
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 143
    arguments = [sys.executable, "-c", SLOW]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "looking\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "closed\n15\n"


SLOW = """
import asyncio
from insightv import ChatModel, Reasoner
from insightv.agents.reasoning import ThoughtsReasoner
from insightv.agents.summary import JudgingSummary
from insightv.config.sections import ServeSection
from insightv.server.listen import serve

class Slow(ChatModel):
    async def chat(self, messages, sampling, *, n=1, schema=None):
        return []

    async def check(self):
        print("looking", flush=True)
        await asyncio.sleep(600)

    async def aclose(self):
        print("closed", flush=True)

model = Slow()
reasoner = Reasoner(ThoughtsReasoner(model), JudgingSummary(model), models=(model,))
print(asyncio.run(serve(reasoner, ServeSection(port=0), max_pixels=10**6)))
"""


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_address_of_ipv6_is_served_and_told_in_brackets(host: str) -> None:
    with (
        FakeServer() as fake,
        serving("--model", "openai/fake", "--base-url", fake.base_url, "--host", host) as (_, url),
    ):
        assert url.startswith("http://[::1]:")
        assert "data: [DONE]" in post(url, stream=True)


def _ignore(url: str) -> None:
    try:
        post(url)
    except OSError:
        return


def _is_closed(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=5):
            return False
    except OSError:
        return True


def test_the_embedded_model_is_served() -> None:
    item, drawn = next(world.make_questions(1, 5, "heldout")), io.BytesIO()
    item.image.save(drawn, "PNG")
    image = f"data:image/png;base64,{base64.b64encode(drawn.getvalue()).decode()}"
    with serving("--model", "tiny") as (_, url):
        form = json.loads(post(url, text=item.question, image=image))
        streamed = post(url, stream=True, text=item.question, image=image)
    message = form["choices"][0]["message"]
    assert message["content"]
    assert message["reasoning_content"].startswith("### ")
    assert form["usage"]["completion_tokens"] > form["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    assert streamed.count('"reasoning_content":') > form["insightv"]["path"]["steps"] > 0
    assert streamed.endswith("data: [DONE]\n\n")


def test_what_cannot_be_served_ends_with_2_and_says_the_cure(tmp_path: Path) -> None:
    missing = insightv("serve", "--run", tmp_path / "none")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "insightv build" in missing.stderr
    with FakeServer() as fake:
        model = ("--model", "openai/fake", "--base-url", fake.base_url)
        open_to_all = insightv("serve", *model, "--host", "0.0.0.0")
        taken = insightv("serve", *model, "--port", fake.port)
    gone = insightv("serve", *model, "--port", 0)
    typo = insightv("serve", *model, "--set", "serve.concurency=3")
    unused = insightv("serve", *model, "--set", "reasoning_agent.max_tokens=3")
    for done, word in (
        (open_to_all, "INSIGHTV_API_KEY"),
        (taken, "another port"),
        (gone, "127.0.0.1"),
        (typo, "concurrency"),
        (unused, "would not be used"),
    ):
        assert done.returncode == 2, done.stderr
        assert word in done.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
def test_the_curl_lines_of_the_readme_work(tmp_path: Path) -> None:
    block = re.search(r"(?m)^    IMAGE=.*\n(?:    .*\n|\n)+?(?=\S)", README)
    assert block is not None
    lines = "\n".join(line.removeprefix("    ") for line in block[0].splitlines())
    from insightv.testing import sample_picture

    (tmp_path / "chart.png").write_bytes(sample_picture().data)
    with (
        FakeServer() as fake,
        serving("--model", "openai/fake", "--base-url", fake.base_url, INSIGHTV_API_KEY="secret-key-1") as (_, url),
    ):
        script = "set -e\n" + lines.replace("http://127.0.0.1:8080", url)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "INSIGHTV_API_KEY": "secret-key-1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "The answer is unknown." in done.stdout
    assert '"reasoning_content"' in done.stdout
    assert "data: [DONE]" in done.stdout
    assert '"insightv-summary"' in done.stdout
    assert "insightv_requests_total" in done.stdout
    assert '{"status":"ok"}' in done.stdout
