"""A real vLLM on the CPU serves the embedded model: `make vllm`. One server for all: its start takes a minute."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.vllm_cache import TEACHER, measure, small_server
from benchmarks.vllm_memory import make_adapter
from insightv import Reasoner
from insightv.agents.generator import ProgressiveGenerator
from insightv.agents.reasoning import ThoughtsReasoner
from insightv.agents.summary import JudgingSummary
from insightv.backends.hf.model import HFModel
from insightv.backends.vllm.model import VllmModel, vllm
from insightv.backends.vllm.supervisor import Engine
from insightv.concurrency import blocking
from insightv.inputs.images import question_about
from insightv.interfaces import ChatModel
from insightv.records import Completion, Message, Question, ReasoningPath, Sampling, Schema
from insightv.tiny.world import make_questions
from tests.backends import tiny_vlm
from tests.servers.fake_vllm import ROOT, alive

ENVIRONMENT = ROOT / ".venv-vllm"
PROGRAM = os.environ.get("INSIGHTV_VLLM") or str(ENVIRONMENT / "bin" / "vllm")
REFUSED = ENVIRONMENT / "unavailable.txt"
WHY = REFUSED.read_text() if REFUSED.is_file() else f"there is no {PROGRAM}; make it with: make vllm-env"

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(REFUSED.is_file() or not Path(PROGRAM).is_file(), reason=WHY),
    pytest.mark.filterwarnings("ignore"),  # of torch and peft, about their own insides
]

GREEDY = Sampling(temperature=0, max_tokens=60)
SYSTEM = 'Reply in JSON: {"title": ..., "content": ..., "action": "continue" or "summary"}.'
ENDED = Schema(
    name="reasoning_step",
    definition={
        "type": "object",
        "properties": {"title": {"type": "string"}, "content": {"type": "string"}, "action": {"enum": ["summary"]}},
        "required": ["title", "content", "action"],
        "additionalProperties": False,
    },
)
"""A step that must be the last one; by itself the model goes on after its first."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, VllmModel]]:
    """The base model and two agents as adapters, on one server; "folder" names where they are."""
    folder = tmp_path_factory.mktemp("vllm")
    given = {**small_server(), "program": PROGRAM, "log_folder": str(folder)}
    adapters = {
        "reason": make_adapter(folder / "reason", TEACHER, 1),
        "summary": make_adapter(folder / "summary", TEACHER, 2, projector=True),
    }
    models = {"base": vllm(TEACHER, **given)} | {name: vllm(str(path), **given) for name, path in adapters.items()}
    began = time.monotonic()
    try:
        blocking(models["base"].check())
        print(f"vllm answered after {time.monotonic() - began:.0f} s")
        yield models
    finally:
        for model in models.values():
            blocking(model.aclose())


def folder_of(model: VllmModel) -> Path:
    return model.engine.log.parent


def conversations() -> list[list[Message]]:
    return [
        [
            Message(role="system", content=SYSTEM),
            Message(role="user", content=(tiny_vlm.picture(1, 84, 84), item.question)),
        ]
        for item in make_questions(6, 7, "heldout")
    ]


def texts(model: ChatModel) -> list[str]:
    async def ask() -> list[list[Completion]]:
        return await asyncio.gather(*(model.chat(messages, GREEDY) for messages in conversations()))

    return [reply.text for [reply] in blocking(ask())]


def opened() -> tuple[Any, Question]:
    item = next(iter(make_questions(1, 5, "heldout")))
    return item.image, Question(id="q", question=item.question, answer=item.answer)


