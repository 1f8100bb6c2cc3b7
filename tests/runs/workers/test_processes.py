"""A build whose models are held by processes of their own, which die: by a picture's doing, and from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from insightv.config.factories import ModelSpec
from insightv.config.sections import ProcessSection
from insightv.errors import ConfigError, ModelError
from insightv.interfaces import ChatModel
from insightv.plugins import PluginSource
from insightv.records import Completion, Message, Sampling, Schema, Usage
from insightv.runs.workers.pool import WorkerPool
from insightv.runs.workers.processes import LocalProcesses, WorkerProcess
from insightv.runs.workers.protocol import Lost
from tests.installing import write_distribution
from tests.world import check_balance, command, insightv, path_rows, wait_for

pytestmark = pytest.mark.timeout(240)

BRITTLE = '''
import asyncio
import json
import os
import pathlib
import signal

from insightv import ChatModel, Completion, Usage, hookimpl


class Brittle(ChatModel):
    """Says the truth that the question holds; one that holds [segfault] brings the process down."""

    def __init__(self, model="", pid=""):
        self._pid = pid

    async def chat(self, messages, sampling, *, n=1, schema=None):
        if self._pid:  # only now: one that is killed while it starts was never there
            pathlib.Path(self._pid).write_text(str(os.getpid()))
            self._pid = ""
        text = " ".join(part for message in messages for part in message.parts if isinstance(part, str))
        print("a library prints what it likes")
        await asyncio.sleep(0.02)
        if "[segfault]" in text:
            os.kill(os.getpid(), signal.SIGSEGV)
        later = any(message.role == "assistant" for message in messages)
        content = "So it is what is written." if later else "It is written there."
        said = {"title": "Look", "content": content, "action": "summary" if later else "continue"}
        if schema.name == "final_answer":
            said = {"answer": text.partition("truth=")[2].partition("]")[0]}
        return [Completion(text=json.dumps(said), usage=Usage(requests=i == 0)) for i in range(n)]


@hookimpl
def register_backends(register):
    register("brittle", Brittle)
'''


class World:
    """An installed plugin, questions, and builds of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_distribution(folder / "site", "brittle", BRITTLE)
        paths = filter(None, (str(folder / "site"), os.environ.get("PYTHONPATH")))
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}

    def args(self, run: str, engine: str, count: int, bad: Sequence[int] = (), *options: str) -> list[object]:
        rows = (
            {"id": f"q{i}", "question": f"Which? [truth={i}]{' [segfault]' if i in bad else ''}", "answer": str(i)}
            for i in range(count)
        )
        questions = self.folder / f"{run}.jsonl"
        questions.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        sets = ("generator.model=brittle/x", "generator.paths=2", f"run.executor={engine}", *options)
        args: list[object] = ["build", questions, "--run", self.folder / run, "--no-datasets", "--json"]
        return args + [word for pair in sets for word in ("--set", pair)] + ["--set", 'scorers=[{use="answer"}]']

    def build(self, *args: Any) -> subprocess.CompletedProcess[str]:
        return insightv(*self.args(*args), env=self.environment, timeout=200)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_sample_that_crashes_its_process_costs_itself_only(world: World) -> None:
    whole = world.build("whole", "local", 12)
    assert whole.returncode == 0, whole.stderr
    done = world.build("run", "process", 12, (5,))
    assert done.returncode == 4, done.stderr
    assert json.loads(done.stdout)["paths"]["by_code"] == {"worker_crash": 2}, "stdout is JSON, whatever a model prints"
    assert "SIGSEGV" in done.stderr
    check_balance(world.folder / "run")
    others = [row for row in path_rows(world.folder / "run") if row["question_id"] != "q5"]
    assert others == [row for row in path_rows(world.folder / "whole") if row["question_id"] != "q5"]
    again = world.build("run", "process", 12, (5,))
    assert (again.returncode, "SIGSEGV" in again.stderr) == (4, False), "it is not tried again unasked"


def test_a_process_that_is_killed_is_replaced_and_nothing_is_lost(world: World) -> None:
    pid = world.folder / "pid"
    options = (f'generator.backend={{pid="{pid}"}}', "run.concurrency=4")
    build = subprocess.Popen(
        command(*world.args("run", "process", 60, (), *options)),
        env=world.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: pid.exists() and pid.read_text(), 60)
    first = int(pid.read_text())
    os.kill(first, signal.SIGKILL)
    said, told = build.communicate(timeout=200)
    assert build.returncode == 0, told
    assert json.loads(said)["paths"]["ok"] == 120
    assert "is lost (it was killed by SIGKILL; out of memory is the likely cause)" in told
    assert int(pid.read_text()) != first
    check_balance(world.folder / "run")


def test_workers_end_with_a_run_that_is_killed(world: World) -> None:
    pid = world.folder / "pid"
    options = (f'generator.backend={{pid="{pid}"}}', "run.concurrency=1")
    args = command(*world.args("run", "process", 200, (), *options))
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    build = subprocess.Popen(args, env=world.environment, **quiet)
    wait_for(lambda: pid.exists() and pid.read_text(), 60)
    build.kill()
    build.wait()
    wait_for(lambda: not Path("/proc", pid.read_text()).exists(), 20)


def test_many_samples_that_crash_do_not_stop_the_run(world: World) -> None:
    done = world.build("run", "process", 14, (1, 2, 3, 5, 8), "generator.paths=1", "run.process.restarts=2")
    assert done.returncode == 4, done.stderr
    assert json.loads(done.stdout)["paths"]["by_code"] == {"worker_crash": 5}
    spent = check_balance(world.folder / "run")["requests"]
    assert spent > 5 * 2 + 9 * 3, "what was lost is counted too"


