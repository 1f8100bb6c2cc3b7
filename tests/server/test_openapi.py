"""The description of the server, and requests drawn from it: no fault of ours, and every reply as it is described."""

from __future__ import annotations

import http.client
import json
import string
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from insightv import Reasoner
from insightv.server.guard import ROUTES
from insightv.server.openapi import describe
from insightv.testing import ScriptedModel, sample_picture
from tests.server.serving import Served, chat

PATH = "/v1/chat/completions"
THOUGHTS = "<thoughts>\n### Look\nThe bar B ends at 7.\n</thoughts>"
HANDED_IN = {"timeout", "deadline"}
"""What a request may ask for itself, by a deadline that nothing can be done in."""

Json = Any


def said(messages: Any, _: Any) -> str:
    return "B" if "REASONING" in str(messages[-1].content) else THOUGHTS


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served(lambda: Reasoner.of(ScriptedModel(said)), max_body_bytes=100_000) as served:
        yield served


def held_against(schema: Json, value: Json) -> None:
    jsonschema.Draft202012Validator({**schema, "components": describe()["components"]}).validate(value)


def check(method: str, path: str, status: int, kind: str, body: bytes) -> None:
    """The reply is one that the description has."""
    described = describe()["paths"]
    route = "/v1/models/{name}" if path.startswith("/v1/models/") and path not in described else path
    if method not in {name.upper() for name in described.get(route, {})}:
        assert status in (400, 401, 403, 404, 405), (method, path, status)
        held_against({"$ref": "#/components/schemas/ErrorReply"}, json.loads(body))
        return
    schema = described[route][method.lower()]["responses"][str(status)]["content"][kind]["schema"]
    if kind == "application/json":
        held_against(schema, json.loads(body))
    elif kind == "text/event-stream":
        *events, done = body.decode().strip().split("\n\n")
        assert done == "data: [DONE]"
        shapes = [{"$ref": f"#/components/schemas/{name}"} for name in ("ChatChunk", "ErrorReply")]
        for event in events:
            held_against({"anyOf": shapes}, json.loads(event.removeprefix("data: ")))


def test_it_is_served_and_describes_every_route(served: Served) -> None:
    status, form = served.form("GET", "/openapi.json")
    assert (status, form) == (200, json.loads(json.dumps(describe())))
    assert form["openapi"] == "3.1.0"
    assert set(form["paths"]) == {*ROUTES, "/v1/models/{name}"}
    for schema in form["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    names = {text.partition('"')[0] for text in json.dumps(form).split("#/components/schemas/")[1:]}
    assert names <= set(form["components"]["schemas"])


@pytest.mark.parametrize("model", ["insightv", "insightv-reason", "insightv-summary"])
@pytest.mark.parametrize("stream", [False, True])
def test_replies_are_as_described(served: Served, model: str, stream: bool) -> None:
    asked = chat(model=model, stream=stream, stream_options={"include_usage": True})
    held_against({"$ref": "#/components/schemas/ChatRequest"}, asked)
    for method, path, body in (
        ("POST", PATH, asked),
        ("POST", PATH, {**asked, "insightv": {"paths": 50}}),
        ("GET", "/v1/models", None),
        ("GET", f"/v1/models/{model}", None),
        ("GET", "/v1/models/gpt-4", None),
        ("GET", "/healthz", None),
    ):
        reply = served.request(method, path, body)
        check(method, path, reply.status, str(reply.getheader("Content-Type")).partition(";")[0], reply.text.encode())


def drawn_from(schema: Json) -> st.SearchStrategy[Any]:
    """Values that a schema of the description allows; of free texts and numbers, some."""
    if "$ref" in schema:
        return st.deferred(lambda: drawn_from(describe()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]))
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return st.one_of([drawn_from(each) for each in schema[several]])
    drawn: st.SearchStrategy[Any] = _DRAWN.get(schema.get("type", ""), lambda _: JUNK)(schema)
    return drawn


