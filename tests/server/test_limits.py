"""What the server refuses, and that what it refuses, loses or waits for leaves it well: over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from insightv import Reasoner
from insightv.agents.reasoning import ThoughtsReasoner
from insightv.agents.summary import JudgingSummary
from insightv.backends.openai import endpoint, openai, retry
from insightv.child_processes import LineChild
from insightv.config.sections import ServeSection
from insightv.errors import ConfigError, KeyRefused, ModelError
from insightv.records import Completion, Finish, Usage
from insightv.server import pictures, service
from insightv.server.listen import key_for
from insightv.testing import ScriptedModel, sample_picture
from tests.inputs.hostile import png
from tests.server.serving import Served, chat
from tests.servers.fake_openai import FakeServer, Settings
from tests.world import wait_for

KEY = "k-0123456789abcdef"
PATH = "/v1/chat/completions"
THOUGHTS = "<thoughts>\n### Look\nThe bar B ends at 7.\n</thoughts>"


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture(scope="module")
def served(fake: FakeServer) -> Iterator[Served]:
    limits: dict[str, Any] = {"max_images": 2, "max_text": 500, "max_body_bytes": 200_000, "max_image_bytes": 50_000}
    with Served(
        lambda: Reasoner.of("openai/fake", base_url=fake.base_url), max_image_pixels=10_000, **limits
    ) as served:
        yield served


def beside_an_image(role: str) -> dict[str, Any]:
    """A question after another turn that holds its image."""
    turn = {**chat()["messages"][0], "role": role}
    return {"model": "insightv", "messages": [turn, {"role": "user", "content": "Which bar is tallest?"}]}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"[1]", 400, "invalid_json"),
        (b'{"model": NaN}', 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        ({"model": "insightv"}, 422, "invalid_value"),
        ({"model": "insightv", "messages": []}, 422, "invalid_value"),
        ({"model": "insightv", "messages": [{"role": "tool", "content": "x"}]}, 422, "invalid_value"),
        ({"model": "insightv", "messages": [{"role": "user", "content": "  "}]}, 422, "no_question"),
        ({"model": "insightv", "messages": [{"role": "assistant", "content": "x"}]}, 422, "no_question"),
        (chat(model="gpt-4"), 404, "model_not_found"),
        (chat(n=2), 422, "unsupported_parameter"),
        (chat(tools=[{"type": "function"}]), 422, "unsupported_parameter"),
        (chat(response_format={"type": "json_object"}), 422, "unsupported_parameter"),
        (chat(stop=["x"]), 422, "unsupported_parameter"),
        (chat(temperature=9), 422, "invalid_value"),
        (chat(max_tokens=0), 422, "invalid_value"),
        (chat(insightv={"pahts": 2}), 422, "invalid_value"),
        (beside_an_image("system"), 422, "misplaced_image"),
        (beside_an_image("developer"), 422, "misplaced_image"),
        (beside_an_image("assistant"), 422, "misplaced_image"),
        (chat(insightv={"paths": 50}), 422, "too_much"),
        (chat(insightv={"paths": 2, "show": "best"}), 422, "no_scorer"),
        (chat("x" * 501), 422, "too_much"),
        (chat(image="/etc/hostname"), 422, "unsupported_scheme"),
        (chat(image="file:///etc/hostname"), 422, "unsupported_scheme"),
        (chat(image=" data:image/png;base64,AAAA"), 422, "unsupported_scheme"),
        (chat(image="http://127.0.0.1/x.png"), 422, "remote_not_allowed"),
        (chat(image="https://example.org/x.png"), 422, "remote_not_allowed"),
        (chat(image="data:image/png;base64,AAAA"), 422, "not_an_image"),
        (chat(image="data:image/png;base64,%%%"), 422, "bad_data_url"),
        (chat(image="data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode()), 422, "unsupported_format"),
        (chat(image="data:image/png;base64," + "A" * 70_000), 413, "too_large_bytes"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_answered_is_refused_in_the_shape_of_the_api(
    served: Served, body: Any, status: int, code: str, stream: bool
) -> None:
    if stream and isinstance(body, dict):
        body = {**body, "stream": True}
    got, form = served.form("POST", PATH, body)
    assert (got, form["error"]["code"]) == (status, code)
    assert set(form["error"]) == {"message", "type", "param", "code"}
    assert form["error"]["type"] == "invalid_request_error"
    assert "0x" not in form["error"]["message"]


def test_pictures_beyond_the_limits_are_refused_and_the_decoder_lives_on(served: Served) -> None:
    def of_size(width: int, height: int) -> str:
        return "data:image/png;base64," + base64.b64encode(png(width, height)).decode()

    assert served.form("POST", PATH, chat(image=of_size(200, 200)))[1]["error"]["code"] == "too_large_pixels"
    assert served.form("POST", PATH, chat(image=of_size(19_000, 19_000)))[1]["error"]["code"] == "too_large_pixels"
    body = chat()
    body["messages"][0]["content"] += body["messages"][0]["content"][1:] * 2
    assert served.form("POST", PATH, body)[1]["error"]["code"] == "too_much"
    assert served.form("POST", PATH, chat())[0] == 200


def test_allowed_hosts_are_fetched_from_but_never_private_addresses() -> None:
    with Served(lambda: Reasoner.of(ScriptedModel([])), image_hosts=("127.0.0.1", "localhost")) as served:
        for image, code in (
            ("http://127.0.0.1/x.png", "remote_refused"),
            ("http://localhost/x.png", "remote_refused"),
            ("http://elsewhere.example/x.png", "remote_not_allowed"),
            ("http://127.0.0.1:8080/x.png", "remote_refused"),
            ("ftp://127.0.0.1/x.png", "unsupported_scheme"),
        ):
            status, form = served.form("POST", PATH, chat(image=image))
            assert (status, form["error"]["code"]) == (422, code), image


def test_other_routes_methods_and_kinds_are_refused(served: Served) -> None:
    assert served.form("GET", "/v1/nothing")[1]["error"]["code"] == "not_found"
    assert served.form("GET", PATH)[1]["error"]["code"] == "method_not_allowed"
    assert served.form("POST", PATH, b"{}", Content_Type="text/plain")[0] == 415
    assert served.form("POST", PATH, b"x" * 200_001)[1]["error"]["code"] == "body_too_large"
    assert served.form("POST", PATH, b"x", Content_Length="999999999")[0] == 413


def test_a_method_that_a_route_does_not_know_is_told_those_that_it_does(served: Served) -> None:
    for path, methods in ((PATH, {"POST"}), ("/v1/models", {"GET", "HEAD"}), ("/", {"GET", "HEAD"})):
        reply = served.request("PUT", path)
        assert reply.status == 405
        assert set(str(reply.getheader("Allow")).split(", ")) == methods


def test_every_request_that_is_refused_counts_as_an_error(fake: FakeServer) -> None:
    with Served(lambda: Reasoner.of("openai/fake", base_url=fake.base_url)) as served:
        refused = [
            served.request("GET", "/nothing"),
            served.request("GET", "/v1/models/gpt-4"),
            served.request("DELETE", "/v1/models"),
            served.request("POST", PATH, b"{"),
            served.request("GET", "/", Host="evil.example"),
        ]
        metrics = served.request("GET", "/metrics").text
    assert [reply.status for reply in refused] == [404, 404, 405, 400, 403]
    counted = [line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("insightv_errors_total{")]
    assert sum(int(value) for _, value in counted) == len(refused)


def test_pages_elsewhere_reach_nothing(served: Served) -> None:
    assert served.form("GET", "/v1/models", Host="evil.example")[1]["error"]["code"] == "wrong_host"
    assert served.form("POST", PATH, chat(), Origin="https://evil.example")[1]["error"]["code"] == "wrong_origin"
    for origin in ("null", "http://[", "http://[::1", f"http://127.0.0.1:{served.port}.evil.example"):
        assert served.form("POST", PATH, chat(), Origin=origin)[0] == 403
    assert served.form("GET", "/v1/models", Origin=f"http://127.0.0.1:{served.port}")[0] == 200


def test_of_several_origins_each_must_be_the_servers_own(served: Served) -> None:
    own, other = f"http://127.0.0.1:{served.port}", "https://evil.example"
    for origins in ((own, other), (other, own)):
        lines = "".join(f"Origin: {origin}\r\n" for origin in origins)
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(f"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n{lines}\r\n".encode())
            assert client.recv(1000).startswith(b"HTTP/1.1 403")


def test_the_key_is_asked_for_on_every_route(fake: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    basic = "Basic " + base64.b64encode(f"me:{KEY}".encode()).decode()
    with Served(lambda: Reasoner.of("openai/fake", base_url=fake.base_url), key=KEY) as served:
        routes = [("GET", path) for path in ("/", "/page.js", "/page.css", "/healthz", "/metrics", "/v1/models", "/no")]
        for method, path in [*routes, ("POST", PATH)]:
            body = chat() if method == "POST" else None
            for given in (
                {},
                {"Authorization": "Bearer no"},
                {"Authorization": f"Bearer {KEY}x"},
                {"Authorization": KEY},
            ):
                reply = served.request(method, path, body, **given)
                assert reply.status == 401, path
                assert json.loads(reply.text)["error"]["type"] == "authentication_error"
                assert str(reply.getheader("WWW-Authenticate")).startswith("Basic")
            for right in (f"Bearer {KEY}", basic):
                assert served.request(method, path, body, Authorization=right).status in (200, 404), path
    assert KEY not in caplog.text
    assert base64.b64encode(KEY.encode()).decode()[:12] not in caplog.text


def test_no_key_no_start_elsewhere_than_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INSIGHTV_API_KEY", raising=False)
    for host in ("0.0.0.0", "::", "192.0.2.7", "example.org"):
        with pytest.raises(ConfigError, match="INSIGHTV_API_KEY"):
            key_for(ServeSection(host=host))
    assert [key_for(ServeSection(host=host)) for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8")] == [None] * 4
    monkeypatch.setenv("INSIGHTV_API_KEY", KEY)
    assert key_for(ServeSection(host="0.0.0.0")) == KEY
    assert key_for(ServeSection()) == KEY


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (ModelError("timeout", "http://10.0.0.7:8000 key sk-secret-0123456789 did not answer"), 504, "timeout"),
        (ModelError("too_long", "too long at http://10.0.0.7"), 422, "too_long"),
        (ModelError("connection", "http://10.0.0.7 is down"), 503, "connection"),
        (ModelError("oom", "no room"), 503, "oom"),
        (KeyRefused("http://10.0.0.7 refused sk-secret-0123456789"), 503, "engine_unavailable"),
        (RuntimeError("object at 0x7f3a"), 500, "agent_error"),
    ],
)
def test_faults_of_the_engine_have_codes_and_name_nothing(
    fault: Exception, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    def script(messages: Any, _: Any) -> Any:
        return fault if "REASONING" in str(messages[-1].content) else "no path"

    with Served(lambda: Reasoner.of(ScriptedModel(script))) as served:
        got, form = served.form("POST", PATH, chat())
        streamed = served.request("POST", PATH, chat(stream=True)).text
        metrics = served.request("GET", "/metrics").text
    assert (got, form["error"]["code"]) == (status, code)
    assert f'"code":"{code}"' in streamed
    assert streamed.endswith("data: [DONE]\n\n")
    for text in (json.dumps(form), streamed):
        assert not any(word in text for word in ("10.0.0.7", "sk-secret", "0x7f3a"))
    assert f'insightv_errors_total{{code="{code}"}} 2' in metrics
    assert "sk-secret" not in caplog.text


@pytest.mark.parametrize(
    ("finish", "text", "content", "reason"),
    [
        ("length", "The", "The", "length"),
        ("length", "<think>Blue? No.</think>The", "The", "length"),
        ("length", "<think>Blue?", None, "length"),
        ("refusal", "The", "The", "content_filter"),
    ],
)
def test_an_answer_that_is_not_whole_has_its_reasoning_and_what_all_of_it_cost(
    finish: Finish, text: str, content: str | None, reason: str
) -> None:
    path = Completion(text=THOUGHTS, usage=Usage(prompt_tokens=50, completion_tokens=100, requests=1))
    cut = Completion(text=text, finish=finish, usage=Usage(prompt_tokens=60, completion_tokens=5, requests=1))

    def make() -> Reasoner:
        return Reasoner(ThoughtsReasoner(ScriptedModel([path] * 2)), JudgingSummary(ScriptedModel([cut] * 2), tries=1))

    with Served(make) as served:
        status, form = served.form("POST", PATH, chat())
        usage = {"include_usage": True}
        streamed = served.request("POST", PATH, chat(stream=True, stream_options=usage)).text
        metrics = served.request("GET", "/metrics").text
    [choice] = form["choices"]
    assert (status, choice["finish_reason"], choice["message"]["content"]) == (200, reason, content)
    assert choice["message"]["reasoning_content"] == "### Look\nThe bar B ends at 7."
    assert (form["usage"]["prompt_tokens"], form["usage"]["completion_tokens"]) == (110, 105)
    assert form["usage"]["completion_tokens_details"] == {"reasoning_tokens": 100}
    *_, ended, last, done = streamed.strip().split("\n\n")
    assert "Blue" not in streamed
    assert f'"finish_reason":"{reason}"' in ended
    assert json.loads(last.removeprefix("data: "))["usage"] == form["usage"]
    assert done == "data: [DONE]"
    assert 'insightv_tokens_total{kind="completion"} 210\n' in metrics
    assert 'insightv_paths_total{status="ok"} 2\n' in metrics


def test_reasoning_that_does_not_come_in_time_is_said_to_be_late() -> None:
    late = FakeServer(Settings(script=("hang",)))
    with late, Served(lambda: Reasoner.of("openai/fake", base_url=late.base_url)) as served:
        # Without an image: a decoder's start on a busy machine may take the second.
        got, form = served.form("POST", PATH, chat(image="", model="insightv-reason", insightv={"deadline_s": 1}))
    assert (got, form["error"]["code"]) == (504, "deadline")


@pytest.mark.parametrize("stream", [False, True])
def test_pictures_that_are_not_opened_in_time_are_said_to_be_late(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    start = pictures._start

    def start_and_stop() -> LineChild:
        process = start()
        os.kill(process.pid, signal.SIGSTOP)
        return process

    monkeypatch.setattr(pictures, "_start", start_and_stop)
    with Served(lambda: Reasoner.of("openai/fake", base_url=fake.base_url)) as served:
        began = time.monotonic()
        got, form = served.form("POST", PATH, chat(insightv={"deadline_s": 0.5}, stream=stream))
        assert time.monotonic() - began < pictures.DECODE_S / 2
    assert (got, form["error"]["code"]) == (504, "timeout")


def test_a_look_at_an_engine_that_hangs_counts_into_the_deadline() -> None:
    class Hangs(ScriptedModel):
        async def check(self) -> None:
            await asyncio.sleep(600)

    def make() -> Reasoner:
        model = Hangs([THOUGHTS, "B"])
        return Reasoner(ThoughtsReasoner(model), JudgingSummary(model), models=[model])

    with Served(make) as served:
        began = time.monotonic()
        got, form = served.form("POST", PATH, chat(image="", insightv={"deadline_s": 0.5}))
        assert time.monotonic() - began < service.HEALTH_S
    assert (got, form["error"]["code"]) == (504, "timeout")


def test_health_fails_with_the_engine_and_comes_back(fake: FakeServer) -> None:
    with FakeServer() as engine, Served(lambda: Reasoner.of("openai/fake", base_url=engine.base_url)) as served:
        assert served.form("GET", "/healthz") == (200, {"status": "ok"})
        engine.down()
        wait_for(lambda: served.request("GET", "/healthz").status == 503)
        status, form = served.form("GET", "/healthz")
        assert (status, form["status"]) == (503, "failing")
        assert str(engine.port) not in json.dumps(form)
        engine.up()
        wait_for(lambda: served.request("GET", "/healthz").status == 200)


@pytest.mark.parametrize("stream", [False, True])
def test_nobody_waits_for_an_engine_that_is_gone(stream: bool) -> None:
    with FakeServer() as engine, Served(lambda: Reasoner.of("openai/fake", base_url=engine.base_url)) as served:
        assert served.request("POST", PATH, chat(stream=stream)).status == 200
        engine.down()
        wait_for(lambda: served.request("GET", "/healthz").status == 503)
        began = time.monotonic()
        reply = served.request("POST", PATH, chat(stream=stream))
        assert time.monotonic() - began < 20
        assert (reply.status, reply.getheader("Retry-After")) == (503, "30")
        assert json.loads(reply.text)["error"]["code"] == "engine_unavailable"
        engine.up()
        wait_for(lambda: served.request("POST", PATH, chat(stream=stream)).status == 200)


def test_health_fails_where_the_engine_only_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PROBE_GAPS_S", (0.3,))
    monkeypatch.setattr(retry, "LONGEST_BACKOFF_S", 0.05)
    monkeypatch.setattr(service, "HEALTH_KEPT_S", 0.1)
    with (
        FakeServer(Settings(faults={"503": 1.0}, models_status=500)) as engine,
        Served(lambda: Reasoner.of("openai/fake", base_url=engine.base_url, deadline_s=0.3)) as served,
    ):
        assert served.form("POST", PATH, chat())[0] >= 500
        wait_for(lambda: served.request("GET", "/healthz").status == 503)
        time.sleep(0.3)
        assert served.form("GET", "/healthz")[0] == 503, "it counts as healthy again though nothing has changed"
        engine.change(faults={}, models_status=200)
        wait_for(lambda: served.request("GET", "/healthz").status == 200)
        assert served.request("POST", PATH, chat()).status == 200


@pytest.mark.parametrize("model", ["insightv-summary", "insightv"])
def test_an_answer_without_reasoning_says_nothing_of_the_engine_that_reasons(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "HEALTH_KEPT_S", 0.5)
    with FakeServer() as reasons, FakeServer() as answers:

        def make() -> Reasoner:
            first, second = (openai("fake", base_url=each.base_url, deadline_s=0.1) for each in (reasons, answers))
            return Reasoner(ThoughtsReasoner(first), JudgingSummary(second), models=[first, second])

        with Served(make) as served:
            assert served.form("GET", "/healthz")[0] == 200
            reasons.down()
            ends = time.monotonic() + 20
            while served.request("GET", "/healthz").status == 200:
                assert time.monotonic() < ends, "each answer counts as a sign of health"
                served.request("POST", PATH, chat(model=model))


def test_health_fails_where_the_engine_refuses_the_key() -> None:
    with (
        FakeServer(Settings(faults={"401": 1.0})) as engine,
        Served(lambda: Reasoner.of("openai/fake", base_url=engine.base_url)) as served,
    ):
        assert served.form("GET", "/healthz")[0] == 200
        assert served.form("POST", PATH, chat())[1]["error"]["code"] == "engine_unavailable"
        wait_for(lambda: served.request("GET", "/healthz").status == 503)


def test_metrics_tell_what_happened(fake: FakeServer) -> None:
    with Served(lambda: Reasoner.of("openai/fake", base_url=fake.base_url)) as served:
        for stream in (False, True):
            assert served.request("POST", PATH, chat(stream=stream)).status == 200
        served.request("POST", PATH, b"{")
        text = served.request("GET", "/metrics").text
    for line in (
        'insightv_requests_total{route="/v1/chat/completions",status="200"} 2',
        'insightv_requests_total{route="/v1/chat/completions",status="400"} 1',
        'insightv_answers_total{path="followed"} 2',
        'insightv_paths_total{status="ok"} 2',
        'insightv_errors_total{code="invalid_json"} 1',
        "insightv_answer_seconds_count 2",
        "insightv_first_step_seconds_count 1",
        'insightv_answer_seconds_bucket{le="+Inf"} 2',
    ):
        assert line + "\n" in text


def test_the_access_log_has_no_contents(fake: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Served(lambda: Reasoner.of("openai/fake", base_url=fake.base_url)) as served:
        served.request("POST", PATH + "?token=hidden-word", chat("What hidden-word is this? [truth=hidden-word]"))
        served.request("GET", "/hidden-word")
    lines = [record.getMessage() for record in caplog.records if record.name == "insightv.access"]
    assert [line.split()[2:5] for line in lines] == [["POST", PATH, "200"], ["GET", "other", "404"]]
    assert "hidden-word" not in caplog.text
    assert sample_picture().data_url[30:60] not in caplog.text