class Odd(Exception):
    """Cannot be read from a pickle, as errors of many libraries."""

    def __init__(self, text: str, *, status: int) -> None:
        super().__init__(text)


class Panic(BaseException):
    """What an `except Exception` lets through."""


class Told(ChatModel):
    """Says back what it is told; ends its process where it is told so."""

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        text = str(messages[-1].content)
        if text == "end":
            os._exit(7)
        if text == "fork and end":
            subprocess.Popen(["sleep", "100"], close_fds=False)
            os._exit(7)
        if text == "panic":
            raise Panic("at the end of the tether")
        if text == "unreadable":
            return [Odd("no", status=3)]  # type: ignore[list-item]
        if text == "unsendable":
            return [lambda: None]  # type: ignore[list-item]
        if text == "raise":
            raise ModelError("too_long", "9000 tokens", usage=Usage(requests=2))
        await asyncio.sleep(float(text))
        return [Completion(text=text, usage=Usage(requests=1))]


def with_model(factory: Any, work: Any, workers: int = 1, **options: Any) -> Any:
    async def run() -> Any:
        settings = ProcessSection(start_s=60, workers=workers)
        pool = WorkerPool(LocalProcesses(settings), settings)
        model = pool.model(
            ModelSpec("test/told", "backend 'test'", factory, options, PluginSource("test", "tests", "0"))
        )
        try:
            await model.check()
            return await work(model)
        finally:
            await pool.aclose()

    return asyncio.run(run())


def say(model: ChatModel, text: str) -> Any:
    return model.chat([Message(role="user", content=text)], Sampling())


def test_many_calls_share_a_process_and_errors_come_as_they_are() -> None:
    async def work(model: ChatModel) -> None:
        began = asyncio.get_running_loop().time()
        replies = await asyncio.gather(*(say(model, f"0.{50 + i}") for i in range(20)))
        assert [reply.text for [reply] in replies] == [f"0.{50 + i}" for i in range(20)]
        assert asyncio.get_running_loop().time() - began < 5, "one after the other they would take 12 s"
        with pytest.raises(ModelError, match="9000 tokens") as caught:
            await say(model, "raise")
        assert (caught.value.code, caught.value.usage.requests) == ("too_long", 2)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(say(model, "60"), 0.1)
        assert (await say(model, "0"))[0].text == "0"
        with pytest.raises(ModelError, match="2 workers were lost one after the other") as caught:
            await say(model, "end")
        assert caught.value.code == "worker_crash"
        assert (await say(model, "0"))[0].text == "0"

    with_model(Told, work, workers=2)


@pytest.mark.parametrize("text", ["panic", "unreadable", "unsendable"])
def test_a_call_that_comes_to_nothing_in_an_odd_way_is_a_call_that_failed(text: str) -> None:
    async def work(model: ChatModel) -> None:
        other = asyncio.create_task(say(model, "0.2"))
        with pytest.raises(ModelError) as caught:
            await asyncio.wait_for(say(model, text), 20)
        assert (caught.value.code, caught.value.usage.requests) == ("backend_error", 1)
        assert (await other)[0].text == "0.2"

    with_model(Told, work)


def test_a_loss_is_seen_where_what_the_worker_forked_lives_on() -> None:
    async def work(model: ChatModel) -> None:
        with pytest.raises(ModelError, match="2 workers were lost"):
            await asyncio.wait_for(say(model, "fork and end"), 30)

    with_model(Told, work)


def test_calls_in_flight_at_a_crash_are_asked_again_whatever_their_size() -> None:
    async def work(model: ChatModel) -> None:
        long = "0." + "0" * 1_000_000
        calls = [asyncio.create_task(say(model, long)) for _ in range(12)]
        await asyncio.sleep(0.05)
        crash = asyncio.create_task(say(model, "end"))
        replies = await asyncio.gather(*calls)
        assert [reply.text for [reply] in replies] == [long] * 12
        with pytest.raises(ModelError, match="2 workers were lost"):
            await crash

    with_model(Told, work)


def test_a_worker_that_hangs_beyond_the_backends_own_deadline_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("insightv.runs.workers.pool.HUNG_S", 0.2)

    async def work(model: ChatModel) -> None:
        with pytest.raises(ModelError, match="2 workers were lost"):
            await say(model, "60")
        assert (await say(model, "0"))[0].text == "0"

    with_model(Patient, work, deadline_s=0.3)


class Patient(Told):
    """Has a deadline, and does not keep it."""

    def __init__(self, deadline_s: float = 600) -> None:
        self.deadline_s = deadline_s


def test_what_another_process_cannot_make_is_said_with_the_cure() -> None:
    with pytest.raises(ConfigError, match=r'must be importable, and its options plain values; use executor = "local"'):
        with_model(lambda: Told(), say)


def test_a_hand_tells_how_its_process_ended() -> None:
    async def main() -> None:
        hand = WorkerProcess()
        try:
            assert (await hand.call("hello")).pid == hand._child.pid
            waiting = asyncio.create_task(hand.call("said"))
            await asyncio.sleep(0.1)
            os.kill(hand._child.pid, signal.SIGABRT)
            with pytest.raises(Lost, match=r"^it was killed by SIGABRT$"):
                await waiting
            with pytest.raises(Lost, match=r"^it was killed by SIGABRT$"):
                await hand.call("hello")
        finally:
            hand.dismiss()

    asyncio.run(main())
