"""Requests: the chain's bytes, what is encoded once, and the fields."""

from __future__ import annotations

import base64
import gc
import json
from typing import Any

import pytest
from pydantic import ValidationError

from insightv.backends.openai import request
from insightv.backends.openai.fit import fit_of
from insightv.backends.openai.model import OpenAIModel
from insightv.errors import ModelError
from insightv.records import RESERVED, Message, Sampling, Schema
from tests.backends.asking import ANSWER, SAMPLING, STEP, ask, model_at, picture, question, with_model
from tests.servers.fake_openai import FakeServer, Settings

HOSTILE = 'quote " backslash \\ newline \n tab \t nul \x00 é 数 🦊 \u2028 </script> {"title": "x"}'


def body(messages: list[Message], sampling: Sampling = SAMPLING, **options: Any) -> bytes:
    return b"".join(request.request_body("fake", messages, sampling, **options))


def test_body_holds_what_was_said_and_nothing_else() -> None:
    look = picture()
    messages = [
        Message(role="system", content=HOSTILE),
        Message(role="user", content=("before", look, HOSTILE)),
        Message(role="assistant", content=' {"kept" :  "as it came"}\n'),
    ]
    form = json.loads(body(messages, schema=STEP, n=3))
    url = "data:image/png;base64," + base64.b64encode(look.data).decode()
    assert form["messages"] == [
        {"role": "system", "content": HOSTILE},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "before"},
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": HOSTILE},
            ],
        },
        {"role": "assistant", "content": ' {"kept" :  "as it came"}\n'},
    ]
    assert url == look.data_url
    assert {name: value for name, value in form.items() if name != "messages"} == {
        "model": "fake",
        "temperature": 0.7,
        "top_p": 0.95,
        "max_tokens": 1024,
        "seed": 7,
        "n": 3,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "reasoning_step", "schema": STEP.definition, "strict": True},
        },
    }


@pytest.mark.parametrize(
    ("structured", "expected"), [("json", {"type": "json_object"}), ("prompt", None)], ids=["json", "prompt"]
)
def test_weaker_servers_get_a_weaker_format_and_the_same_chain(structured: str, expected: object) -> None:
    weak = body(question(), schema=STEP, fit=fit_of(structured=structured))
    assert json.loads(weak).get("response_format") == expected
    end = body(question(), schema=STEP).index(b'],"model"')
    assert weak[:end] == body(question(), schema=STEP)[:end]


def test_without_a_schema_there_is_no_format_and_one_reply_asks_for_no_n() -> None:
    assert json.loads(body(question())).keys() == {"messages", "model", "temperature", "top_p", "max_tokens", "seed"}


def test_each_body_begins_with_the_one_before_whatever_the_sampling() -> None:
    chain = question()
    before = body(chain, Sampling(seed=1), schema=STEP)
    for number in range(6):
        prefix = before[: before.index(b'],"model"')]
        chain = [*chain, Message(role="assistant", content=f'{{"n": {number}, "s": "é\\n"}}')]
        before = body(chain, Sampling(seed=number, temperature=0.1 * number), schema=ANSWER)
        assert before.startswith(prefix)


def test_a_picture_is_encoded_once_and_a_message_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    real = base64.b64encode

    def counting(data: bytes) -> bytes:
        encoded.append(len(data))
        return real(data)

    monkeypatch.setattr(base64, "b64encode", counting)
    look = picture(50_000)
    first = Message(role="user", content=(look, "one"))
    second = Message(role="user", content=(look, "two"))
    for _ in range(5):
        body([first])
        body([second])
    assert encoded == [50_000]
    pieces_of_first, pieces_of_second = request.MESSAGES.of(first), request.MESSAGES.of(second)
    assert pieces_of_first is request.MESSAGES.of(first)
    shared = [piece for piece in pieces_of_first if len(piece) > 50_000]
    assert shared
    assert all(any(piece is other for other in pieces_of_second) for piece in shared), "the data URL is copied"


def test_encoded_bytes_go_when_the_messages_go() -> None:
    gc.collect()
    messages, pictures = len(request.MESSAGES), len(request.PICTURES)
    chain = question()
    body(chain)
    assert (len(request.MESSAGES), len(request.PICTURES)) == (messages + 2, pictures + 1)
    del chain
    gc.collect()
    assert (len(request.MESSAGES), len(request.PICTURES)) == (messages, pictures)


