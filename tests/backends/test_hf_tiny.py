"""The embedded model through its own name."""

from __future__ import annotations

import asyncio
import json

import pytest

from insightv.errors import ConfigError
from insightv.records import Message, Sampling
from insightv.tiny.backend import tiny
from tests.backends import tiny_vlm

SYSTEM = 'Reply in JSON: {"title": ..., "content": ..., "action": "continue" or "summary"}.'


def test_the_embedded_models_are_named() -> None:
    with pytest.raises(ConfigError, match="teacher, base"):
        tiny("huge")


def test_a_chain_of_the_embedded_model_looks_at_its_picture_once() -> None:
    async def main() -> None:
        model = tiny()
        assert model.name == "tiny/teacher"
        chain = [
            Message(role="system", content=SYSTEM),
            Message(role="user", content=(tiny_vlm.picture(1, 84, 84), "What is the sum of bar A and bar B?")),
        ]
        for step in range(3):
            [reply] = await model.chat(chain, Sampling(temperature=0, max_tokens=200))
            assert set(json.loads(reply.text)) == {"title", "content", "action"}
            new = reply.usage.prompt_tokens - reply.usage.cached_tokens
            assert new < 8 if step else new > 78
            chain += [Message(role="assistant", content=reply.text), Message(role="user", content="Go on.")]
        await model.aclose()

    asyncio.run(main())
