"""The workers of a run on several machines, without Ray: who is asked, and what a loss costs."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from insightv import Pipeline, errors
from insightv.config.factories import ModelSpec
from insightv.config.sections import RaySection
from insightv.config.settings import check_settings
from insightv.errors import ConfigError, InsightvError, KeyRefused, ModelError, StopRun
from insightv.interfaces import ChatModel
from insightv.plugins import PluginSource
from insightv.records import Completion, Message, Sampling, Schema, Usage
from insightv.runs.question_calls import QuestionCalls, question_calls
from insightv.runs.workers import pool
from insightv.runs.workers.pool import WorkerPool
from insightv.runs.workers.pooled_model import PooledModel
from insightv.runs.workers.protocol import Lost
from insightv.runs.workers.worker import Fault, Worker, about_here
from insightv.testing import ScriptedModel, sample_picture
from tests.world import build_args, insightv, write_questions, write_settings

CALL = [Message(role="user", content="How high?")]


class FakeHand:
    """A worker in this process; `lose` makes it unreachable, with all that it was asked."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.asked: list[Any] = []
        self.dismissed = False
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.worker = Worker()
        self.about = about_here()

    def lose(self) -> None:
        if not self.gone.done():
            self.gone.set_exception(Lost(f"hand {self.number} has burnt"))
            self.gone.exception()

    async def call(self, method: str, *args: Any) -> Any:
        if method == "hello":
            return self.about
        self.asked += [args] if method == "chat" else []
        work = asyncio.ensure_future(
            asyncio.Event().wait() if method == "said" else getattr(self.worker, method)(*args)
        )
        try:
            await asyncio.wait({work, self.gone}, return_when=asyncio.FIRST_COMPLETED)
            return self.gone.result() if self.gone.done() else work.result()
        finally:
            work.cancel()

    def dismiss(self) -> None:
        self.dismissed = True


class FakeCluster:
    """A cluster with room for `room` workers at a time; workers beyond it wait."""

    table, cure, blames_calls, close_s = "run.ray", "see `ray status`", False, 30.0

    def __init__(self, size: int, room: int | None = None) -> None:
        self.size = size
        self.room = size if room is None else room
        self.hands: list[FakeHand] = []
        self.closed = False

    def connect(self) -> tuple[int, int]:
        return self.size, min(self.size, self.room)

    def start(self) -> FakeHand:
        hand = FakeHand(len(self.hands))
        if len(self.hands) >= self.room:
            hand.call = _never  # type: ignore[method-assign]
        self.hands.append(hand)
        return hand

    def close(self) -> None:
        self.closed = True


async def _never(method: str, *args: Any) -> Any:
    await asyncio.Event().wait()


class Slow(ChatModel):
    """Says what it was asked, after a while."""

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        await asyncio.sleep(0.02)
        return [Completion(text=str(sampling.seed), usage=Usage(requests=1))]


def spec(factory: Callable[..., object], name: str = "test/model", **options: Any) -> ModelSpec:
    return ModelSpec(name, "backend 'test'", factory, options, PluginSource("test", "tests", "0"))


def with_pool(
    cluster: FakeCluster,
    factory: Callable[..., object],
    work: Callable[[ChatModel, WorkerPool], Awaitable[Any]],
    **section: Any,
) -> Any:
    async def run() -> Any:
        pool = WorkerPool(cluster, RaySection(**section))
        model = pool.model(spec(factory))
        try:
            await model.check()
            return await work(model, pool)
        finally:
            await pool.aclose()
            assert cluster.closed
            assert all(hand.dismissed for hand in cluster.hands)

    return asyncio.run(run())


async def ask(model: ChatModel, question: int, seed: int = 0) -> str:
    """A call of a question, as the journal makes it."""
    question_calls.set(QuestionCalls(question))
    [reply] = await asyncio.create_task(model.chat(CALL, Sampling(seed=seed)))
    return reply.text