def processes(engine: Engine) -> dict[int, str]:
    """The live processes of an engine's group, with their names."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split() if entry.name.isdigit() else []
            if fields and int(fields[2]) == engine.group and fields[0] != "Z":
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_a_build_shares_what_it_can(served: dict[str, VllmModel], tmp_path: Path) -> None:
    found = measure(served["base"], tmp_path, questions=8)
    print(json.dumps(found))
    assert found["paths"]["failed"] == 0
    assert found["paths"]["ok"] >= 24
    assert found["prompt_tokens"] == pytest.approx(found["prompt_tokens_by_our_count"], rel=0.02)
    assert found["hits_of_shareable_in_whole_blocks"] >= 0.85


def test_a_schema_is_kept_to_and_n_replies_come(served: dict[str, VllmModel]) -> None:
    asked, sampling = conversations()[0], Sampling(temperature=0.5, seed=3, max_tokens=160)
    free = blocking(served["base"].chat(asked, sampling))
    assert json.loads(free[0].text)["action"] == "continue"
    replies = blocking(served["base"].chat(asked, sampling, n=4, schema=ENDED))
    assert len(replies) == 4
    assert {json.loads(reply.text)["action"] for reply in replies} == {"summary"}
    assert replies[0].usage.prompt_tokens > 40


@pytest.mark.parametrize("name", ["reason", "summary"])
def test_an_adapter_answers_as_the_merged_model_does(served: dict[str, VllmModel], name: str) -> None:
    """The second one has the projector adapted too, which vLLM leaves out without being told."""
    merged = HFModel(str(folder_of(served[name]) / f"{name}-merged"), dtype="float32", device="cpu", threads=1)
    said = texts(served[name])
    assert said == texts(merged)
    assert said != texts(served["base"])
    blocking(merged.aclose())


def test_two_agents_answer_and_stream_on_one_server(served: dict[str, VllmModel]) -> None:
    image, question = opened()
    reasoner = Reasoner(
        ThoughtsReasoner(served["reason"], max_tokens=120), JudgingSummary(served["summary"], max_tokens=24)
    )
    answer = reasoner.answer(image, question)
    assert answer.text
    assert answer.path is not None
    assert answer.path.model == served["reason"].name

    async def pieces() -> list[str | Completion]:
        return [piece async for piece in served["summary"].stream(conversations()[1], GREEDY)]

    *parts, whole = blocking(pieces())
    assert len(parts) > 3
    assert isinstance(whole, Completion)
    assert "".join(map(str, parts)) == whole.text == texts(served["summary"])[1]


def test_an_adapter_of_a_later_round_is_loaded_while_it_runs(served: dict[str, VllmModel]) -> None:
    engine = served["base"].engine
    later = make_adapter(folder_of(served["base"]) / "round2", TEACHER, 3)
    model = vllm(str(later), **{**small_server(), "program": PROGRAM})
    assert model.engine is engine
    before = processes(engine)
    assert texts(model) != texts(served["base"])
    assert processes(engine) == before
    assert engine.deaths == 0
    blocking(model.aclose())


class Killing(ChatModel):
    """The model, whose engine's core is killed when the second reply has come: every chain has more to ask."""

    def __init__(self, model: VllmModel, core: int) -> None:
        self.name = model.name
        self._model = model
        self._core = core
        self._replies = 0

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        found = await self._model.chat(messages, sampling, n=n, schema=schema)
        self._replies += 1
        if self._replies == 2:
            os.kill(self._core, signal.SIGKILL)
        return found


def test_a_kill_of_the_engine_in_mid_chain_costs_no_path(served: dict[str, VllmModel]) -> None:
    engine = served["base"].engine
    before = processes(engine)
    core = next(pid for pid, name in before.items() if "EngineCore" in name)
    image, question = opened()
    model = Killing(served["base"], core)
    generator = ProgressiveGenerator(model, max_steps=6, max_tokens=96, temperature=0.8)

    async def written() -> list[ReasoningPath]:
        return await generator.generate(await question_about(image, question), 6)

    paths = blocking(written())
    assert engine.deaths == 1
    assert [path.status for path in paths].count("ok") >= 4
    assert not any(path.status == "failed" for path in paths)
    assert not any(map(alive, before))
    assert texts(served["reason"])  # the adapters are back too


PARENT = """
import asyncio, json, sys
from insightv.backends.vllm.model import vllm
model = vllm(sys.argv[1], **json.loads(sys.argv[2]))
asyncio.run(model.check())
"""


def test_a_parent_killed_with_9_leaves_no_engine(served: dict[str, VllmModel], tmp_path: Path) -> None:
    """Killed while its engine starts, with all processes of the engine there."""
    given = {**small_server(), "program": PROGRAM, "log_folder": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", PARENT, TEACHER, json.dumps(given)], cwd=ROOT)
    log = tmp_path / "vllm-teacher.log"
    while not (log.is_file() and "Loading weights took" in log.read_text()):
        assert process.poll() is None, log.read_text()[-2000:]
        time.sleep(0.2)
    groups = {
        int(pid)
        for path in Path(f"/proc/{process.pid}/task").iterdir()
        for pid in (path / "children").read_text().split()
    }
    assert groups
    engine = Engine(served["base"].engine.launch, None)
    engine.group = groups.pop()
    left = processes(engine)
    assert any("EngineCore" in name for name in left.values())
    process.kill()
    process.wait()
    end = time.monotonic() + 120
    while any(map(alive, left)) and time.monotonic() < end:
        time.sleep(0.2)
    assert not any(map(alive, left))
