"""Proxies of the environment: used where that is asked for, named where they would have helped."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from insightv import Pipeline
from insightv.backends.openai.address import proxy_of
from insightv.backends.openai.batch import BatchModel
from insightv.backends.openai.factory import openai
from insightv.backends.openai.http import HttpTransport, NoConnection
from insightv.backends.openai.model import OpenAIModel
from insightv.config.plugin_loading import load_registry
from insightv.config.roles import RoleFactory
from insightv.config.settings import check_settings, load_settings
from insightv.errors import ConfigError
from tests.backends.asking import ANSWER, SAMPLING, question, raw_server
from tests.servers.fake_batches import FakeBatchServer
from tests.servers.fake_openai import FakeServer
from tests.world import check_balance, write_questions, write_settings

HINT = r'the proxy that the environment names was not used: set proxy = "environment" in \[run\]'
PLAIN, SECURE = "http://models.example/v1", "https://models.example/v1"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Proxy:
    """A loopback proxy for one server, which every name leads to; `heads` are what each connection began with."""

    def __init__(self, port: int, refusal: bytes = b"") -> None:
        self.heads: list[str] = []
        self._port = port
        self._refusal = refusal

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head.decode())
        if self._refusal:
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % self._refusal)
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        if head.startswith(b"CONNECT "):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            far_writer.write(head)
        try:
            await asyncio.gather(self._pass_on(reader, far_writer), self._pass_on(far_reader, writer))
        finally:
            far_writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


@asynccontextmanager
async def proxied(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, *names: str, userinfo: str = "", refusal: bytes = b""
) -> AsyncIterator[Proxy]:
    """A proxy for a server, named in these variables."""
    proxy = Proxy(server.port, refusal)
    async with raw_server(proxy.serve) as url:
        for name in names or ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, url.removesuffix("/v1").replace("://", f"://{userinfo}"))
        yield proxy


async def answered(url: str, **options: Any) -> Any:
    model = openai("fake", base_url=url, **options)
    try:
        await model.check()
        return (await model.chat(question(), SAMPLING, schema=ANSWER))[0].text
    finally:
        await model.aclose()


async def posted(url: str, proxy: Any = "environment") -> None:
    transport = HttpTransport(max_reply_bytes=1000, proxy=proxy)
    try:
        await transport.post(url, {}, [b"{}"])
    finally:
        await transport.aclose()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("mode", ["chat", "batch"])
def test_calls_go_through_the_proxy_where_that_is_asked_for(
    name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUEST_METHOD", raising=False)
    quick = {"gather_s": 0.05, "poll_s": 0.01}

    async def work() -> Proxy:
        async with proxied(server, monkeypatch, name) as proxy:
            assert await answered(PLAIN, proxy="environment", mode=mode, **quick) == '{"answer": "7"}'
            return proxy

    with FakeBatchServer() if mode == "batch" else FakeServer() as server:
        proxy = asyncio.run(work())
    assert proxy.heads
    assert all(
        head.startswith(("POST http://models.example/v1/", "GET http://models.example/v1/")) for head in proxy.heads
    )


def test_a_build_through_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> int:
        async with proxied(server, monkeypatch) as proxy:
            file = write_settings(tmp_path, PLAIN, extra='[run]\nproxy = "environment"\n')
            await Pipeline(run=tmp_path / "run", settings=load_settings(file)).abuild(write_questions(tmp_path, 2))
            return len(proxy.heads)

    with FakeServer() as server:
        assert asyncio.run(work())
        assert server.log()
    assert check_balance(tmp_path / "run")["questions"]["done"] == 2


@pytest.mark.parametrize("url", [PLAIN, SECURE])
def test_by_default_no_proxy_is_asked_and_the_error_says_how(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> list[str]:
        async with proxied(server, monkeypatch) as proxy:
            with pytest.raises(NoConnection, match=HINT):
                await posted(f"{url}/chat/completions", "none")
            with pytest.raises(ConfigError, match=f"no server can be reached.*{HINT}"):
                await answered(url)
            return proxy.heads

    with FakeServer() as server:
        assert asyncio.run(work()) == []


def test_without_a_proxy_nothing_is_said_of_one() -> None:
    with pytest.raises(NoConnection) as caught:
        asyncio.run(posted(PLAIN, "none"))
    assert "proxy" not in str(caught.value)


def test_https_goes_through_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server speaks no TLS: that this is what fails shows that the tunnel leads to it."""

    async def work() -> str:
        async with proxied(server, monkeypatch, "HTTPS_PROXY") as proxy:
            with pytest.raises(NoConnection, match=r"(?i)(ssl|wrong version).*through the proxy of the environment"):
                await posted(SECURE)
            return proxy.heads[0]

    with FakeServer() as server:
        assert asyncio.run(work()).startswith("CONNECT models.example:443 ")


