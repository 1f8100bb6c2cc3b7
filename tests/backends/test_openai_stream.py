"""Streams: pieces as they come, and what happens when they stop coming."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from insightv.backends.openai import retry
from insightv.backends.openai.classify import Answered, Setback
from insightv.backends.openai.http import Incoming
from insightv.backends.openai.model import OpenAIModel
from insightv.backends.openai.sse import StreamedReply
from insightv.errors import KeyRefused, ModelError
from insightv.records import Completion
from insightv.redact import Redactor
from tests.backends.asking import ANSWER, SAMPLING, open_sockets, question, sockets_back_to, with_model
from tests.servers.fake_openai import FakeServer, Settings

RIGHT = '{"answer": "7"}'


async def gather(model: OpenAIModel) -> tuple[list[str], Completion | None, ModelError | None]:
    pieces: list[str] = []
    end, error = None, None
    try:
        async for piece in model.stream(question(), SAMPLING, schema=ANSWER):
            if isinstance(piece, Completion):
                end = piece
            else:
                pieces.append(piece)
    except ModelError as caught:
        error = caught
    return pieces, end, error


def stream(settings: Settings, **options: Any) -> tuple[list[str], Completion | None, ModelError | None, int]:
    with FakeServer(settings) as server:
        return *with_model(server, gather, **options), len(server.log())


def test_pieces_then_the_whole_with_usage() -> None:
    pieces, end, error, requests = stream(Settings())
    assert (error, requests) == (None, 1)
    assert pieces == ['{"ans', 'wer":', ' "7"}']
    assert end is not None
    assert (end.text, end.finish, end.usage.requests) == (RIGHT, "stop", 1)
    assert end.usage.prompt_tokens > 1000


def test_faults_before_the_first_piece_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "LONGEST_BACKOFF_S", 0.02)
    faults = ("500", "reset", "html", "429", "empty_choices", "cut_json")
    pieces, end, _, requests = stream(Settings(script=faults))
    assert "".join(pieces) == RIGHT
    assert requests == 7
    assert end is not None
    assert end.usage.requests == 7


@pytest.mark.parametrize("fault", ["cut", "error"])
def test_a_stream_that_breaks_off_is_an_error_and_is_not_begun_anew(fault: str) -> None:
    pieces, end, error, requests = stream(Settings(stream_fault=fault))
    assert pieces
    assert (end, requests) == (None, 1)
    assert error is not None
    assert (error.code, error.usage.requests) == ("malformed", 1)


def test_a_stream_that_says_why_it_ends_needs_no_done() -> None:
    pieces, end, error, requests = stream(Settings(stream_fault="no_done"))
    assert (error, requests) == (None, 1)
    assert end is not None
    assert ("".join(pieces), end.text, end.finish) == (RIGHT, RIGHT, "stop")
    assert end.usage.prompt_tokens > 1000


def test_a_stream_that_stalls_ends_by_the_idle_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def impatient(model: OpenAIModel) -> ModelError | None:
        model._idle_s = 0.3
        return (await gather(model))[2]

    with FakeServer(Settings(stream_fault="stall=30")) as server:
        error = with_model(server, impatient)
    assert error is not None
    assert "nothing came for 0.3 s" in str(error)


def test_a_stream_that_stalls_ends_by_the_deadline() -> None:
    pieces, _, error, _ = stream(Settings(stream_fault="stall=30"), deadline_s=0.5)
    assert pieces
    assert error is not None
    assert error.code == "timeout"


def test_a_slow_reader_is_not_a_slow_server() -> None:
    async def slowly(model: OpenAIModel) -> list[str | Completion]:
        got = []
        async for piece in model.stream(question(), SAMPLING, schema=ANSWER):
            got.append(piece)
            await asyncio.sleep(0.2)
        return got

    with FakeServer() as server:
        assert len(with_model(server, slowly, deadline_s=0.5)) == 4


def test_a_reader_who_leaves_closes_the_connection() -> None:
    async def leave(model: OpenAIModel) -> int:
        pieces = model.stream(question(), SAMPLING, schema=ANSWER)
        await anext(pieces)
        await pieces.aclose()  # type: ignore[attr-defined] # an async generator, typed as an iterator
        return sum(endpoint.in_flight for endpoint in model._pool._endpoints)

    with FakeServer(Settings(stream_fault="stall=30")) as server:
        before = open_sockets()
        assert with_model(server, leave) == 0
        assert sockets_back_to(before)


def test_a_refused_key_stops() -> None:
    with FakeServer(Settings(key="right")) as server, pytest.raises(KeyRefused):
        with_model(server, gather)


def feed(data: bytes, size: int, status: int = 200) -> tuple[list[str], Any]:
    async def nothing() -> Any:
        yield b""

    streamed = StreamedReply(Redactor())
    streamed.opened(Incoming(status, {}, nothing()))
    pieces: list[str] = []
    for place in range(0, len(data), size):
        pieces += streamed.feed(data[place : place + size])
    return pieces, streamed.verdict()


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_events_cut_anywhere_are_read_alike(size: int) -> None:
    data = (
        'data: {"choices":[{"delta":{"content":"é🦊"}}]}\r\n\r\n: ping\n\nevent: x\n'
        'data:{"choices":[{"delta":{"content":"\\n"},"finish_reason":"length"}]}\n\n'
        'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\ndata: [DONE]\n\ndata: {"junk"'
    ).encode()
    pieces, verdict = feed(data, size)
    assert pieces == ["é🦊", "\n"]
    assert isinstance(verdict, Answered)
    assert (verdict.completions[0].text, verdict.completions[0].finish) == ("é🦊\n", "length")
    assert verdict.usage.prompt_tokens == 3


def test_a_stream_that_ends_before_its_reason_is_cut() -> None:
    _, verdict = feed(b'data: {"choices":[{"delta":{"content":"wh"},"finish_reason":null}]}\n\n', 10)
    assert isinstance(verdict, Setback)
    assert verdict.kind == "cut stream"


def test_a_server_without_streams_is_understood() -> None:
    pieces, verdict = feed(b'{"choices":[{"message":{"content":"whole"},\n"finish_reason":"stop"}]}', 10)
    assert pieces == []
    assert isinstance(verdict, Answered)
    assert verdict.completions[0].text == "whole"


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"<html>\n", b"data: \n\n", b"data: {\n\n", b"data: 7\n\n", b"data: [DONE]\n\n"),
        b'data: {"error":1}\n\n',
        b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n',
        b'data: {"choices":[{"finish_reason":"stop"}]}\n\n',
    ],
)
def test_streams_that_say_nothing(data: bytes) -> None:
    pieces, verdict = feed(data, 100)
    assert pieces == []
    assert isinstance(verdict, Setback)
    assert verdict.code == "malformed"


def test_a_refusal_in_pieces() -> None:
    data = b'data: {"choices":[{"delta":{"refusal":"I can"}}]}\n\ndata: {"choices":[{"delta":{"refusal":"not"},'
    _, verdict = feed(data + b'"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n', 9)
    assert isinstance(verdict, Answered)
    assert (verdict.completions[0].finish, verdict.completions[0].text) == ("refusal", "I cannot")
