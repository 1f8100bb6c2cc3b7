"""The fake server itself: tests lean on it, so it must say what it did."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import Any

import pytest

from tests.servers.fake_chains import ChainBook
from tests.servers.fake_openai import FakeServer, Settings


def post(url: str, form: object) -> Any:
    request = urllib.request.Request(url, json.dumps(form).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.loads(response.read() or b"null")


def call(server: FakeServer, name: str, *texts: str, **fields: Any) -> Any:
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]
    form = {"type": "json_schema", "json_schema": {"name": name, "schema": {}}}
    body = {"model": "m", "messages": messages, "response_format": form, **fields}
    return json.loads(post(f"{server.base_url}/chat/completions", body)["choices"][0]["message"]["content"])


def test_wrong_answers_are_known_and_recognised_by_the_verdict() -> None:
    with FakeServer(Settings(wrong=0.4)) as server:
        for seed in range(25):
            for truth in ("7", "B", "a red square"):
                question = f"Which? [truth={truth}]"
                answer = call(server, "final_answer", question, seed=seed)["answer"]
                right = server.log()[-1]["said"][0]["right"]
                assert right == (answer == truth)
                judged = f"Question: {question}\nReference: {truth}\nGiven answer: {answer}"
                assert call(server, "answer_verdict", judged, seed=1)["correct"] is right
        said = [entry["said"][0]["right"] for entry in server.log() if entry["schema"] == "final_answer"]
    assert 0.25 < said.count(False) / len(said) < 0.55


def test_paths_are_counted_and_scored_by_content() -> None:
    with FakeServer() as server:
        one = call(server, "path_scores", "== PATH 1 ==\nred\n== PATH 2 ==\nblue\n== PATH 3 ==\ngreen")["scores"]
        other = call(server, "path_scores", "PATH 1\nnothing")["scores"]
    assert [row["path"] for row in one] == [1, 2, 3]
    assert len({row["score"] for row in one}) > 1
    assert len(other) == 1


def test_replies_depend_on_seed_and_content_alone() -> None:
    texts = []
    for _ in range(2):
        with FakeServer() as server:
            texts.append([call(server, "reasoning_step", f"Q{number} [truth=1]", seed=5) for number in range(5)])
    assert texts[0] == texts[1]
    assert len({text["content"] for text in texts[0]}) == 5


def test_chains_are_told_apart_by_bytes() -> None:
    book = ChainBook()

    def read(number: int, messages: str, rest: str = '"seed":1') -> tuple[int | None, int | None]:
        reading = book.read(f'{{"messages":[{messages}],{rest}}}'.encode(), number)
        return reading.extends, reading.repeats

    a, b, c = '{"role":"user","content":"é"}', '{"role":"assistant","content":"b"}', '{"role":"user","content":"c"}'
    assert read(0, a) == (None, None)
    assert read(1, f"{a},{b},{c}") == (0, None)
    assert read(2, f"{a},{b},{c}", '"seed":2') == (0, 1)
    assert read(3, f"{a}, {b},{c},{b}") == (0, None), "a blank more is another chain"
    assert read(4, f"{b},{a}") == (None, None)
    assert book.read(f'{{"model":"m", "messages" : [ {a} ] , "seed":1}}'.encode(), 5).fields["seed"] == 1


@pytest.mark.parametrize("body", [b"{}", b'{"messages":[', b'{"messages":[{}', b'{"messages":[{} {}]}'])
def test_what_is_not_a_request_is_said(body: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        ChainBook().read(body, 0)


def test_as_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "tests.servers.fake_openai", "--settings", '{"wrong": 1.0, "steps": [2, 2]}']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            root = f"http://127.0.0.1:{int(process.stdout.readline())}"
            body = {"model": "m", "messages": [{"role": "user", "content": "Q [truth=7]"}]}
            reply = post(f"{root}/v1/chat/completions", body)["choices"][0]["message"]["content"]
            assert reply in ("The answer is 18.", "The answer is 30.", "The answer is 64.")
            post(f"{root}/settings", {"wrong": 0.0, "script": ["500"]})
            with pytest.raises(urllib.error.HTTPError):
                post(f"{root}/v1/chat/completions", body)
            with urllib.request.urlopen(f"{root}/log", timeout=10) as response:
                log = json.load(response)
        finally:
            process.kill()
    assert [entry["fault"] for entry in log] == [None, "500"]