@pytest.mark.parametrize("url", [PLAIN, SECURE])
def test_the_proxys_own_key_goes_to_it_alone_and_into_no_text(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> tuple[str, str]:
        opening = proxied(server, monkeypatch, userinfo="anna:canary@", refusal=b"407 Sign in")
        async with opening as proxy:
            try:
                await posted(url)
            except NoConnection as failure:
                return proxy.heads[0], str(failure)
            return proxy.heads[0], ""

    with FakeServer() as server:
        head, text = asyncio.run(work())
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'anna:canary').decode()}" in head
    assert "canary" not in text
    assert text == ("" if url == PLAIN else "cannot connect (answer 407), through the proxy of the environment")


def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://anna:canary@127.0.0.1:9")
    with pytest.raises(NoConnection, match=r"cannot connect \(Connection refused\), through the proxy of the env"):
        asyncio.run(posted(PLAIN))
    with pytest.raises(ConfigError, match=f"the proxy of the environment for {PLAIN}: ") as caught:
        asyncio.run(answered(PLAIN, proxy="environment"))
    assert "canary" not in str(caught.value)


def test_which_servers_have_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "proxy.example:3128")
    monkeypatch.setenv("HTTPS_PROXY", "https://secure.example")
    monkeypatch.setenv("NO_PROXY", "inside.example, direct.example:8000")
    assert proxy_of("http://models.example/v1") == "http://proxy.example:3128"
    assert proxy_of("https://models.example/v1") == "https://secure.example"
    for near in ("inside.example", "a.inside.example", "direct.example:8000", "localhost:1", "127.0.0.2", "[::1]:8"):
        assert proxy_of(f"http://{near}/v1") is None
    monkeypatch.setenv("NO_PROXY", "*")
    assert proxy_of("http://models.example/v1") is None


@pytest.mark.parametrize("named", ["socks5://127.0.0.1:1080", "http://:80", "http://h:port"])
def test_a_proxy_that_cannot_be_used_is_refused_before_anything_is_asked(
    named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", named)
    with pytest.raises(ConfigError, match=f'proxy .*for {PLAIN}.*proxy = "none"'):
        openai("fake", base_url=PLAIN, proxy="environment")
    openai("fake", base_url=PLAIN)


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(ConfigError, match="proxy is 'http://p:1'"):
        openai("fake", base_url=PLAIN, proxy="http://p:1")
    with pytest.raises(ConfigError, match=r"run\.proxy"):
        check_settings({"run": {"proxy": "http://p:1"}})


@pytest.mark.parametrize(
    ("run", "table", "used"),
    [
        (None, None, "none"),
        ("environment", None, "environment"),
        (None, "environment", "environment"),
        ("environment", "none", "none"),
    ],
)
@pytest.mark.parametrize("mode", ["chat", "batch"])
def test_the_models_table_wins_over_the_run(run: str | None, table: str | None, used: str, mode: str) -> None:
    generator: dict[str, Any] = {"model": "openai/fake", "base_url": PLAIN, "mode": mode}
    generator["backend"] = {} if table is None else {"proxy": table}
    settings = check_settings({"generator": generator, "run": {} if run is None else {"proxy": run}})
    workshop = RoleFactory(load_registry(), settings)
    workshop.generator()
    [model] = workshop.models
    if isinstance(model, OpenAIModel):
        assert isinstance(model._transport, HttpTransport)
        assert model._transport.proxy == used
    else:
        assert isinstance(model, BatchModel)
        assert model._proxy == used
