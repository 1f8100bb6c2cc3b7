"""The HTTP side on uvloop, the loop of most web servers that the library is embedded in."""

from __future__ import annotations

from pathlib import Path

import pytest
import uvloop

from insightv import Pipeline
from insightv.backends.openai.http import HttpTransport, NoConnection
from insightv.config.settings import load_settings
from tests.backends.asking import SAMPLING, model_at, question
from tests.servers.fake_openai import FakeServer
from tests.world import check_balance, write_questions, write_settings


def test_a_build_on_uvloop(tmp_path: Path) -> None:
    questions = write_questions(tmp_path, 3)
    with FakeServer() as server:
        settings = load_settings(write_settings(tmp_path, server.base_url))
        uvloop.run(Pipeline(run=tmp_path / "run", settings=settings).abuild(questions))
    status = check_balance(tmp_path / "run")
    assert (status["questions"]["done"], status["paths"]["failed"]) == (3, 0)


def test_a_stream_on_uvloop() -> None:
    async def streamed(server: FakeServer) -> list[object]:
        async with model_at(server) as model:
            return [piece async for piece in model.stream(question(), SAMPLING)]

    with FakeServer() as server:
        *pieces, whole = uvloop.run(streamed(server))
    assert pieces
    assert getattr(whole, "text", None) == "".join(map(str, pieces))


def test_tls_on_uvloop() -> None:
    async def asked(server: FakeServer) -> None:
        transport = HttpTransport(max_reply_bytes=1000)
        try:
            await transport.post(server.base_url.replace("http:", "https:"), {}, [b"{}"])
        finally:
            await transport.aclose()

    # The server speaks no TLS: that this is what is said shows that the connection was made.
    with FakeServer() as server, pytest.raises(NoConnection, match=r"(?i)ssl|wrong version|unexpected eof"):
        uvloop.run(asked(server))
