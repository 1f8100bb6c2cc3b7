"""Run as a program it builds a run over Ray with a model that says which process it is in. For tests only.

python -m tests.servers.ray_model RUN QUESTIONS
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence

from insightv import Pipeline
from insightv.config.plugin_loading import load_registry
from insightv.config.settings import check_settings
from insightv.interfaces import ChatModel
from insightv.plugins import PluginSource, Register, Registry, hookimpl
from insightv.records import Completion, Message, Question, Sampling, Schema, Usage

TURNS = ("Somewhere on this machine runs a program, known as", "Nobody else has it:", "So it must be")
ACTIONS = ("continue", "summary")


class Placed(ChatModel):
    """Its steps end with the number of its process, and its answers are that."""

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        await asyncio.sleep(0.02)
        turn = sum(message.role == "assistant" for message in messages)
        said = TURNS[min(turn, 2)]
        step = {"title": f"Step {turn}", "content": f"{said} {os.getpid()}", "action": ACTIONS[turn == 2]}
        form = {"answer": str(os.getpid())} if schema and schema.name == "final_answer" else step
        return [Completion(text=json.dumps(form), usage=Usage(requests=1))]


class Plugin:
    @hookimpl
    def register_backends(self, register: Register) -> None:
        register("placed", lambda model: Placed())


def registry() -> Registry:
    found = load_registry()
    found.add(Plugin(), PluginSource("placed", "tests", "0"))
    return found


if __name__ == "__main__":
    settings = {
        "generator": {"model": "placed/x", "paths": 3},
        "run": {"engine": "ray", "concurrency": 8},
        "scorers": [],
    }
    questions = [Question(id=f"q{i}", question=f"Where are you, {i}?", answer="0") for i in range(int(sys.argv[2]))]
    pipeline = Pipeline(run=sys.argv[1], settings=check_settings(settings), registry=registry())
    pipeline.build(questions, datasets=False)
