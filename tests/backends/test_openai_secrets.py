"""No key, no userinfo, no image and no address in what people or logs get to see."""

from __future__ import annotations

import base64
import logging
import traceback
from typing import Any

import pytest

from insightv.backends.openai import endpoint, openai, retry
from insightv.errors import ConfigError, InsightvError, KeyRefused, ModelError
from insightv.redact import MASK, Redactor
from tests.backends.asking import SAMPLING, ask, question, with_model
from tests.servers.fake_openai import FakeServer, Settings

KEY = "canary/KEY+7f3a9c"
PAIR = base64.b64encode(b"anna:p@ss-canary").decode()


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(retry, "LONGEST_BACKOFF_S", 0.02)
    monkeypatch.setattr(endpoint, "PROBE_GAPS_S", (0.05,))


def seen(error: BaseException, caplog: pytest.LogCaptureFixture) -> str:
    """All that a person or a log may see of an error."""
    kept = error.kept if isinstance(error, ModelError) else ""
    return "\n".join([*traceback.format_exception(error), repr(error), kept, caplog.text])


@pytest.mark.parametrize("fault", ["401", "403", "400", "500", "404", "quota", "error200", "html", "reset"])
def test_a_key_that_the_server_echoes_is_shown_nowhere(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with FakeServer(Settings(faults={fault: 1.0})) as server:
        with pytest.raises(InsightvError) as caught:
            ask(server, deadline_s=0.5)
        assert server.log()
    text = seen(caught.value, caplog)
    assert "canary" not in text
    assert "base64," not in text
    assert " at 0x" not in text


def test_the_key_is_sent_and_only_to_sign_in() -> None:
    with FakeServer(Settings(key=KEY)) as server:
        assert ask(server)
        assert KEY not in str(server.log())


def test_userinfo_signs_in_and_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    with FakeServer(Settings(faults={"400": 1.0})) as server:
        url = server.base_url.replace("://", "://anna:p%40ss-canary@")
        with pytest.raises(ModelError, match="scripted 400") as caught:
            ask(url)
    text = seen(caught.value, caplog)
    assert "you sent" in text
    assert MASK in text
    for form in ("canary", PAIR, "p%40ss", KEY):
        assert form not in text


def test_a_model_shows_no_secret_of_its_own() -> None:
    model = openai("fake", base_url="http://anna:p%40ss-canary@localhost:1/v1")
    plain = openai("fake", base_url="http://localhost:2/v1")
    for each in (model, plain):
        shown = repr(each) + repr(vars(each)) + repr([vars(endpoint) for endpoint in each._pool._endpoints])
        for form in ("canary", "p%40ss", PAIR):
            assert form not in shown


@pytest.mark.parametrize(
    "url",
    [
        "http://anna:canary@host:bad/v1",
        "http://anna:canary@h/v1?x=1",
        "anna:canary@host/v1",
        "http://h/v1?key=canary",
        "http://h/v1#canary",
    ],
)
def test_a_bad_url_is_named_without_its_userinfo(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        openai("fake", base_url=url)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused_unshown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        openai("fake", base_url="http://localhost/v1")
    assert key not in str(caught.value)


def test_blanks_around_a_key_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    with FakeServer(Settings(key=KEY)) as server:
        assert ask(server)


def test_without_a_key_nothing_is_sent_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with FakeServer(Settings(faults={"401": 1.0})) as server, pytest.raises(KeyRefused, match="you sent"):
        ask(server)
    with FakeServer() as server:
        assert ask(server)


@pytest.mark.parametrize(
    "text",
    [
        f"wrong key {KEY}",
        f"url-encoded {'canary%2FKEY%2B7f3a9c'}",
        'escaped "canary/KEY+7f3a9c"',
        f"basic {base64.b64encode(KEY.encode()).decode()}",
        "Incorrect API key provided: sk-pro********abcd",
        "Authorization: Bearer abcdefgh.ijkl",
        "{'api-key': 'abcdefgh'}",
        "http://anna:secret@host/v1",
        "<Thing object at 0x7f00deadbeef>",
        "see data:image/png;base64,AAAA and " + "QUJD" * 100,
        "\x1b[31mred\x1b[0m \x07 \x9b31m",
    ],
)
def test_what_the_redactor_takes_out(text: str) -> None:
    clean = Redactor([KEY]).clean(text)
    for trace in (
        "canary",
        "Y2FuYXJ5",
        "sk-pro",
        "abcdefgh",
        "secret@",
        "0x7f",
        "AAAA",
        "QUJDQUJD",
        "\x1b",
        "\x07",
        "\x9b",
    ):
        assert trace not in clean


def test_what_the_redactor_leaves() -> None:
    text = 'the bearer of the basic idea said: 7 > 3, "é", 0x1F, task-list, http://host:8000/v1/models'
    assert Redactor([KEY, "", "é"]).clean(text) == text


def test_a_secret_at_the_edge_of_what_is_kept_is_not_cut_into_view() -> None:
    for shift in range(0, 60):
        kept = Redactor([KEY]).clean_bytes(b"x " * 1000 + b"y" * shift + KEY.encode() * 3, 2048)
        assert "canary" not in kept
        assert len(kept.encode()) <= 2048


def test_later_calls_after_a_stop_are_as_clean() -> None:
    async def twice(model: Any) -> list[str]:
        texts = []
        for _ in range(2):
            with pytest.raises(KeyRefused) as caught:
                await model.chat(question(), SAMPLING)
            texts.append(str(caught.value))
        return texts

    with FakeServer(Settings(faults={"401": 1.0})) as server:
        first, second = with_model(server, twice)
    assert first == second
    assert "canary" not in first
