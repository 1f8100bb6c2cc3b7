"""Whatever a body holds, it is a question or an error in the shape of the API."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insightv.config.sections import ServeSection
from insightv.records import LARGEST_COUNT, Sampling
from insightv.server.errors import ApiError
from insightv.server.request import Asked, read_request
from tests.server.serving import chat

_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_JUNK = st.recursive(_LEAVES, lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=8), some))
_PLACES: tuple[tuple[str | int, ...], ...] = (
    ("model",),
    ("messages",),
    ("messages", 0),
    ("messages", 0, "role"),
    ("messages", 0, "content"),
    ("messages", 0, "content", 0),
    ("messages", 0, "content", 0, "text"),
    ("messages", 0, "content", 1, "image_url"),
    ("messages", 0, "content", 1, "image_url", "url"),
    *((name,) for name in ("stream", "stream_options", "seed", "temperature", "top_p", "n", "tools", "stop")),
    *((name,) for name in ("max_tokens", "max_completion_tokens", "response_format", "logit_bias", "insightv")),
    *(("insightv", name) for name in ("paths", "show", "max_steps", "deadline_s")),
)


def read(form: Any, **limits: Any) -> Asked:
    return read_request(json.dumps(form).encode(), ServeSection(**limits))


def outcome(form: Any) -> Asked | ApiError:
    try:
        return read(form)
    except ApiError as error:
        return error


@given(st.lists(st.tuples(st.sampled_from(_PLACES), _JUNK), min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_junk_in_any_place_is_read_or_refused(changes: list[tuple[tuple[str | int, ...], Any]]) -> None:
    form = chat(insightv={})
    for (*way, last), junk in changes:
        spot: Any = form
        for name in way:
            spot = spot[name] if isinstance(spot, dict) and name in spot else spot
            spot = spot[name] if isinstance(spot, list) and isinstance(name, int) and name < len(spot) else spot
        if isinstance(spot, dict):
            spot[last] = junk
    found = outcome(form)
    if isinstance(found, ApiError):
        assert found.status in (400, 404, 422)
        assert len(str(found)) < 600
    else:
        Sampling(seed=found.seed)


@given(st.binary(max_size=200))
def test_junk_instead_of_a_body_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError):
        read_request(body, ServeSection())


@pytest.mark.parametrize("seed", [0, 7, LARGEST_COUNT, LARGEST_COUNT + 1, 2**63 - 1, -1, -(2**63)])
def test_every_seed_of_a_client_is_one_for_the_agents(seed: int) -> None:
    found = read(chat(seed=seed)).seed
    assert found == read(chat(seed=seed)).seed
    assert Sampling(seed=found).seed == (seed if 0 <= seed <= LARGEST_COUNT else found)


@pytest.mark.parametrize("values", [b"{},", b"[],", b"1,", b'{"role":"user","content":"a"},'])
def test_a_body_of_many_small_values_is_refused_before_it_is_read(values: bytes) -> None:
    body = b'{"model":"insightv","messages":[' + values * (4 * 2**20 // len(values)) + b"{}]}"
    tracemalloc.start()
    try:
        with pytest.raises(ApiError, match="more values") as caught:
            read_request(body, ServeSection())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.status == 413
    assert peak < 2**20


def test_of_many_faults_the_first_is_told_and_no_more_are_kept() -> None:
    turn = {"role": "user", "content": [{}] * 24}
    tracemalloc.start()
    try:
        with pytest.raises(ApiError, match=r"messages\.0\.content\.0: ") as caught:
            read({"model": "insightv", "messages": [turn] * 999})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.status == 422
    assert peak < 8 * 2**20


@pytest.mark.parametrize("body", [b"[" * 200_000, b" \n[{}]", b'"{}"', b"", b"{", b"\xef\xbb\xbf{}", b'{"a": \xff}'])
def test_what_is_no_object_is_no_request(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        read_request(body, ServeSection())
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


def test_marks_within_the_text_are_no_values() -> None:
    turns = [{"role": "user", "content": [{"type": "text", "text": "{[,"}]}] * 999
    body = chat(text="{[," * 6000)
    read({**body, "messages": [*turns, *body["messages"]]})


def test_what_is_wrong_is_named_where_it_is() -> None:
    body = chat()
    body["messages"][0]["content"][1]["image_url"] = "data:image/png;base64,AAAA"
    with pytest.raises(ApiError, match="image_url: Input should be an object"):
        read(body)
    with pytest.raises(ApiError, match="the number of paths is 50; the limit is 4") as caught:
        read(chat(insightv={"paths": 50}))
    assert caught.value.param == "insightv.paths"