def _object(schema: Json) -> st.SearchStrategy[Any]:
    fields = {name: drawn_from(each) for name, each in schema.get("properties", {}).items()}
    needed = set(schema.get("required", ()))
    return st.fixed_dictionaries(
        {name: each for name, each in fields.items() if name in needed},
        optional={name: each for name, each in fields.items() if name not in needed},
    )


def _number(schema: Json) -> st.SearchStrategy[Any]:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1e6))
    return st.floats(low, schema.get("maximum", 1e6), exclude_min="exclusiveMinimum" in schema)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JUNK = st.recursive(LEAVES, lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=8), some))
TEXTS = st.sampled_from(
    [
        sample_picture().data_url,
        "What is 3 + 4?",
        "data:image/png;base64,AAAA",
        "http://127.0.0.1/x.png",
        "<thoughts>",
        "\ud800",
    ]
)
_DRAWN: dict[str, Any] = {
    "object": _object,
    "array": lambda schema: st.lists(drawn_from(schema["items"]), min_size=schema.get("minItems", 0), max_size=3),
    "string": lambda _: TEXTS | st.text(max_size=40),
    "integer": lambda schema: st.integers(schema.get("minimum"), schema.get("maximum")),
    "number": _number,
    "boolean": lambda _: st.booleans(),
    "null": lambda _: st.none(),
}


@st.composite
def broken(draw: st.DrawFn) -> Any:
    """A body that the description allows, with something else in one of its places."""
    form = draw(BODIES)
    spot = form
    while isinstance(spot, dict | list) and spot:
        places = sorted(spot) if isinstance(spot, dict) else list(range(len(spot)))
        place = draw(st.sampled_from(places))
        if draw(st.booleans()) or not isinstance(spot[place], dict | list):
            spot[place] = draw(JUNK)
            break
        spot = spot[place]
    return form


BODIES = drawn_from({"$ref": "#/components/schemas/ChatRequest"})
NAMES = st.text(string.printable, max_size=8).map(lambda name: "/v1/models/" + quote(name, safe=""))
PATHS = (
    st.sampled_from(sorted(ROUTES))
    | NAMES
    | st.text(max_size=8).map(lambda name: "/" + quote(name.encode("utf-8", "ignore")))
)
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY"])
VALUES = st.text(string.ascii_letters + string.digits + " /;:=*,.-_[]@", max_size=20)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["Accept", "Authorization", "Content-Type", "Cookie", "Expect", "Origin", "Range", "TE", "Upgrade"]
    ),
    VALUES,
    max_size=3,
)
QUESTIONS: st.SearchStrategy[Any] = st.tuples(
    st.just("POST"), st.just(PATH), st.just({}), st.one_of(BODIES, broken(), JUNK)
)
ELSEWHERE = st.tuples(METHODS, PATHS, HEADERS, st.one_of(st.none(), st.binary(max_size=40), BODIES))
REQUESTS = st.one_of(QUESTIONS, QUESTIONS, ELSEWHERE)


class Client:
    """Asks over one connection, as long as that is kept."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method: str, path: str, headers: dict[str, str], body: Any) -> None:
        """Ask, and hold the reply against the description."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        self._connection.request(method, path, data, {"Content-Type": "application/json", **headers})
        reply = self._connection.getresponse()
        said, kind = reply.read(), str(reply.getheader("Content-Type")).partition(";")[0]
        code = json.loads(said)["error"]["code"] if reply.status >= 400 else ""
        assert reply.status < 500 or (reply.status == 504 and code in HANDED_IN), (reply.status, said)
        check(method, path, reply.status, kind, said)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Client]:
    client = Client(served.port)
    yield client
    client.close()


SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)


@given(request=REQUESTS)
@settings(max_examples=300, deadline=None, suppress_health_check=SLOW)
def test_whatever_is_asked_is_answered_as_described(client: Client, request: Any) -> None:
    client.ask(*request)


@pytest.mark.slow
@pytest.mark.timeout(300)
@given(request=REQUESTS)
@settings(max_examples=5000, deadline=None, suppress_health_check=SLOW)
def test_of_5000_requests_each_is_answered_as_described(client: Client, request: Any) -> None:
    client.ask(*request)