def test_questions_are_spread_and_each_stays_with_its_worker() -> None:
    async def work(model: ChatModel, _: WorkerPool) -> None:
        for step in range(4):
            calls = (ask(model, question, 100 * question + step) for question in range(30))
            texts = await asyncio.gather(*(asyncio.create_task(call) for call in calls))
            assert texts == [str(100 * question + step) for question in range(30)]

    cluster = FakeCluster(3)
    with_pool(cluster, Slow, work)
    seen = [{args[2].seed // 100 for args in hand.asked} for hand in cluster.hands]
    assert [len(hand.asked) for hand in cluster.hands] == [40, 40, 40]
    assert sum(map(len, seen)) == 30


def test_a_lost_worker_costs_its_calls_in_flight_and_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    async def work(model: ChatModel, _: WorkerPool) -> None:
        await asyncio.gather(*(asyncio.create_task(ask(model, question)) for question in range(8)))
        second = [asyncio.create_task(ask(model, question, 1)) for question in range(8)]
        while len(cluster.hands[0].asked) < 8:
            await asyncio.sleep(0)
        cluster.hands[0].lose()
        assert await asyncio.gather(*second) == ["1"] * 8
        while len(cluster.hands) < 3:
            await asyncio.sleep(0.01)
        await asyncio.gather(*(asyncio.create_task(ask(model, question, 2)) for question in range(8, 24)))

    cluster = FakeCluster(2, room=3)
    with_pool(cluster, Slow, work)
    assert [len(hand.asked) for hand in cluster.hands] == [8, 4 + 8 + 8, 8]  # 4 of the second round were asked again
    assert sum("is lost (hand 0 has burnt); 4 calls in flight" in text for text in caplog.messages) == 1


def test_a_call_that_kills_workers_is_given_up() -> None:
    class Killer(Slow):
        async def chat(self, *args: Any, **options: Any) -> list[Completion]:
            for hand in cluster.hands:
                if hand.asked:
                    hand.lose()
            return [Completion(text="too late")]

    async def work(model: ChatModel, _: WorkerPool) -> None:
        with pytest.raises(ModelError, match="3 workers were lost") as caught:
            await ask(model, 1)
        assert (caught.value.code, caught.value.usage.requests) == ("worker_crash", 3)

    cluster = FakeCluster(2, room=9)
    with_pool(cluster, Killer, work)


def test_calls_that_may_have_killed_a_worker_are_asked_again_alone_and_only_the_culprit_is_given_up() -> None:
    class Killer(Slow):
        async def chat(self, messages: Any, sampling: Sampling, **options: Any) -> list[Completion]:
            seen.append(sampling.seed or 0)
            await asyncio.sleep(0.01)
            if sampling.seed == 3:
                cluster.hands[-1].lose()
            return await super().chat(messages, sampling, **options)

    async def work(model: ChatModel, _: WorkerPool) -> None:
        calls = (asyncio.create_task(ask(model, question, question)) for question in range(6))
        later = asyncio.create_task(ask(model, 7, 7))
        found = await asyncio.gather(*calls, later, return_exceptions=True)
        assert found[:3] + found[4:] == ["0", "1", "2", "4", "5", "7"]
        assert isinstance(found[3], ModelError)
        assert (found[3].code, found[3].usage.requests) == ("worker_crash", 2)

    seen: list[int] = []
    cluster = FakeCluster(1, room=9)
    cluster.blames_calls = True
    with_pool(cluster, Killer, work)
    assert seen.count(3) == 2
    assert max(map(seen.count, range(8))) == 2, "a call that was not to blame was lost twice"
    assert len(cluster.hands) == 3


def test_where_no_worker_is_left_the_run_stops() -> None:
    async def work(model: ChatModel, pool: WorkerPool) -> None:
        pool._section = RaySection(start_s=0.3)  # after the start, which takes as long as it takes
        for hand in cluster.hands:
            hand.lose()
        with pytest.raises(StopRun, match=r"every worker is lost, and no other was ready within .* = 0\.3 s"):
            await ask(model, 1)

    cluster = FakeCluster(2)
    with_pool(cluster, Slow, work)


def test_a_place_whose_workers_die_one_after_the_other_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_LONGEST_PAUSE_S", 0.0)

    async def work(model: ChatModel, _: WorkerPool) -> None:
        for number in range(3):
            while len(cluster.hands) <= number:
                await asyncio.sleep(0.01)
            cluster.hands[number].lose()
        with pytest.raises(StopRun, match=r"no worker is left: worker 0 was lost 3 times in a row"):
            await ask(model, 1)

    cluster = FakeCluster(1, room=9)
    with_pool(cluster, Slow, work, restarts=2)


def test_workers_without_a_place_are_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    async def work(model: ChatModel, _: WorkerPool) -> None:
        await ask(model, 1)

    with_pool(FakeCluster(4, room=2), Slow, work)
    assert "2 of 4 workers are ready; the others join once the cluster has room" in caplog.messages


def test_room_that_is_gone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A node that has just gone out counts for a while; what is meant for it waits, and the run does not."""
    monkeypatch.setattr(pool, "OTHERS_S", 0.1)

    class Counted(FakeCluster):
        def connect(self) -> tuple[int, int]:
            return self.size, self.size

    async def work(model: ChatModel, pool: WorkerPool) -> None:
        async with asyncio.timeout(10):
            assert await ask(model, 1) == "0"

    with_pool(Counted(3, room=2), Slow, work)
    assert "2 of 3 workers are ready; the others join once the cluster has room" in caplog.messages


def test_no_worker_in_time_is_said_before_anything_is_started() -> None:
    class Deaf(FakeCluster):
        def connect(self) -> tuple[int, int]:
            return 2, 2

    with pytest.raises(ConfigError, match=r"no worker was ready within run\.ray\.start_s = 0\.2 s"):
        with_pool(Deaf(2, room=0), Slow, ask, start_s=0.2)  # type: ignore[arg-type]


def test_a_model_that_cannot_be_made_is_said_with_the_machine() -> None:
    def broken(colour: str = "red") -> ChatModel:
        raise OSError("no such device")

    with pytest.raises(ConfigError, match=r"the worker on .*: backend 'test' .* could not be made: OSError: no such"):
        with_pool(FakeCluster(2), broken, ask)  # type: ignore[arg-type]


def test_one_that_cannot_be_made_later_costs_its_place_only(caplog: pytest.LogCaptureFixture) -> None:
    made: list[ChatModel] = []

    def soon_broken() -> ChatModel:
        if len(made) == 2:
            raise ConfigError("the weights are gone")
        made.append(Slow())
        return made[-1]

    async def work(model: ChatModel, _: WorkerPool) -> str:
        cluster.hands[0].lose()
        while not any("is not started again" in text for text in caplog.messages):
            await asyncio.sleep(0.01)
        return await ask(model, 1, 5)

    cluster = FakeCluster(2, room=9)
    assert with_pool(cluster, soon_broken, work) == "5"


def test_another_version_is_refused() -> None:
    class Old(FakeCluster):
        def start(self) -> FakeHand:
            hand = super().start()
            hand.about = type(hand.about)("gpu7", 1, "3.11.0", "0.0.1")
            return hand

    with pytest.raises(ConfigError, match=r"the worker on gpu7 has insightv 0\.0\.1, and this process"):
        with_pool(Old(1), Slow, ask)  # type: ignore[arg-type]


def test_the_name_is_the_one_that_the_model_has_where_it_is_held() -> None:
    async def work(model: ChatModel, _: WorkerPool) -> str:
        return model.name

    assert with_pool(FakeCluster(1), lambda: ScriptedModel("yes", name="tiny/teacher"), work) == "tiny/teacher"
    assert with_pool(FakeCluster(1), Slow, work) == "test/model"


def test_cancelling_a_call_cancels_it_at_the_worker() -> None:
    ended: list[str] = []

    class Hanging(Slow):
        async def chat(self, *args: Any, **options: Any) -> list[Completion]:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise
            return []

    async def work(model: ChatModel, pool: WorkerPool) -> None:
        call = asyncio.create_task(ask(model, 1))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await asyncio.sleep(0.05)
        assert [member.in_flight for member in pool._members] == [0]

    with_pool(FakeCluster(1), Hanging, work)
    assert ended == ["cancelled"]


@pytest.mark.parametrize(
    "error",
    [
        ModelError("too_long", "9000 tokens", usage=Usage(requests=2, prompt_tokens=7), kept="{"),
        KeyRefused("check the key"),
        ConfigError("no such file"),
        errors.MissingExtra("install torch"),
        ZeroDivisionError("division by zero"),
    ],
)
def test_errors_of_a_worker_are_raised_as_they_would_be_here(error: Exception) -> None:
    async def work(model: ChatModel, _: WorkerPool) -> None:
        await ask(model, 1)

    usage = getattr(error, "usage", Usage())
    kind = type(error) if isinstance(error, InsightvError) else ModelError
    with pytest.raises(kind, match=str(error)) as caught:
        with_pool(FakeCluster(1), lambda: ScriptedModel([error]), work)
    if isinstance(error, ModelError):
        assert (caught.value.code, caught.value.kept) == ("too_long", "{")  # type: ignore[attr-defined]
    if isinstance(error, ModelError | StopRun):
        assert caught.value.usage == usage  # type: ignore[attr-defined]


def test_an_error_of_a_plugin_is_raised_as_its_nearest_kind() -> None:
    class Mine(StopRun):
        """A plugin's own."""

    assert type(Fault.of(Mine("enough")).error()) is StopRun


def test_only_keys_that_models_may_need_go_to_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def made(api_key_env: str = "MY_KEY", other_env: str = "NOT_SET") -> ChatModel:
        return ScriptedModel("yes")

    prepared: list[Any] = []

    class Watched(FakeHand):
        async def call(self, method: str, *args: Any) -> Any:
            prepared.extend(args if method == "prepare" else ())
            return await super().call(method, *args)

    class Watching(FakeCluster):
        def start(self) -> FakeHand:
            self.hands.append(Watched(len(self.hands)))
            return self.hands[-1]

    async def work(model: ChatModel, _: WorkerPool) -> None:
        await ask(model, 1)

    for name in ("MY_KEY", "HF_TOKEN", "OPENAI_API_KEY", "SOMETHING_SECRET"):
        monkeypatch.setenv(name, f"canary-{name}")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    with_pool(Watching(1), made, work)
    [specs, lent, folder] = prepared
    assert lent == {name: f"canary-{name}" for name in ("MY_KEY", "HF_TOKEN", "OPENAI_API_KEY")}
    assert folder == os.getcwd() == str(tmp_path)
    assert "canary" not in repr(specs)
    assert spec(made, api_key_env="OTHER").variables == {"OTHER", "NOT_SET"}


def test_a_picture_is_encoded_once_at_a_worker() -> None:
    scripted = ScriptedModel("yes")

    async def calls() -> None:
        worker = Worker()
        await worker.prepare([spec(lambda: scripted)], {}, "/nowhere")
        for seed in range(3):  # as they come over the wire: equal, and never the same
            messages = [Message(role="user", content=(sample_picture().model_copy(), "How high?"))]
            await worker.chat(0, messages, Sampling(seed=seed), 1, None)

    asyncio.run(calls())
    pictures = {id(asked.messages[0].parts[0]) for asked in scripted.asked}
    assert len(pictures) == 1
    assert scripted.asked[0].messages[0].digest == scripted.asked[2].messages[0].digest


def test_what_a_worker_logs_is_handed_over_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "canary-5f1d77c0")
    logger = logging.getLogger("insightv")

    async def lines() -> Any:
        worker = Worker()
        await worker.hello()
        logging.getLogger("insightv.openai").warning("key %s is refused", "canary-5f1d77c0")
        return await worker.said()

    before, level = list(logger.handlers), logger.level
    try:
        assert asyncio.run(lines()) == [(logging.WARNING, "insightv.openai", "key [secret] is refused")]
    finally:
        logger.handlers, logger.level = before, level


def test_a_model_that_is_named_too_late_is_a_fault_of_ours() -> None:
    async def work(_: ChatModel, pool: WorkerPool) -> PooledModel:
        return pool.model(spec(Slow))  # type: ignore[return-value]

    with pytest.raises(InsightvError, match="after the workers had begun"):
        with_pool(FakeCluster(1), Slow, work)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:9", "there is no Ray cluster at '127.0.0.1:9' ("),
        ("ray://127.0.0.1:10001", "it is host:port of the cluster, as in '10.0.0.1:6379'"),
    ],
)
def test_no_cluster_is_said_before_anything_is_started(address: str, says: str, tmp_path: Path) -> None:
    settings = write_settings(tmp_path, "http://127.0.0.1:9/v1")
    args = build_args(write_questions(tmp_path, 1), settings, tmp_path / "run")
    refused = insightv(*args, "--set", "run.executor=ray", "--set", f"run.ray.address={address}")
    assert refused.returncode == 2
    assert says in refused.stderr
    assert not (tmp_path / "run").exists()


def test_without_ray_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    settings = check_settings({"generator": {"model": "replay/gone"}, "run": {"engine": "ray"}})
    with pytest.raises(errors.MissingExtra, match=r"pip install 'insightv\[ray\]'"):
        Pipeline(run=tmp_path / "run", settings=settings).build([])
    assert not (tmp_path / "run").exists()
