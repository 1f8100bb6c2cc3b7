"""Plugins' parts that fail in every way during a build: each costs its own items, never the run, never in silence.

Loading broken plugins is proven in tests/test_plugins.py; here the parts are built and misbehave when they are asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from insightv import (
    ChatModel,
    Completion,
    Generator,
    Message,
    ModelError,
    Pipeline,
    Question,
    ReasoningPath,
    Sampling,
    Score,
    Scorer,
    Step,
    StopRun,
    Usage,
)
from insightv.config.settings import check_settings
from insightv.records import Schema
from insightv.train.run_datasets import export
from tests.chaos.after import CANARY, check_run

pytestmark = pytest.mark.chaos
Make = Callable[..., Any]


class BeyondException(BaseException):
    """What an `except Exception` lets through."""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even its text")


def throws(error: Any) -> Make:
    def make(*_: object) -> None:
        raise error

    return make


def unchecked(kind: type[Any], **fields: Any) -> Any:
    """A record that pydantic has never seen."""
    return kind.model_construct(
        **{
            **{
                name: f.get_default(call_default_factory=True, validated_data={})
                for name, f in kind.model_fields.items()
            },
            **fields,
        }
    )


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def scores(paths: Sequence[object], **fields: Any) -> list[Score]:
    return [unchecked(Score, **{"scorer": "s", "value": 50.0, **fields}) for _ in paths]


def paths(question: Question, n: int, **fields: Any) -> list[ReasoningPath]:
    whole = {"status": "ok", "steps": (Step(title="a", content="b", action="summary"),), "answer": "1"}
    return [unchecked(ReasoningPath, question_id=question.id, index=i, **{**whole, **fields}) for i in range(n)]


class OddScorer(Scorer):
    def __init__(self, make: Make) -> None:
        self.make = make

    async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
        made = self.make(question, paths)
        return await made if asyncio.iscoroutine(made) else made  # type: ignore[no-any-return]


class OddGenerator(Generator):
    def __init__(self, make: Make = paths) -> None:
        self.make = make

    async def generate(self, question: Question, n: int, *, seed: int = 0) -> list[ReasoningPath]:
        made = self.make(question, n)
        return await made if asyncio.iscoroutine(made) else made  # type: ignore[no-any-return]


class OddModel(ChatModel):
    name = "odd/model"

    def __init__(self, make: Make) -> None:
        self.make = make

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        made = self.make(n)
        return await made if asyncio.iscoroutine(made) else made  # type: ignore[no-any-return]


class Asking(Generator):
    """Asks its model once per question."""

    def __init__(self, model: ChatModel) -> None:
        self.model = model

    async def generate(self, question: Question, n: int, *, seed: int = 0) -> list[ReasoningPath]:
        await self.model.chat([Message(role="user", content=question.question)], Sampling(seed=1))
        return paths(question, n)


async def cancels_itself(*_: object) -> None:
    inner = asyncio.ensure_future(asyncio.sleep(60))
    asyncio.get_running_loop().call_soon(inner.cancel)
    await inner  # a cancelled helper, awaited: its CancelledError is the part's own


async def waits_for_ever(*_: object) -> None:
    await asyncio.Event().wait()


ERRORS: dict[str, Make] = {
    "cancelled": cancels_itself,
    "cancelled at once": throws(asyncio.CancelledError()),
    "beyond Exception": throws(BeyondException("x")),
    "generator exit": throws(GeneratorExit()),
    "sys.exit": throws(SystemExit(3)),
    "file name in bytes": throws(OSError("cannot open a\udc80b")),
    "unspeakable": throws(Unspeakable()),
    "memory": throws(MemoryError()),
    "recursion": throws(RecursionError()),
    "stop iteration": throws(StopAsyncIteration()),
    "timeout of its own": throws(TimeoutError("mine")),
    "code that is none": throws(ModelError(None, None)),  # type: ignore[arg-type]
    "code of bytes": throws(ModelError(b"x", "y")),  # type: ignore[arg-type]
    "half characters": throws(ModelError("a\udc80", "b\udc80", kept="c\udc80")),
    "usage of a kind": throws(ModelError("odd", "y", usage={"requests": 1})),  # type: ignore[arg-type]
    "kept of a kind": throws(ModelError("odd", "y", kept=7)),  # type: ignore[arg-type]
    "key in the text": throws(ValueError(f"refused: {CANARY}")),
    "key in a ModelError": throws(ModelError("odd", f"refused: {CANARY}", kept=f"Bearer {CANARY}")),
}
cyclic: dict[str, Any] = {}
cyclic["self"] = cyclic
BAD_SCORES: dict[str, Make] = {
    "hangs": waits_for_ever,
    "nothing": lambda q, p: None,
    "a tuple": lambda q, p: tuple(scores(p)),
    "a generator": lambda q, p: (score for score in scores(p)),
    "one too many": lambda q, p: [*scores(p), *scores(p)[:1]],
    "850": lambda q, p: scores(p, value=850.0),
    "nan": lambda q, p: scores(p, value=float("nan")),
    "accepted yes": lambda q, p: scores(p, accepted="perhaps"),
    "half a character": lambda q, p: scores(p, reason="a\udc80"),
    "details with half a character": lambda q, p: scores(p, details={"n": "a\udc80"}),
    "details with a key that is none": lambda q, p: scores(p, details={1: 1}),
    "details with bytes": lambda q, p: scores(p, details={"a": b"\xff"}),
    "details with an object": lambda q, p: scores(p, details={"a": object()}),
    "details without end": lambda q, p: scores(p, details=cyclic),
    "details too deep": lambda q, p: scores(p, details=nested(400)),
}
ODD_BUT_SOUND: dict[str, Make] = {
    "details with nan": lambda q, p: scores(p, details={"n": float("nan"), "m": float("-inf")}),
    "details with a large number": lambda q, p: scores(p, details={"n": 2**70}),
    "a reason of 2 MB": lambda q, p: scores(p, reason="x" * 2_000_000),
    "a mutated question": lambda q, p: (q.meta.clear(), scores(p))[1],
}
BAD_PATHS: dict[str, Make] = {
    "hangs": waits_for_ever,
    "nothing": lambda q, n: None,
    "too few": lambda q, n: paths(q, n)[1:],
    "in another order": lambda q, n: paths(q, n)[::-1],
    "of another question": lambda q, n: paths(q.model_copy(update={"id": "other"}), n),
    "ok without an answer": lambda q, n: paths(q, n, answer=None),
    "ok with an empty answer": lambda q, n: paths(q, n, answer=""),
    "ok without steps": lambda q, n: paths(q, n, steps=()),
    "ok with a code": lambda q, n: paths(q, n, code="odd"),
    "failed without a code": lambda q, n: paths(q, n, status="failed"),
    "a status of its own": lambda q, n: paths(q, n, status="fine"),
    "half a character": lambda q, n: paths(q, n, answer="a\udc80"),
    "a huge seed": lambda q, n: paths(q, n, seed=2**80),
    "a huge count": lambda q, n: paths(q, n, usage=unchecked(Usage, requests=2**80)),
    "steps of dicts": lambda q, n: paths(q, n, steps=({"title": "a"},)),
}
BAD_REPLIES: dict[str, Make] = {
    "hangs": waits_for_ever,
    "nothing": lambda n: None,
    "no reply": lambda n: [],
    "too many": lambda n: [Completion(text="x")] * (n + 1),
    "a generator": lambda n: (reply for reply in [Completion(text="x")]),
    "text that is none": lambda n: [unchecked(Completion, text=None)],
    "half a character": lambda n: [unchecked(Completion, text="a\udc80")],
    "an ending of its own": lambda n: [unchecked(Completion, text="a", finish="done")],
    "usage that is none": lambda n: [unchecked(Completion, text="a", usage=None)],
    "a huge usage": lambda n: [unchecked(Completion, text="a", usage=unchecked(Usage, prompt_tokens=2**70))],
    "a negative usage": lambda n: [unchecked(Completion, text="a", usage=unchecked(Usage, requests=-5))],
}


async def build(folder: Path, generator: Generator, *scorers: Scorer) -> dict[str, Any]:
    """Three questions, two paths each; it ends within seconds whatever the parts do."""
    questions = [Question(id=f"q{i}", question=f"Which? {i}", answer="1", meta={"k": [i]}) for i in range(3)]
    settings = check_settings({"generator": {"paths": 2}, "run": {"deadline_s": 0.5, "grace_s": 1}})
    pipeline = Pipeline(run=folder, settings=settings, generator=generator, scorers=scorers)
    status = (await asyncio.wait_for(pipeline.abuild(questions, datasets=False), 30)).as_json()
    check_run(folder)
    for form in ("jsonl", "parquet"):
        export(folder, "paths", form, folder.with_name("out"))
    return status


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)


@pytest.mark.parametrize("name", [*ERRORS, *BAD_SCORES])
def test_a_scorer_costs_its_scores(name: str, tmp_path: Path) -> None:
    seen: list[Any] = []

    def honest(question: Question, paths: Sequence[object]) -> list[Score]:
        seen.append(dict(question.meta))
        return scores(paths, value=90.0)

    odd = OddScorer({**ERRORS, **BAD_SCORES}[name])
    status = asyncio.run(build(tmp_path / "run", OddGenerator(), odd, OddScorer(honest)))
    assert status["paths"]["ok"] == 6
    assert status["unjudged"] == 6
    assert len(seen) == 3, "the next scorer was not asked"


@pytest.mark.parametrize("name", ODD_BUT_SOUND)
def test_what_can_be_stored_is_kept(name: str, tmp_path: Path) -> None:
    seen: list[Any] = []

    def honest(question: Question, paths: Sequence[object]) -> list[Score]:
        seen.append(dict(question.meta))
        return scores(paths, value=90.0)

    odd = OddScorer(ODD_BUT_SOUND[name])
    status = asyncio.run(build(tmp_path / "run", OddGenerator(), odd, OddScorer(honest)))
    assert status["unjudged"] == 0
    assert sorted(meta["k"][0] for meta in seen) == [0, 1, 2], "one scorer changed what another one sees"


@pytest.mark.parametrize("name", [*ERRORS, *BAD_PATHS])
def test_a_generator_costs_its_paths(name: str, tmp_path: Path) -> None:
    status = asyncio.run(build(tmp_path / "run", OddGenerator({**ERRORS, **BAD_PATHS}[name])))
    assert status["paths"]["failed"] == 6
    assert sum(status["paths"]["by_code"].values()) == 6
    if name == "hangs":
        assert status["paths"]["by_code"] == {"timeout": 6}


@pytest.mark.parametrize("name", [*ERRORS, *BAD_REPLIES])
def test_a_backend_costs_its_calls_which_are_counted(name: str, tmp_path: Path) -> None:
    status = asyncio.run(build(tmp_path / "run", Asking(OddModel({**ERRORS, **BAD_REPLIES}[name]))))
    assert status["paths"]["failed"] == 6
    assert sum(status["faults"].values()) == 3, "a call that was not answered is not counted"


@pytest.mark.parametrize("usage", [Usage(requests=2), None])
def test_a_stop_of_a_backend_stops_the_run_resumable(usage: Usage | None, tmp_path: Path) -> None:
    stop = StopRun("closed for today")
    stop.usage = usage  # type: ignore[assignment]
    made = [throws(stop)]
    model = OddModel(lambda n: made[0](n))
    with pytest.raises(StopRun, match="closed for today"):
        asyncio.run(build(tmp_path / "run", Asking(model)))
    check_run(tmp_path / "run", done=False)
    made[0] = lambda n: [Completion(text="x")]
    assert asyncio.run(build(tmp_path / "run", Asking(model)))["paths"]["ok"] == 6


def test_a_generator_that_is_slow_between_calls_is_not_taken_for_hung(tmp_path: Path) -> None:
    """Its calls last 0.4 s, its own work 0.3 s at a time, the limit is 0.5 s: five such rounds are no hang."""

    class Slow(Asking):
        async def generate(self, question: Question, n: int, *, seed: int = 0) -> list[ReasoningPath]:
            for number in range(5):
                await asyncio.sleep(0.2)
                await self.model.chat([Message(role="user", content=question.id)], Sampling(seed=number))
            return paths(question, n)

    async def reply(n: int) -> list[Completion]:
        await asyncio.sleep(0.35)
        return [Completion(text="x", usage=Usage(requests=1))]

    status = asyncio.run(build(tmp_path / "run", Slow(OddModel(lambda n: reply(n)))))
    assert status["paths"]["ok"] == 6
    assert status["requests"] == 15
