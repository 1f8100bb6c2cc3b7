"""What each kind of reply leads to, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from insightv.backends.openai import endpoint, retry
from insightv.backends.openai.classify import Setback, of_reply
from insightv.backends.openai.error_body import MOST_PARTS
from insightv.backends.openai.http import HttpTransport, Reply
from insightv.backends.openai.message import settle
from insightv.backends.openai.usage import read_usage
from insightv.errors import KeyRefused, ModelError, ModelUnknown, QuotaExhausted, StopRun
from insightv.records import Sampling, Usage
from insightv.redact import Redactor
from tests.backends.asking import ANSWER, SAMPLING, STEP, ask, question, with_model
from tests.servers.fake_openai import FakeServer, Settings

RIGHT = '{"answer": "7"}'
MALFORMED = [
    *("html", "bad_utf8", "surrogate", "not_json", "blank", "array", "nested", "nan"),
    *("empty_choices", "null_choices", "no_message", "null_content", "list_content", "error200", "abort", "cut_json"),
    *("gzip_bomb=2", "huge=2", "cut", "cut_chunk", "gzip_cut", "gzip_junk"),
]
TRANSIENT = ["408", "409", "425", "429", "500", "502", "503", "504", "529", "reset", *MALFORMED]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "LONGEST_BACKOFF_S", 0.02)


@pytest.mark.parametrize("fault", TRANSIENT)
def test_transient_faults_are_tried_again(fault: str) -> None:
    with FakeServer(Settings(script=(fault, fault))) as server:
        [reply] = ask(server, max_reply_bytes=1_000_000)
        log = server.log()
    assert reply.text == RIGHT
    assert reply.usage.requests == len(log) == 3
    assert log[1]["repeats"] == log[2]["repeats"] == 0, "another request was sent than the first time"


@pytest.mark.parametrize("fault", ["cut", "cut_chunk", "gzip_cut"])
def test_a_reply_that_is_cut_is_counted_as_such_and_not_read(fault: str) -> None:
    async def counted(model: Any) -> dict[str, int]:
        await model.chat(question(), SAMPLING)
        return dict(model.setbacks)

    with FakeServer(Settings(script=(fault, fault))) as server:
        assert with_model(server, counted) == {"cut reply": 2}


@pytest.mark.parametrize("fault", MALFORMED)
def test_malformed_for_ever_ends_with_the_start_kept(fault: str) -> None:
    with FakeServer(Settings(faults={fault: 1.0})) as server:
        with pytest.raises(ModelError) as caught:
            ask(server, max_reply_bytes=1_000_000)
        requests = len(server.log())
    assert caught.value.code == "malformed"
    assert caught.value.usage.requests == requests == retry.MALFORMED_TRIES
    assert len(caught.value.kept.encode()) <= 2048
    assert bool(caught.value.kept) == (fault not in ("blank",)) or not caught.value.kept.strip()
    assert "JSONDecodeError" not in str(caught.value)


def test_a_reset_before_any_reply_is_an_outage_however_often_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PROBE_GAPS_S", (0.02,))
    with FakeServer(Settings(script=("reset",) * (retry.MALFORMED_TRIES + 4))) as server:
        assert ask(server)[0].usage.requests == retry.MALFORMED_TRIES + 5


@pytest.mark.parametrize(
    ("status", "body"),
    [("429 Busy\r\nRetry-After: 1", b'{"error":{"mess'), ("503 Gone", b"<html>over"), ("500 Oh", b"x")],
)
def test_an_error_whose_text_is_cut_is_judged_by_its_status(status: str, body: bytes) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100_000)
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 999\r\n\r\n".encode() + body)
        writer.close()

    async def post() -> Any:
        async with await asyncio.start_server(cut, "127.0.0.1", 0) as server:
            transport = HttpTransport(max_reply_bytes=1000)
            port = server.sockets[0].getsockname()[1]
            reply = await transport.post(f"http://127.0.0.1:{port}/v1", {}, [b"{}"])
            await transport.aclose()
            return of_reply(reply, 1, Redactor())

    verdict = asyncio.run(post())
    assert isinstance(verdict, Setback)
    assert (verdict.kind, verdict.kept) == (status[:3], body.decode())
    assert verdict.health == ("busy" if status.startswith("429") else "down")
    assert verdict.retry_after_s == (1.0 if status.startswith("429") else None)


def test_tokens_of_malformed_replies_are_counted() -> None:
    with FakeServer(Settings(script=("null_content", "null_content"))) as server:
        [reply] = ask(server)
    with FakeServer() as server:
        [clean] = ask(server)
    assert reply.usage.prompt_tokens == 3 * clean.usage.prompt_tokens
    assert reply.usage.completion_tokens == 3 * clean.usage.completion_tokens


def test_a_storm_of_all_faults_loses_nothing() -> None:
    kinds = ["500", "502", "503", "reset", "cut", "html", "bad_utf8", "empty_choices", "null_content", "error200"]

    async def storm(model: Any) -> list[Any]:
        calls = (model.chat(question(), Sampling(seed=seed), schema=ANSWER) for seed in range(600))
        return await asyncio.gather(*calls)

    async def counted(model: Any) -> tuple[list[Any], int]:
        return await storm(model), sum(model.setbacks.values())

    with FakeServer(Settings(faults=dict.fromkeys(kinds, 0.03))) as server:
        replies, setbacks = with_model(server, counted, connections=32)
        log = server.log()
    assert [reply.text for [reply] in replies] == [RIGHT] * 600
    assert len(log) <= 1.6 * 600
    assert sum(reply.usage.requests for [reply] in replies) == len(log)
    assert setbacks == len(log) - 600 > 100
    assert {entry["fault"] for entry in log} == {None, *kinds}


@pytest.mark.parametrize(
    ("fault", "stop", "cure"),
    [
        ("401", KeyRefused, "OPENAI_API_KEY"),
        ("403", KeyRefused, "OPENAI_API_KEY"),
        ("quota", QuotaExhausted, "quota"),
        ("402", QuotaExhausted, "quota"),
        ("404", ModelUnknown, "'fake'"),
    ],
)
def test_what_no_call_can_survive_stops_the_run_and_is_not_asked_again(
    fault: str, stop: type[StopRun], cure: str
) -> None:
    async def several(model: Any) -> list[StopRun]:
        stops = []
        for seed in range(3):
            with pytest.raises(stop, match=cure) as caught:
                await model.chat(question(), Sampling(seed=seed))
            stops.append(caught.value)
        return stops

    with FakeServer(Settings(faults={fault: 1.0})) as server:
        stops = with_model(server, several)
        assert len(server.log()) == 1
    assert [stopped.usage.requests for stopped in stops] == [1, 0, 0]
    assert all(stopped.exit_code == 3 for stopped in stops)


def test_calls_waiting_their_turn_stop_too() -> None:
    async def many(model: Any) -> None:
        calls = (model.chat(question(), Sampling(seed=seed)) for seed in range(50))
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(end) for end in ends} == {KeyRefused}

    with FakeServer(Settings(faults={"401": 1.0}, latency_s=0.05)) as server:
        with_model(server, many, connections=4)
        assert len(server.log()) == 4


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        *((status, "bad_request") for status in ("400", "405", "413", "422")),
        ("too_long", "too_long"),
        ("redirect", "redirected"),
    ],
)
def test_a_request_at_fault_is_not_repeated_and_stops_nothing(fault: str, code: str) -> None:
    async def then_another(model: Any) -> None:
        with pytest.raises(ModelError) as caught:
            await model.chat(question(), SAMPLING)
        assert (caught.value.code, caught.value.usage.requests) == (code, 1)
        assert (await model.chat(question(), SAMPLING, schema=ANSWER))[0].text == RIGHT

    with FakeServer(Settings(script=(fault,))) as server:
        with_model(server, then_another)
        assert len(server.log()) == 2


def test_redirects_are_not_followed() -> None:
    with FakeServer() as other, FakeServer() as server:
        server.change(script=(f"redirect={other.base_url}/chat/completions",))
        with pytest.raises(ModelError, match="set base_url"):
            ask(server)
        assert other.log() == []


@pytest.mark.parametrize(
    ("fault", "finish", "text"),
    [
        ("length", "length", RIGHT),
        ("length_null", "length", ""),
        ("refusal", "refusal", "I cannot help with that"),
        ("content_filter", "refusal", ""),
        ("filter400", "refusal", ""),
        ("filter403", "refusal", ""),
    ],
)
def test_cut_and_refused_replies_say_so_and_are_not_repeated(fault: str, finish: str, text: str) -> None:
    with FakeServer(Settings(script=(fault,))) as server:
        [reply] = ask(server)
        assert len(server.log()) == 1
    assert (reply.finish, reply.text, reply.usage.requests) == (finish, text, 1)


def test_gzip_that_was_not_asked_for_is_read() -> None:
    with FakeServer(Settings(script=("gzip",))) as server:
        assert ask(server)[0].text == RIGHT


@pytest.mark.parametrize("fault", ["no_usage", "odd_usage"])
def test_missing_usage_counts_as_nothing(fault: str) -> None:
    with FakeServer(Settings(script=(fault,))) as server:
        assert ask(server)[0].usage == Usage(requests=1)


@pytest.mark.parametrize(
    ("form", "usage"),
    [
        (None, Usage()),
        ([], Usage()),
        ({"prompt_tokens": 5, "completion_tokens": True}, Usage(prompt_tokens=5)),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}}, Usage(prompt_tokens=5, cached_tokens=5)),
        ({"prompt_tokens": 5, "prompt_tokens_details": None}, Usage(prompt_tokens=5)),
        ({"prompt_tokens": 1.5, "completion_tokens": 10**30}, Usage()),  # no database keeps it
    ],
)
def test_usage_is_read_or_is_nothing(form: object, usage: Usage) -> None:
    assert read_usage(form) == usage


@pytest.mark.parametrize("reason", [None, "stop", "eos", "stop_sequence", 7])
def test_words_for_a_natural_end(reason: object) -> None:
    done = settle("text", None, reason)
    assert done is not None
    assert done.finish == "stop"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        *((word, "length") for word in ("length", "LENGTH", "max_tokens", "MAX_TOKENS", "model_length", "token_limit")),
        *((word, "length") for word in ("FinishReason.MAX_TOKENS", "model_context_window_exceeded", "ERROR_LIMIT")),
        *((word, "refusal") for word in ("content_filter", "Content-Filter", "content_filtered", "SAFETY", "refusal")),
        *((word, "refusal") for word in ("PROHIBITED_CONTENT", "RECITATION", "guardrail_intervened")),
        *((word, "stop") for word in ("COMPLETE", "end_turn", "eos_token", "STOP", "tool_calls", "", "長さ")),
    ],
)
def test_other_servers_words_for_a_cut_or_withheld_reply(reason: str, finish: str) -> None:
    done = settle("text", None, reason)
    assert done is not None
    assert (done.finish, done.text) == (finish, "text")


@pytest.mark.parametrize("reason", ["abort", "ERROR", "USER_CANCEL", "insufficient_system_resource"])
def test_a_reply_that_was_given_up_is_none(reason: str) -> None:
    assert settle("text", None, reason) is None


def test_many_parts_are_refused_unread_and_many_brackets_in_a_text_are_not() -> None:
    def verdict(parts: bytes, text: bytes = b"") -> Any:
        body = b'{"choices":[{"message":{"content":"' + text + b'"}},' + parts + b"{}]}"
        return of_reply(Reply(200, {}, body), 1, Redactor())

    assert verdict(b"{}," * MOST_PARTS).kind == verdict(b"[]," * MOST_PARTS).kind == "too many parts"
    assert verdict(b"{}," * MOST_PARTS).kept.startswith('{"choices":')
    assert verdict(b"", rb"\\frac{1}{2}" * 100_000).completions[0].text.startswith(r"\frac{1}")


def test_a_bad_choice_among_good_ones_is_left_out() -> None:
    from multidict import CIMultiDict

    from insightv.backends.openai.classify import Answered

    choices = [
        {"message": {"content": None}, "finish_reason": "stop"},
        {"message": {"content": "b"}, "finish_reason": "stop"},
        "c",
        {"message": {"content": "d"}, "finish_reason": "length"},
    ]
    reply = Reply(200, CIMultiDict(), json.dumps({"choices": choices}).encode())
    verdict = of_reply(reply, 4, Redactor())
    assert isinstance(verdict, Answered)
    assert [(done.text, done.finish) for done in verdict.completions] == [("b", "stop"), ("d", "length")]


def test_json_mode_asks_for_an_object() -> None:
    with FakeServer() as server:
        ask(server, schema=STEP, structured="json")
        assert server.log()[0]["schema"] is None
