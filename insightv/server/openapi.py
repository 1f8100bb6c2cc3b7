"""What the server says of itself: its routes as OpenAPI 3.1, from the models that read requests.

The models here are the shapes of replies. They describe only: replies are put together in `response.py`, and tests
hold every one against these.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from insightv.server.request import NOT_OFFERED, ChatRequest

_REFERENCE = "#/components/schemas/{model}"
Json = dict[str, Any]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Fault(_Shape):
    """What went wrong; `code` is short and stable, `param` names the field that is wrong."""

    message: str
    type: Literal[
        "invalid_request_error", "authentication_error", "permission_error", "rate_limit_error", "server_error"
    ]
    param: str | None
    code: str


class ErrorReply(_Shape):
    """Every reply that is no success."""

    error: Fault


class ModelEntry(_Shape):
    """A model that may be asked: both agents, or one alone."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(_Shape):
    """All models."""

    object: Literal["list"]
    data: list[ModelEntry]


class Health(_Shape):
    """Whether all engines can be asked."""

    status: Literal["ok", "failing"]
    reason: str = ""


class PromptDetails(_Shape):
    """Of the prompt tokens, those that a cache served."""

    cached_tokens: int


class CompletionDetails(_Shape):
    """Of the completion tokens, those of the paths."""

    reasoning_tokens: int


class TokenUsage(_Shape):
    """What a question cost."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class PathAbout(_Shape):
    """What became of a path."""

    status: str
    code: str | None
    steps: int


class About(_Shape):
    """How an answer came to be; `followed` says whether the summary agent followed the path."""

    followed: bool | None
    agreement: float | None
    flags: list[str]
    path: PathAbout | None
    paths: int
    seconds: float


class Message(_Shape):
    """The answer, and the path that led to it."""

    role: Literal["assistant"]
    content: str | None
    reasoning_content: str
    refusal: str = ""


class Choice(_Shape):
    """The only choice."""

    index: Literal[0]
    message: Message
    finish_reason: Literal["stop", "length", "content_filter"]
    logprobs: None


class ChatCompletion(_Shape):
    """A reply at once; without `insightv` where the answer is not whole."""

    id: str
    created: int
    model: str
    object: Literal["chat.completion"]
    choices: list[Choice]
    usage: TokenUsage
    insightv: About | None = None


class Delta(_Shape):
    """What a piece of a stream adds."""

    role: Literal["assistant"] = "assistant"
    content: str = ""
    reasoning_content: str = ""


class ChunkChoice(_Shape):
    """The only choice, in a piece of a stream."""

    index: Literal[0]
    delta: Delta
    finish_reason: Literal["stop", "length", "content_filter"] | None


class StepAbout(_Shape):
    """The step that begins."""

    step: int
    title: str


class PathEnd(_Shape):
    """The path has ended."""

    path: PathAbout


class ChatChunk(_Shape):
    """The data of an event of a stream, but for an error, which is an `ErrorReply`, and the last, which is `[DONE]`."""

    id: str
    created: int
    model: str
    object: Literal["chat.completion.chunk"]
    choices: list[ChunkChoice] = Field(max_length=1)
    usage: TokenUsage | None = None
    insightv: StepAbout | PathEnd | About | None = None


@cache
def describe() -> Json:
    """The description; no setting of the server is in it."""
    shapes = (ErrorReply, ModelEntry, ModelList, Health, ChatCompletion, ChatChunk)
    _, found = models_json_schema([(shape, "validation") for shape in (ChatRequest, *shapes)], ref_template=_REFERENCE)
    schemas: Json = found["$defs"]
    for name, harmless in NOT_OFFERED.items():
        schemas["ChatRequest"]["properties"][name] = {"enum": [None, *harmless], "description": "not offered"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "insightv", "version": "1", "description": "The two-agent reasoner over HTTP."},
        "paths": _paths(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "any user name, the key as password"},
            },
        },
        "security": [{}, {"bearer": []}, {"basic": []}],
    }


def _paths() -> Json:
    page = {"/": "text/html", "/page.js": "text/javascript", "/page.css": "text/css", "/metrics": "text/plain"}
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        **{path: {"get": _route(f"GET {path}", {kind: {"type": "string"}})} for path, kind in page.items()},
        "/healthz": {"get": _route("Whether all engines can be asked", _json("Health"), {"503": _json("Health")})},
        "/openapi.json": {"get": _route("This description", {"application/json": {"type": "object"}})},
        "/v1/models": {"get": _route("All models", _json("ModelList"))},
        "/v1/models/{name}": {
            "parameters": [name],
            "get": _route("One model", _json("ModelEntry"), _errors(404)),
        },
        "/v1/chat/completions": {"post": _chat()},
    }


def _chat() -> Json:
    replies = {**_json("ChatCompletion"), "text/event-stream": {"type": "string", "description": "events of ChatChunk"}}
    errors = _errors(404, 408, 413, 415, 422, 429, 502, 503, 504)
    body = {"required": True, "content": {"application/json": {"schema": _reference("ChatRequest")}}}
    return {**_route("Ask a question", replies, errors), "requestBody": body}


def _route(summary: str, content: Json, others: Json | None = None) -> Json:
    contents = {"200": content, **(others or {}), **_errors(400, 401, 403, 500)}
    told = {"200": "done", "503": "an engine cannot be asked"}
    return {
        "summary": summary,
        "responses": {
            status: {
                "description": told.get(status, "an error"),
                "content": {kind: {"schema": schema} for kind, schema in each.items()},
            }
            for status, each in sorted(contents.items())
        },
    }


def _errors(*statuses: int) -> Json:
    return {str(status): _json("ErrorReply") for status in statuses}


def _json(name: str) -> Json:
    return {"application/json": _reference(name)}


def _reference(name: str) -> Json:
    return {"$ref": _REFERENCE.format(model=name)}
