"""The life of a `vllm serve`: started, shared, dead, started again, stopped. Against a fake program in its place."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from insightv.backends.vllm.model import VllmModel, vllm
from insightv.errors import ConfigError, ModelError
from insightv.records import Completion, Message
from tests.backends.asking import ANSWER, SAMPLING, STEP, question
from tests.backends.vllm_models import PROJECTOR, adapter_folder, model_folder
from tests.servers.fake_vllm import ROOT, alive, installed, starts

DEADLY = "What kills you? [truth=7]"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "base")


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    return tmp_path / "fake"


def options(fake: Path, **behaviour: Any) -> dict[str, Any]:
    return {**installed(fake, **behaviour), "log_folder": str(fake), "deadline_s": 60.0}


def using(models: list[VllmModel], work: Callable[[], Awaitable[Any]]) -> Any:
    """Do the work and close the models; nothing of them is left then."""

    async def main() -> Any:
        try:
            return await work()
        finally:
            await asyncio.gather(*(model.aclose() for model in models))

    return asyncio.run(main())


async def ask(model: VllmModel, text: str = "What is 3 + 4? [truth=7]") -> Completion:
    [reply] = await model.chat(question(text), SAMPLING, schema=ANSWER)
    return reply


def left(fake: Path) -> list[str]:
    """What is left of the processes of all starts after a minute at most: what the system says of each, and the log."""
    pids = [pid for start in starts(fake) for pid in start["pids"]]
    assert pids
    end = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    found = [Path(f"/proc/{pid}/stat").read_text() for pid in pids if alive(pid)]
    return [*found, *(file.read_text() for file in fake.glob("*.log"))] if found else []


def test_a_server_is_started_asked_and_stopped(base: Path, fake: Path) -> None:
    model = vllm(str(base), **options(fake))

    async def work() -> None:
        assert not starts(fake)  # nothing runs before it is needed
        await model.check()
        paths = await model.chat(question(), SAMPLING, n=3, schema=STEP)
        assert len(paths) == 3
        assert (await ask(model)).text == '{"answer": "7"}'
        pieces = [piece async for piece in model.stream(question(), SAMPLING)]
        assert "".join(piece for piece in pieces if isinstance(piece, str)) == "The answer is 7."
        assert isinstance(pieces[-1], Completion)

    using([model], work)
    [start] = starts(fake)
    assert start["arguments"][:2] == ["serve", str(base)]
    assert "--enable-prefix-caching" in start["arguments"]
    assert "--enable-lora" not in start["arguments"]
    assert model.name == f"vllm/{base}"
    assert "fake vllm, start 0" in (fake / "vllm-base.log").read_text()
    assert left(fake) == []


def test_a_model_and_two_adapters_share_one_server(base: Path, fake: Path, tmp_path: Path) -> None:
    folders = [adapter_folder(tmp_path / name, base, seed=seed) for seed, name in enumerate(("reason", "summary"))]
    given = options(fake)
    models = [vllm(str(folder), **given) for folder in (base, *folders)]

    async def work() -> None:
        assert {(await ask(model)).text for model in models} == {'{"answer": "7"}'}
        await models[0].aclose()
        await ask(models[1])  # the others still have it

    using(models, work)
    [start] = starts(fake)
    modules = start["arguments"][start["arguments"].index("--lora-modules") + 1 :]
    assert [module.split("=")[1] for module in modules] == list(map(str, folders))
    assert modules[0].startswith("reason-")
    assert left(fake) == []


def test_a_new_adapter_is_loaded_without_a_restart(base: Path, fake: Path, tmp_path: Path) -> None:
    given = options(fake)
    first = vllm(str(adapter_folder(tmp_path / "round1", base)), **given)
    models = [first]

    async def work() -> None:
        await ask(first)
        models.append(vllm(str(adapter_folder(tmp_path / "round2", base, seed=1)), **given))
        await asyncio.gather(*(ask(models[1]) for _ in range(5)))
        assert len(starts(fake)) == 1
        models.append(vllm(str(adapter_folder(tmp_path / "broken", base, seed=2)), **given))
        with pytest.raises(ConfigError, match=r"does not load the adapter .*broken'.*no adapter there"):
            await ask(models[2])
        await ask(first)

    using(models, work)
    assert len(starts(fake)) == 1


@pytest.mark.parametrize("why", ["rank", "outside", "route"])
def test_an_adapter_without_room_restarts_the_server_with_it(base: Path, fake: Path, tmp_path: Path, why: str) -> None:
    given = options(fake, adapters=why != "route")
    first = vllm(str(adapter_folder(tmp_path / "small", base)), **given)
    models = [first]

    async def work() -> None:
        await ask(first)
        name = {"name": PROJECTOR} if why == "outside" else {}
        folder = adapter_folder(tmp_path / "large", base, rank=100 if why == "rank" else 4, seed=1, **name)
        models.append(vllm(str(folder), **given))
        await asyncio.gather(ask(models[1]), ask(first))
        assert first.engine.deaths == 0

    using(models, work)
    before, after = (start["arguments"] for start in starts(fake))
    assert before[before.index("--max-lora-rank") + 1] == "8"
    assert after[after.index("--max-lora-rank") + 1] == ("128" if why == "rank" else "8")
    assert ("--enable-tower-connector-lora" in after) == (why == "outside")
    assert left(fake) == []


@pytest.mark.parametrize(
    ("refuse", "says"),
    [
        ("memory", r"not enough memory: .*No available memory.*--max-model-len"),
        ("architecture", r"does not know the model's architecture: .*'Strange'.*newer vLLM"),
        ("names", r"names that vLLM looks for.*vision_tower.embeddings"),
        ("killed", r"killed by SIGKILL; out of memory is the likely cause: give it less"),
        ("other", r"failed with 'RuntimeError: the moon"),
        ("port", r"port was taken"),
    ],
)
def test_a_start_that_fails_says_why(base: Path, fake: Path, refuse: str, says: str) -> None:
    model = vllm(str(base), **options(fake, refuse=refuse))
    with pytest.raises(ConfigError, match=says) as caught:
        using([model], model.check)
    assert str(fake / "vllm-base.log") in str(caught.value)
    assert len(starts(fake)) == (3 if refuse == "port" else 1)
    assert left(fake) == []


def test_bad_flags_are_told_with_vllms_words(base: Path, fake: Path) -> None:
    model = vllm(str(base), arguments=["--max-modle-len", "9"], **options(fake))
    with pytest.raises(ConfigError, match=r"does not take its arguments: .*--max-modle-len.*correct `arguments`"):
        using([model], model.check)


def test_a_port_that_was_taken_is_not_the_end(base: Path, fake: Path) -> None:
    model = vllm(str(base), **options(fake, refuse="port", refusals=(0, 1)))
    using([model], lambda: ask(model))
    assert len({start["arguments"][5] for start in starts(fake)}) == 3


def test_a_server_that_never_answers_is_ended(base: Path, fake: Path) -> None:
    model = vllm(str(base), **options(fake, silent=True), start_s=2.0)
    with pytest.raises(ConfigError, match=r"did not answer within start_s = 2 s"):
        using([model], model.check)
    assert model.engine.group
    assert not alive(model.engine.group)


def test_a_failed_start_can_be_tried_again(base: Path, fake: Path) -> None:
    given = options(fake, refuse="memory", refusals=(0,))
    first = vllm(str(base), **given)
    with pytest.raises(ConfigError):
        using([first], first.check)
    second = vllm(str(base), **given)
    assert using([second], lambda: ask(second)).text == '{"answer": "7"}'


def test_a_death_in_mid_call_costs_no_call(base: Path, fake: Path) -> None:
    model = vllm(str(base), **options(fake, dies_on="kills", latency_s=0.3))

    async def work() -> list[Completion]:
        await model.check()
        return list(await asyncio.gather(*(ask(model) for _ in range(8)), ask(model, DEADLY)))

    replies = using([model], work)
    assert [reply.text for reply in replies] == ['{"answer": "7"}'] * 9
    assert model.engine.deaths == 1
    assert len(starts(fake)) == 2
    ports = {start["arguments"][5] for start in starts(fake)}
    assert len(ports) == 1  # calls in flight find it again
    assert left(fake) == []


def test_a_call_that_kills_the_server_is_given_up_and_others_go_on(base: Path, fake: Path) -> None:
    model = vllm(str(base), **options(fake, dies_on="kills", deaths=1000))

    async def work() -> None:
        with pytest.raises(ModelError, match="died 3 times while this call was in flight") as caught:
            await ask(model, DEADLY)
        assert caught.value.code == "worker_crash"
        assert (await ask(model)).text == '{"answer": "7"}'

    using([model], work)
    assert model.engine.deaths == 3


def test_a_server_that_keeps_dying_is_given_up(base: Path, fake: Path) -> None:
    model = vllm(str(base), **options(fake, dies_on="kills", refuse="memory", refusals=(1, 2, 3)), restarts=1)

    async def work() -> None:
        with pytest.raises(ConfigError, match=r"died 2 times without an answer in between: there is not enough memory"):
            await ask(model, DEADLY)
        with pytest.raises(ConfigError, match="died 2 times"):
            await ask(model)

    using([model], work)
    assert len(starts(fake)) == 2


@pytest.mark.parametrize("victim", ["program", "keeper"])
def test_whichever_process_is_killed_the_server_comes_back(base: Path, fake: Path, victim: str) -> None:
    model = vllm(str(base), **options(fake))

    async def work() -> None:
        await ask(model)
        [start] = starts(fake)
        os.kill(start["pids"][0] if victim == "program" else model.engine.group or 0, signal.SIGKILL)
        while model.engine.deaths == 0:
            await asyncio.sleep(0.05)
        await ask(model)
        assert not any(map(alive, start["pids"]))

    using([model], work)
    assert len(starts(fake)) == 2
    assert left(fake) == []


PARENT = """
import asyncio, json, sys
from insightv.backends.vllm.model import vllm
model = vllm(sys.argv[1], **json.loads(sys.argv[2]))
asyncio.run(model.check())
print("up", flush=True)
sys.stdin.read()
"""


def parent(base: Path, fake: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PARENT, str(base), json.dumps(options(fake))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    assert all(map(alive, starts(fake)[0]["pids"]))
    return process


def test_a_parent_killed_with_9_leaves_nothing(base: Path, fake: Path) -> None:
    process = parent(base, fake)
    process.kill()
    process.communicate()
    assert left(fake) == []


def test_a_parent_that_forgets_to_close_leaves_nothing(base: Path, fake: Path) -> None:
    process = parent(base, fake)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert left(fake) == []


def test_the_key_is_needed_and_is_not_on_the_command_line(base: Path, fake: Path) -> None:
    model = vllm(str(base), **options(fake))

    async def work() -> None:
        await model.check()
        connection = http.client.HTTPConnection("127.0.0.1", model.engine.port, timeout=30)
        connection.request("GET", "/v1/models")
        assert connection.getresponse().read() == b'{"error": {"message": "no such key"}}'
        connection.close()
        assert model.engine.key not in Path(f"/proc/{starts(fake)[0]['pids'][0]}/cmdline").read_text()
        assert model.engine.key not in model.engine.log.read_text()

    using([model], work)


def test_a_closed_model_is_not_asked(base: Path, fake: Path) -> None:
    model = vllm(str(base), **options(fake))
    using([model], model.aclose)
    with pytest.raises(ModelError, match="has been closed"):
        asyncio.run(model.chat([Message(role="user", content="?")], SAMPLING))
