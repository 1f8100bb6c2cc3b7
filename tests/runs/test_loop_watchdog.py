"""Code that holds the event loop is named while it does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from insightv import Generator, Pipeline, Question, ReasoningPath, Score, Scorer, Step
from insightv.config.settings import check_settings
from insightv.runs import loop_watchdog
from insightv.runs.loop_watchdog import blockers_named


def blocks(seconds: float) -> None:
    time.sleep(seconds)


def test_who_blocks_is_named_once_and_who_awaits_is_not(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with blockers_named(after_s=0.3):
            await asyncio.sleep(0.8)
            assert caplog.text == ""
            blocks(1.0)
            await asyncio.sleep(0.05)
            blocks(1.0)

    asyncio.run(run())
    (record,) = caplog.records
    assert f"run() in {__file__}, line " in record.getMessage()
    assert "asyncio.to_thread" in record.getMessage()


def test_a_plugin_beside_the_package_is_a_strangers(caplog: pytest.LogCaptureFixture) -> None:
    file = f"{Path(loop_watchdog.__file__).parents[1]}_plugin.py"
    scope: dict[str, Any] = {"blocks": blocks}
    exec(compile("async def judge():\n    blocks(1.0)\n", file, "exec"), scope)

    async def run() -> None:
        async with blockers_named(after_s=0.3):
            await asyncio.sleep(0.05)
            await asyncio.create_task(scope["judge"]())

    asyncio.run(run())
    (record,) = caplog.records
    assert f"judge() in {file}, line 2" in record.getMessage()


def test_a_scorer_that_blocks_a_build_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class One(Generator):
        async def generate(self, question: Question, n: int, *, seed: int = 0) -> list[ReasoningPath]:
            step = Step(title="Look", content="So it is 42.", action="summary")
            whole = ReasoningPath(question_id=question.id, index=0, status="ok", answer="42", steps=(step,))
            return [whole.model_copy(update={"index": index}) for index in range(n)]

    class Blocks(Scorer):
        async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
            blocks(6.5)
            return [Score(scorer="blocks", value=90) for _ in paths]

    settings = check_settings({"generator": {"paths": 1}})
    pipeline = Pipeline(run=tmp_path / "run", generator=One(), scorers=[Blocks()], settings=settings)
    status = pipeline.build([Question(id="q", question="How many?")], datasets=False)
    assert status.bands["high"] == 1
    assert f"score() in {__file__}, line " in caplog.text