def test_extra_fields_go_as_they_are_and_may_replace_the_usual_ones() -> None:
    extra = {"repetition_penalty": 1.1, "max_tokens": None, "max_completion_tokens": 50, "top_p": 0.5}
    form = json.loads(body(question(), Sampling(extra=extra)))
    assert extra.items() <= form.items()


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_extra_fields_cannot_replace_what_insightv_sets(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        Sampling(extra={name: 1})


@pytest.mark.parametrize(
    ("messages", "sampling"),
    [
        ([Message(role="user", content="lone \ud800")], SAMPLING),
        ([Message(role="user", content=("lone \udfff",))], SAMPLING),
        (question(), Sampling(extra={"bad": object()})),
        (question(), Sampling(extra={"bad": "\ud800"})),
    ],
)
def test_what_json_cannot_say_is_refused_before_it_is_sent(messages: list[Message], sampling: Sampling) -> None:
    with FakeServer() as server:
        with pytest.raises(ModelError, match="cannot be written as JSON") as caught:
            with_model(server, lambda model: model.chat(messages, sampling))
        assert caught.value.code == "bad_request"
        assert " at 0x" not in str(caught.value)
        assert server.log() == []


def test_the_server_sees_a_growing_prefix_over_a_chain() -> None:
    async def chain(model: Any) -> list[str]:
        messages, replies = question(), []
        for step in range(3):
            [reply] = await model.chat(messages, Sampling(seed=step), schema=STEP)
            replies.append(reply.text)
            messages = [
                *messages,
                Message(role="assistant", content=reply.text),
                Message(role="user", content="Go on."),
            ]
        await model.chat(messages, Sampling(seed=9), schema=ANSWER)
        return replies

    with FakeServer(Settings(steps=(3, 3))) as server:
        replies = with_model(server, chain)
        log = server.log()
    assert [entry["extends"] for entry in log] == [None, 0, 1, 2]
    assert [entry["repeats"] for entry in log] == [None] * 4
    assert [json.loads(reply)["action"] for reply in replies] == ["continue", "continue", "summary"]
    assert log[3]["said"] == [{"answer": "7", "right": True}]


def test_choices_are_drawn_in_one_request() -> None:
    with FakeServer() as server:
        replies = ask(server, n=4, schema=STEP)
        [entry] = server.log()
    assert len({reply.text for reply in replies}) == 4
    assert entry["n"] == 4
    assert replies[0].usage.requests == 1
    assert [reply.usage.requests + reply.usage.completion_tokens for reply in replies[1:]] == [0, 0, 0]


@pytest.mark.parametrize(("given", "asked", "got"), [(2, 4, 2), (64, 1, 1)])
def test_fewer_choices_than_asked_are_taken_more_are_cut(given: int, asked: int, got: int) -> None:
    with FakeServer(Settings(most_choices=given)) as server:
        assert len(ask(server, n=asked)) == got


def test_a_server_that_refuses_to_draw_several_is_asked_for_one_and_not_again() -> None:
    async def thrice(model: OpenAIModel) -> list[int]:
        lengths = []
        for seed, n in enumerate((4, 1, 4)):
            replies = await model.chat(question(), Sampling(seed=seed), n=n, schema=STEP)
            lengths.append(len(replies))
            costs.append(replies[0].usage.requests)
        return lengths

    costs: list[int] = []
    with FakeServer(Settings(script=("400",))) as server:
        assert with_model(server, thrice) == [1, 1, 1]
        assert [entry["n"] for entry in server.log()] == [4, 1, 1, 1]
    assert costs == [2, 1, 1]


def test_usage_has_the_cached_tokens() -> None:
    async def twice(model: Any) -> Any:
        await model.chat(question(), SAMPLING, schema=STEP)
        return await model.chat(question(), Sampling(seed=8), schema=STEP)

    with FakeServer() as server:
        [reply] = with_model(server, twice)
    assert reply.usage.prompt_tokens == reply.usage.cached_tokens > 1000
    assert reply.usage.completion_tokens > 10


def test_large_bodies_arrive_whole() -> None:
    look = picture(3_000_000)
    messages = [Message(role="user", content=(look, "What? [truth=7]"))]

    with FakeServer() as server:
        with_model(
            server, lambda model: model.chat(messages, SAMPLING, schema=Schema(name="final_answer", definition={}))
        )
        [entry] = server.log()
    assert entry["size"] > 4_000_000
    assert entry["fault"] is None


def test_one_model_serves_several_loops_one_after_the_other() -> None:
    import asyncio

    with FakeServer() as server:

        async def once() -> str:
            async with model_at(server) as model:
                kept.append(model)
                return (await model.chat(question(), SAMPLING, schema=ANSWER))[0].text

        async def again() -> str:
            [reply] = await kept[0].chat(question(), SAMPLING, schema=ANSWER)
            await kept[0].aclose()
            return reply.text

        kept: list[OpenAIModel] = []
        assert asyncio.run(once()) == asyncio.run(again()) == '{"answer": "7"}'
