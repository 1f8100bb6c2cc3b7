"""Fake judges: in-process models that say what a test tells them to, and remember what they were asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from insightv.interfaces import ChatModel
from insightv.records import Completion, Message, Picture, Question, ReasoningPath, Sampling, Schema, Step

HEAD = re.compile(r"(?m)^=* ?PATH (\d+)")


@dataclass(frozen=True)
class Call:
    messages: tuple[Message, ...]
    sampling: Sampling
    schema: Schema | None

    @property
    def text(self) -> str:
        """All text of the last message."""
        return "".join(part for part in self.messages[-1].parts if isinstance(part, str))


class FakeJudge(ChatModel):
    """Replies with what `say` makes of a call and its number; an exception that it returns is raised."""

    name = "fake/judge"

    def __init__(self, say: Callable[[Call, int], str | Completion | Exception]) -> None:
        self._say = say
        self.calls: list[Call] = []

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        call = Call(tuple(messages), sampling, schema)
        self.calls.append(call)
        said = self._say(call, len(self.calls) - 1)
        if isinstance(said, Exception):
            raise said
        return [Completion(text=said) if isinstance(said, str) else said]


def picture() -> Picture:
    return Picture(data=b"\x89PNG", mime="image/png", sha256="0" * 64, width=1, height=1)


def ask_about(answer: str | None = "12", question: str = "What is the value?", **more: Any) -> Question:
    return Question(id="q1", question=question, answer=answer, images=(picture(),), **more)


def path_of(
    answer: str = "12", index: int = 0, contents: Sequence[str] = ("I look.", "I count."), **more: Any
) -> ReasoningPath:
    steps = tuple(
        Step(title=f"Step {place}", content=content, action="continue" if place < len(contents) else "summary")
        for place, content in enumerate(contents, start=1)
    )
    values: dict[str, Any] = {"status": "ok", "steps": steps, "answer": answer} | more
    return ReasoningPath(question_id="q1", index=index, **values)


def entry(path: int, score: Any = 80, **more: Any) -> dict[str, Any]:
    return {"path": path, "logic": 70, "grounding": 71, "completeness": 72, "score": score, "first_error": None} | more


def scores(*entries: dict[str, Any]) -> str:
    return json.dumps({"scores": list(entries)})


def shown(call: Call) -> list[str]:
    """The text of each path, in the order in which the judge was shown them."""
    marks = list(HEAD.finditer(call.text))
    ends = [mark.start() for mark in marks[1:]] + [len(call.text)]
    assert [int(mark.group(1)) for mark in marks] == list(range(1, len(marks) + 1))
    return [call.text[mark.end() : end].split("=== END")[0] for mark, end in zip(marks, ends, strict=True)]
