"""Requests fitted to what a server takes: by options, by profiles, and by what it refuses."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from insightv.backends.openai import retry
from insightv.backends.openai.factory import openai
from insightv.backends.openai.fit import PROFILES, fit_of
from insightv.backends.openai.request import request_body
from insightv.errors import ConfigError, ModelError
from insightv.records import Message, Sampling
from tests.backends.asking import ANSWER, SAMPLING, STEP, picture, question, with_model
from tests.servers.scripted import Body, Handler, ScriptedServer, fault, said


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "LONGEST_BACKOFF_S", 0.02)


def body(fit: Any, messages: list[Message] | None = None, **options: Any) -> Body:
    form: Body = json.loads(b"".join(request_body("fake", messages or question(), SAMPLING, fit=fit, **options)))
    return form


def test_fields_are_left_out_and_renamed() -> None:
    sent = body(fit_of(omit=["temperature", "seed"], rename={"max_tokens": "max_completion_tokens"}))
    assert sent.keys() == {"messages", "model", "top_p", "max_completion_tokens"}
    assert sent["max_completion_tokens"] == SAMPLING.max_tokens


def test_instructions_can_begin_the_users_turn_or_be_the_developers() -> None:
    [turn] = body(fit_of(system="user"))["messages"]
    assert (turn["role"], [part["type"] for part in turn["content"]]) == ("user", ["text", "image_url", "text"])
    assert turn["content"][0]["text"] == "You look closely."
    assert [turn["role"] for turn in body(fit_of(system="developer"))["messages"]] == ["developer", "user"]


def test_without_pictures_content_is_a_plain_text() -> None:
    messages = [Message(role="system", content="s"), Message(role="user", content=("a", "b"))]
    assert [turn["content"] for turn in body(fit_of(), messages)["messages"]] == ["s", "a\nb"]
    [turn] = body(fit_of(system="user"), messages)["messages"]
    assert turn["content"] == "s\na\nb"


def test_a_profile_is_a_word_for_what_a_service_takes() -> None:
    sent = body(fit_of("openai-reasoning"), schema=STEP)
    assert sent.keys() == {"messages", "model", "seed", "max_completion_tokens", "response_format"}
    assert body(fit_of("mistral"))["random_seed"] == SAMPLING.seed
    assert "seed" not in body(fit_of("gemini"))
    assert "response_format" not in body(fit_of("anthropic"), schema=STEP)
    assert "response_format" in body(fit_of("anthropic", structured="schema"), schema=STEP)
    assert {"openai", "openai-reasoning", "anthropic", "gemini", "mistral"} <= PROFILES.keys()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"profile": "antropic"}, "did you mean 'anthropic'"),
        ({"omit": ["temprature"]}, "did you mean 'temperature'"),
        ({"omit": "seed"}, "a list of fields"),
        ({"rename": {"messages": "m"}}, "which insightv does not send"),
        ({"system": "assistant"}, "system, developer, user"),
        ({"structured": "yaml"}, "schema, json, prompt"),
    ],
)
def test_unknown_words_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        openai("m", base_url="http://127.0.0.1:9/v1", **options)


def unless(refused: Any, reply: tuple[int, Any]) -> Handler:
    return lambda form: reply if refused(form) else said("{}", n=form.get("n") or 1)


def named(field: str, words: str, **more: Any) -> tuple[int, Any]:
    return fault(400, words, param=field, **more)


def has(field: str) -> Any:
    return lambda form: field in form


ELSE = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
LLAMA = "[{'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), 'msg': \"Input should be 'text'\"}]"
EXTRA = {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}
UNKNOWN = [{"error": {"code": 400, "message": 'Unknown name "seed": Cannot find field.', "status": "INVALID_ARGUMENT"}}]
BOTH = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
ONLY = "Unsupported value: 'temperature' does not support 0.7. Only the default (1) value is supported."


def is_schema(form: Body) -> bool:
    return (form.get("response_format") or {}).get("type") == "json_schema"


def has_system(form: Body) -> bool:
    return str(form["messages"][0]["role"]) == "system"


@pytest.mark.parametrize(
    ("refused", "reply", "cure"),
    [
        (has("max_tokens"), named("max_tokens", ELSE, code="unsupported_parameter"), "max_completion_tokens"),
        (has("top_p"), fault(400, "Unsupported parameter: 'top_p' is not supported with this model."), "top_p"),
        (has("temperature"), named("temperature", ONLY, code="unsupported_value"), "temperature"),
        (lambda form: "temperature" in form and "top_p" in form, fault(400, BOTH), "top_p"),
        (has("seed"), (422, EXTRA), "seed"),
        (has("seed"), (400, UNKNOWN), "seed"),
        (is_schema, fault(400, "This response_format type is unavailable now", param=None), 'structured = "json"'),
        (has("response_format"), fault(500, LLAMA, type="internal_server_error"), 'structured = "prompt"'),
        (has_system, (400, {"object": "error", "message": "Images are incompatible with system messages."}), "system"),
        (has_system, fault(400, "Conversation roles must alternate user/assistant/user/assistant/..."), "system"),
    ],
)
def test_a_field_that_is_refused_by_name_is_left_out_from_then_on(
    refused: Any, reply: tuple[int, Any], cure: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def four(model: Any) -> None:
        for seed in range(4):
            await model.chat(question(), Sampling(seed=seed), schema=ANSWER)
        assert sum(model.setbacks.values()) == sum(map(refused, server.bodies))

    with caplog.at_level(logging.WARNING), ScriptedServer(unless(refused, reply)) as server:
        with_model(server.base_url, four)
        tried = sum(map(refused, server.bodies))
        assert 1 <= tried <= 2
        assert len(server.bodies) == 4 + tried
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == tried
    assert cure in told[-1]


@pytest.mark.parametrize(
    "reply",
    [
        fault(400, "Only one completion choice is allowed"),
        (422, {"detail": [{"type": "less_than_equal", "loc": ["body", "n"], "msg": "less than or equal to 1"}]}),
        fault(500, "n > 1 is not implemented"),
        fault(501, "not supported"),
        fault(400, "n must be 1: parallel sampling would exceed the context window of one slot"),
    ],
)
def test_several_replies_that_are_refused_in_any_way_are_drawn_one_by_one(reply: tuple[int, Any]) -> None:
    async def twice(model: Any) -> None:
        for _ in range(2):
            assert len(await model.chat(question(), SAMPLING, n=4)) == 1

    with ScriptedServer(unless(lambda form: (form.get("n") or 1) > 1, reply)) as server:
        with_model(server.base_url, twice)
        assert [form.get("n") for form in server.bodies] == [4, None, None]


def test_a_value_that_is_out_of_range_is_the_users_to_correct() -> None:
    async def one(model: Any) -> None:
        with pytest.raises(ModelError, match="less than or equal to 1"):
            await model.chat(question(), SAMPLING)

    reply = (422, {"detail": [{"loc": ["body", "temperature"], "msg": "Input should be less than or equal to 1"}]})
    with ScriptedServer(lambda form: reply) as server:
        with_model(server.base_url, one)
        assert len(server.bodies) == 1


def test_a_picture_is_not_encoded_anew_where_instructions_move() -> None:
    look = picture()
    messages = [Message(role="system", content="s"), Message(role="user", content=(look, "q"))]
    parts = body(fit_of(system="user"), messages)["messages"][0]["content"]
    assert parts[1]["image_url"]["url"] == look.data_url
