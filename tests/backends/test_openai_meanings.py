"""What servers mean by their errors, in the words and statuses of the services in use."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from insightv.backends.openai import retry
from insightv.backends.openai.classify import Answered, Halt, Refused, Setback, Verdict, of_reply
from insightv.backends.openai.http import Reply
from insightv.backends.openai.meanings import RULES
from insightv.errors import KeyRefused, ModelError, ModelUnknown, QuotaExhausted
from insightv.records import Sampling
from insightv.redact import Redactor
from tests.backends.asking import ANSWER, SAMPLING, ask, question, with_model
from tests.servers.scripted import Body, ScriptedServer, fault, said

RIGHT = '{"answer": "7"}'


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "LONGEST_BACKOFF_S", 0.02)


def verdict(status: int, form: Any) -> Verdict:
    return of_reply(Reply(status, CIMultiDict(), json.dumps(form).encode()), 1, Redactor())


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


CONTENT = [
    (403, {"code": "no permission", "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"}),
    (403, error('Your input was flagged for "violence". No credits were charged.', code=403)),
    (400, error("Input data may contain inappropriate content.", code="data_inspection_failed")),
    (400, error("Content Exists Risk", type="invalid_request_error")),
    (400, error("Output blocked by content filtering policy", type="invalid_request_error")),
    (400, error("x", code="invalid", innererror={"code": "ResponsibleAIPolicyViolation"})),
    (200, error("The prompt was blocked by Model Armor")),
    (200, error("blocked", code="PROHIBITED_CONTENT")),
    (200, {"choices": None, "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}),
    (200, {"choices": [{"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["moderation"]}}}]}),
]


@pytest.mark.parametrize(("status", "form"), CONTENT)
def test_a_content_check_is_a_refusal_of_that_call(status: int, form: Any) -> None:
    found = verdict(status, form)
    assert isinstance(found, Answered), found
    assert [(done.text, done.finish) for done in found.completions] == [("", "refusal")]


CREDIT = [
    (400, error("Your credit balance is too low to access the API. Please go to Plans & Billing.")),
    (400, error("Access denied, please make sure your account is in good standing.", code="Arrearage")),
    (429, error("Your account is suspended, check your plan and billing", type="exceeded_current_quota_error")),
    (429, error("You exceeded your current quota, please check your plan and billing details.")),
    (403, error("Your team has either used all available credits or reached its monthly spending limit.")),
    (402, error("Insufficient Balance")),
    (200, error("Insufficient credits. Add more using the billing page", code=402)),
    (500, error("insufficient user quota", code="insufficient_user_quota")),
]


@pytest.mark.parametrize(("status", "form"), CREDIT)
def test_spent_credit_stops_the_run(status: int, form: Any) -> None:
    found = verdict(status, form)
    assert isinstance(found, Halt), found
    assert found.stop is QuotaExhausted


GOOGLE = "You exceeded your current quota, please check your plan and billing details. Please retry in 27.5s."
ROUTER = {"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "12"}}


@pytest.mark.parametrize(
    ("status", "form", "wait_s"),
    [
        (200, error("Rate limit exceeded", code=429), None),
        (200, error("Rate limit exceeded: free-models-per-day", code=429, metadata=ROUTER), 12),
        (429, error("Rate limit reached. Please try again in 1m2s.", code="rate_limit_exceeded"), 62),
        (429, [error("quota", code=429, details=[{"reason": "R"}, {"retryDelay": "9s"}])], 9),
        (429, error(GOOGLE, status="RESOURCE_EXHAUSTED"), 27.5),
        (403, error("Too many requests", code="RateLimitReached"), None),
    ],
)
def test_a_rate_limit_is_waited_for(status: int, form: Any, wait_s: float | None) -> None:
    found = verdict(status, form)
    assert isinstance(found, Setback), found
    assert (found.code, found.health, found.retry_after_s) == ("rate_limited", "busy", wait_s)


TOO_LONG = [
    (400, error("request (4390 tokens) exceeds the available context size", type="exceed_context_size_error")),
    (500, error("Context size has been exceeded.", code=500, type="server_error")),
    (200, error("the request exceeds the available context size", code=400, type="exceed_context_size_error")),
    (400, error("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).")),
    (400, error("This model's maximum context length is 4096 tokens. However, you requested 5120 tokens.")),
    (400, error("prompt is too long: 250000 tokens > 200000 maximum", type="invalid_request_error")),
    (413, error("Request too large for model `x` on tokens per minute (TPM)", code="rate_limit_exceeded")),
    (422, {"detail": [{"type": "v", "loc": ["body"], "msg": "Input tokens exceed the model's limit"}]}),
]


@pytest.mark.parametrize(("status", "form"), TOO_LONG)
def test_what_does_not_fit_is_too_long_at_once(status: int, form: Any) -> None:
    found = verdict(status, form)
    assert isinstance(found, Refused), found
    assert found.code == "too_long"


@pytest.mark.parametrize(
    ("status", "form", "stop"),
    [
        (200, error("No auth credentials found", code=401), KeyRefused),
        (400, [error("API key not valid. Please pass a valid API key.", code=400)], KeyRefused),
        (400, error("Model Not Exist", type="invalid_request_error"), ModelUnknown),
    ],
)
def test_other_stops_in_other_statuses(status: int, form: Any, stop: type[Exception]) -> None:
    found = verdict(status, form)
    assert isinstance(found, Halt), found
    assert found.stop is stop


@pytest.mark.parametrize(
    ("status", "form", "code"),
    [
        (200, error("Provider returned error", code=502), "malformed"),
        (200, error("something"), "malformed"),
        (503, error("Loading model", code=503, type="unavailable_error"), "server_error"),
        (400, error("max_tokens is too large: 9. This model supports at most 8 completion tokens"), "bad_request"),
        (400, error("temperature must be between 0 and 2"), "bad_request"),
    ],
)
def test_what_is_left_is_read_by_its_status(status: int, form: Any, code: str) -> None:
    found = verdict(status, form)
    assert isinstance(found, Setback | Refused), found
    assert found.code == code


def test_each_rule_says_why_it_is_there() -> None:
    assert all(rule.reason for rule in RULES)


def test_a_403_amid_answered_calls_is_that_calls_own() -> None:
    async def three(model: Any) -> None:
        await model.chat(question(), SAMPLING)
        with pytest.raises(ModelError) as caught:
            await model.chat(question(), Sampling(seed=3))
        assert (caught.value.code, caught.value.usage.requests) == ("forbidden", 1)
        await model.chat(question(), SAMPLING)

    with ScriptedServer(lambda body: fault(403, "no") if body["seed"] == 3 else said("a")) as server:
        with_model(server.base_url, three)
    with ScriptedServer(lambda body: fault(403, "no")) as server, pytest.raises(KeyRefused):
        ask(server.base_url)


def test_a_key_that_is_taken_away_stops_the_run() -> None:
    async def many(model: Any) -> None:
        await model.chat(question(), SAMPLING)
        for _ in range(20):
            with pytest.raises((ModelError, KeyRefused)) as caught:
                await model.chat(question(), Sampling(seed=3))
        assert isinstance(caught.value, KeyRefused)

    with ScriptedServer(lambda body: fault(403, "no") if body["seed"] == 3 else said("a")) as server:
        with_model(server.base_url, many)
        assert len(server.bodies) < 10


def test_a_server_that_answers_errors_of_its_own_to_the_first_calls_refuses() -> None:
    with ScriptedServer(lambda body: fault(500, "the projector is missing")) as server:
        with pytest.raises(ModelError, match="the projector is missing") as caught:
            ask(server.base_url)
        assert len(server.bodies) <= 5
    assert caught.value.code == "bad_request"


def test_a_limit_within_a_reply_of_status_200_is_waited_for_and_lost_is_nothing() -> None:
    replies = iter([fault(200, "Rate limit exceeded", code=429)] * 3)

    def handler(body: Body) -> tuple[int, Any]:
        return next(replies, said(RIGHT))

    with ScriptedServer(handler) as server:
        assert ask(server.base_url, schema=ANSWER)[0].text == RIGHT


def test_an_error_in_a_stream_is_read_by_its_code() -> None:
    async def streamed(model: Any) -> None:
        with pytest.raises(QuotaExhausted):
            async for _ in model.stream(question(), SAMPLING):
                pass

    with ScriptedServer(lambda body: (200, [{"error": {"code": 402, "message": "no"}}])) as server:
        with_model(server.base_url, streamed)
