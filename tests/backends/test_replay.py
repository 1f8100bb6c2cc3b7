"""Recordings, and the key under which a call is found."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from insightv.backends.call_key import RecordedCall, call_key
from insightv.backends.replay import replay
from insightv.errors import ConfigError, ModelError
from insightv.records import Completion, Message, Picture, Sampling, Schema, Usage

SCHEMA = Schema(name="s", definition={"type": "object", "properties": {"a": {}, "b": {}}})
SAMPLING = Sampling(seed=3, extra={"x": 1, "y": [2]})
LOOK = Picture(data=b"abc", mime="image/png", sha256="abc", width=1, height=1)
CHAIN = (Message(role="system", content="Look."), Message(role="user", content=(LOOK, "What?")))


def key(**changes: Any) -> str:
    call: dict[str, Any] = {"model": "m", "messages": CHAIN, "sampling": SAMPLING, "schema": SCHEMA, "n": 1, **changes}
    return call_key(call["model"], call["messages"], call["sampling"], schema=call["schema"], n=call["n"])


def test_the_key_never_changes_by_itself() -> None:
    """Journals on disk hold it: another value here means a new KEY_VERSION."""
    assert key() == "1e7e28ea06c788a7366c40fdfa8950c9ada2c7a2e43f1c0bc3264f8eba654107"


def test_equal_calls_have_equal_keys() -> None:
    again = tuple(Message.model_validate_json(message.model_dump_json()) for message in CHAIN[:1])
    other_bytes = Message(role="user", content=(LOOK.model_copy(update={"data": b"other file"}), "What?"))
    assert key(messages=(*again, other_bytes)) == key()
    assert key(sampling=Sampling(seed=3, extra={"y": [2], "x": 1})) == key()
    assert key(messages=list(CHAIN)) == key()
    assert key(sampling=Sampling(temperature=1)) == key(sampling=Sampling(temperature=1.0))


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "n"},
        {"n": 2},
        {"schema": None},
        {"schema": Schema(name="t", definition=SCHEMA.definition)},
        {"schema": Schema(name="s", definition={"type": "object", "properties": {"b": {}, "a": {}}})},
        {"messages": CHAIN[1:]},
        {"messages": (CHAIN[1], CHAIN[0])},
        {"messages": (CHAIN[0], Message(role="assistant", content=CHAIN[1].content))},
        {"messages": (CHAIN[0], Message(role="user", content=("What?", LOOK)))},
        {"messages": (CHAIN[0], Message(role="user", content="What?"))},
        {"messages": (Message(role="system", content=("Look.",)), CHAIN[1])},
        {"sampling": SAMPLING.model_copy(update={"seed": 4})},
        {"sampling": SAMPLING.model_copy(update={"temperature": 0.71})},
        {"sampling": SAMPLING.model_copy(update={"top_p": 0.9})},
        {"sampling": SAMPLING.model_copy(update={"max_tokens": 9})},
        {"sampling": SAMPLING.model_copy(update={"extra": {"x": 1, "y": [3]}})},
        {"model": "\ud800"},
        {"sampling": Sampling(extra={"top_k": 2**80})},
    ],
)
def test_whatever_decides_the_reply_changes_the_key(changes: dict[str, Any]) -> None:
    assert key(**changes) != key()


def test_a_key_is_cheap() -> None:
    chain = [*CHAIN, *(Message(role="assistant", content="x" * 2000) for _ in range(10))]
    call_key("m", chain, SAMPLING, schema=SCHEMA, n=1)
    best = min(_timed(chain) for _ in range(5))
    assert best < 60e-6


def _timed(chain: list[Message]) -> float:
    began = time.perf_counter()
    for _ in range(200):
        call_key("m", chain, SAMPLING, schema=SCHEMA, n=1)
    return (time.perf_counter() - began) / 200


def recorded(seed: int, model: str = "openai/qwen", n: int = 1, **extra: Any) -> str:
    completions = [
        Completion(text=f"reply {seed}.{index} é\n", finish="length", usage=Usage(prompt_tokens=seed, requests=1))
        for index in range(n)
    ]
    found = key(model=model, sampling=Sampling(seed=seed), n=n)
    line = RecordedCall(key=found, model=model, completions=tuple(completions)).model_dump()
    return json.dumps({**line, **extra})


def write(folder: Path, *lines: str) -> str:
    path = folder / "calls.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def ask(path: str, seed: int, n: int = 1) -> list[Completion]:
    async def whole() -> list[Completion]:
        model = replay(path)
        try:
            return await model.chat(CHAIN, Sampling(seed=seed), n=n, schema=SCHEMA)
        finally:
            await model.aclose()

    return asyncio.run(whole())


def test_what_was_recorded_comes_back_exactly(tmp_path: Path) -> None:
    path = write(tmp_path, recorded(1), "", recorded(2, n=3, stage="later fields"), recorded(3, model="hf/other"))
    assert ask(path, 1) == [Completion(text="reply 1.0 é\n", finish="length", usage=Usage(prompt_tokens=1, requests=1))]
    assert [done.text for done in ask(path, 2, n=3)] == [f"reply 2.{index} é\n" for index in range(3)]
    assert ask(path, 3)[0].usage.prompt_tokens == 3
    assert replay(path).name == f"replay/{path}"


def test_what_was_not_recorded_is_not_made_up(tmp_path: Path) -> None:
    path = write(tmp_path, recorded(1))
    with pytest.raises(ModelError, match="seed 9") as caught:
        ask(path, 9)
    assert caught.value.code == "not_recorded"
    assert caught.value.usage == Usage()


def test_bad_lines_are_all_named(tmp_path: Path) -> None:
    short_key = json.dumps({**json.loads(recorded(1)), "key": "abc"})
    nothing = json.dumps({**json.loads(recorded(1)), "completions": []})
    finish = recorded(1).replace('"length"', '"done"')
    other = recorded(5).replace("reply", "answer")
    path = write(tmp_path, recorded(5), "{", short_key, "", nothing, finish, "[]", other, recorded(5))
    with pytest.raises(ConfigError) as caught:
        replay(path)
    text = str(caught.value)
    for number, field in (
        (2, "the line"),
        (3, "key"),
        (5, "completions"),
        (6, "finish"),
        (7, "the line"),
    ):
        assert f"calls.jsonl:{number}:" in text
        assert field in next(line for line in text.splitlines() if f":{number}:" in line)
    assert "calls.jsonl:8:" not in text, "the same call with other replies is no fault"
    assert "calls.jsonl:9:" not in text, "the same call twice is no fault"


def test_many_bad_lines_are_counted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="and 80 more"):
        replay(write(tmp_path, *["{"] * 100))


@pytest.mark.parametrize("name", ["missing.jsonl", ""])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        replay(str(tmp_path / name))


def test_an_empty_file_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no recorded calls"):
        replay(write(tmp_path, ""))


def test_a_file_changed_under_way_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, recorded(1), recorded(2))
    model = replay(path)
    write(tmp_path, recorded(2), recorded(1))
    with pytest.raises(ModelError, match="changed while"):
        asyncio.run(model.chat(CHAIN, Sampling(seed=2), schema=SCHEMA))
    asyncio.run(model.aclose())
