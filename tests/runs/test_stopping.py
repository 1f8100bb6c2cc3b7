"""How a build ends that is told to stop: the grace time, checks of models, and parts that do not give the loop back."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from insightv import Completion, Generator, Message, Pipeline, Question, ReasoningPath, Sampling, Score, Scorer, Step
from insightv.config.settings import check_settings
from insightv.errors import Interrupted
from insightv.interfaces import ChatModel
from insightv.records import Schema
from insightv.runs.reader import load_run
from tests.world import command, wait_for

QUESTIONS = [Question(id="q", question="How high?", answer="1")]
GRACE_S = 2.0
SETTINGS = check_settings({"generator": {"paths": 1}, "run": {"grace_s": GRACE_S}})


class OneStep(Generator):
    """Paths of one step, without a model."""

    async def generate(self, question: Question, n: int, *, seed: int = 0) -> list[ReasoningPath]:
        steps = (Step(title="Look", content="It ends at one.", action="summary"),)
        return [ReasoningPath(question_id=question.id, index=i, steps=steps, answer="1", status="ok") for i in range(n)]


class Slow(ChatModel):
    """A model that takes its time, for a reply and for being looked at."""

    def __init__(self, name: str, reply_s: float, check_s: float = 0.0) -> None:
        self.name = f"slow/{name}"
        self.reply_s, self.check_s = reply_s, check_s
        self.begun = threading.Event()

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        self.begun.set()
        await asyncio.sleep(self.reply_s)
        return [Completion(text="50")]

    async def check(self) -> None:
        if self.check_s:
            self.begun.set()
            await asyncio.sleep(self.check_s)


class Asks(Scorer):
    """Waits for its first model only, and leaves the others behind."""

    def __init__(self, *models: Slow) -> None:
        self.models = models

    async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
        first, *_ = [
            asyncio.create_task(model.chat([Message(role="user", content="?")], Sampling())) for model in self.models
        ]
        value = float((await first)[0].text)
        return [Score(scorer="asks", value=value, accepted=True)] * len(paths)


def stopped_after(run: Path, scorer: Scorer, begun: threading.Event) -> float:
    """Seconds from the stop of a build, told when `begun` is set, to its end."""
    pipeline = Pipeline(run=run, generator=OneStep(), scorers=[scorer], settings=SETTINGS)
    told: list[float] = []

    def stop() -> None:
        begun.wait(30)
        told.append(time.monotonic())
        pipeline.interrupt()

    threading.Thread(target=stop).start()
    with pytest.raises(Interrupted):
        pipeline.build(QUESTIONS, datasets=False)
    return time.monotonic() - told[0]


def test_the_grace_time_is_given_once(tmp_path: Path) -> None:
    late, never = Slow("late", 0.8 * GRACE_S), Slow("never", 100)
    assert stopped_after(tmp_path / "run", Asks(late, never), never.begun) < 1.7 * GRACE_S


def test_a_call_that_is_cut_off_at_the_end_of_the_grace_time_is_counted(tmp_path: Path) -> None:
    never = Slow("never", 100)
    stopped_after(tmp_path / "run", Asks(never), never.begun)
    with load_run(tmp_path / "run") as run:
        status = run.status()
        assert [code for _, code, _ in run.faults()] == ["cancelled"]
    assert status.requests == 1
    assert status.faults == {"cancelled": 1}
    assert status.paths.failed == 0


def test_a_check_of_models_hears_a_stop(tmp_path: Path) -> None:
    loading = Slow("loading", 0, check_s=100)
    assert stopped_after(tmp_path / "run", Asks(loading), loading.begun) < 10


def test_a_second_signal_ends_it_although_a_part_does_not_give_the_loop_back(tmp_path: Path) -> None:
    script = tmp_path / "blocks.py"
    script.write_text(
        "import asyncio, pathlib, time\n"
        "from insightv.cli.terminal import interruptible\n"
        "async def work():\n"
        "    pathlib.Path('begun').touch()\n"
        "    time.sleep(100)\n"
        "interruptible(work(), print, 'again')\n"
    )
    blocked = subprocess.Popen([*command()[:1], script], cwd=tmp_path, stderr=subprocess.DEVNULL)
    wait_for((tmp_path / "begun").exists)
    blocked.send_signal(signal.SIGINT)
    time.sleep(0.2)
    blocked.send_signal(signal.SIGTERM)
    assert blocked.wait(30) == 143
