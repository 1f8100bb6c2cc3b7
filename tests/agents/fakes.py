"""A scripted ChatModel for the logic of this room."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from insightv.interfaces import ChatModel
from insightv.records import Completion, Message, Picture, Question, Sampling, Schema, Usage

PICTURE = Picture(data=b"not decoded here", mime="image/png", sha256="0" * 64, width=8, height=8)
QUESTION = Question(id="q1", question="Which bar is tallest?", images=(PICTURE,), choices=("red", "blue"), answer="A")


@dataclass
class Call:
    """One request as the model got it."""

    messages: tuple[Message, ...]
    sampling: Sampling
    n: int
    schema: str | None

    @property
    def said(self) -> list[str]:
        """The assistant's turns so far."""
        return [str(message.content) for message in self.messages if message.role == "assistant"]


Reply = str | Completion | BaseException
Script = Callable[[Call], Reply | Awaitable[Reply]]


@dataclass
class FakeModel(ChatModel):
    """Answers each request by a function of it; a text costs 10 prompt tokens and one per word."""

    script: Script
    draws: int | None = None  # completions per request at most; None: as many as asked for
    name: str = "fake/model"
    calls: list[Call] = field(default_factory=list)
    pieces: int = 4
    closed_streams: int = 0

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        call = Call(tuple(messages), sampling, n, schema.name if schema else None)
        self.calls.append(call)
        await asyncio.sleep(0)
        replies = [await self._reply(call) for _ in range(n if self.draws is None else min(n, self.draws))]
        return [reply if i == 0 else reply.model_copy(update={"usage": Usage()}) for i, reply in enumerate(replies)]

    async def _reply(self, call: Call) -> Completion:
        reply = self.script(call)
        if isinstance(reply, Awaitable):
            reply = await reply
        if isinstance(reply, BaseException):
            raise reply
        if isinstance(reply, str):
            cost = Usage(prompt_tokens=10, completion_tokens=len(reply.split()), requests=1)
            reply = Completion(text=reply, usage=cost, call=f"key{len(self.calls)}")
        return reply

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling, *, schema: Schema | None = None
    ) -> AsyncIterator[str | Completion]:
        whole = (await self.chat(messages, sampling, schema=schema))[0]
        size = max(1, len(whole.text) // self.pieces)
        try:
            for start in range(0, len(whole.text), size):
                yield whole.text[start : start + size]
            yield whole
        finally:
            self.closed_streams += 1


def step(content: str, action: str = "continue", title: str = "A step") -> str:
    return json.dumps({"title": title, "content": content, "action": action})


def final(answer: str) -> str:
    return json.dumps({"answer": answer})


def cut(text: str) -> Completion:
    return Completion(text=text, finish="length", usage=Usage(prompt_tokens=10, completion_tokens=7, requests=1))


def refused(text: str = "") -> Completion:
    return Completion(text=text, finish="refusal", usage=Usage(prompt_tokens=10, requests=1))


def walks(steps: int = 3, answer: str = "B") -> Callable[[Call], str]:
    """Replies of chains that take this many steps and answer; contents differ by seed."""

    def reply(call: Call) -> str:
        if call.schema == "final_answer":
            return final(answer)
        number = len(call.said) + 1
        return step(f"Thought {number} of {call.sampling.seed}.", "summary" if number == steps else "continue")

    return reply


async def pieces_of(stream: AsyncIterator[object]) -> list[object]:
    return [piece async for piece in stream]
