"""The reasoner over real HTTP: both agents, streaming, and paths that do not work out."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from insightv import Completion, Reasoner
from insightv.errors import InputError
from insightv.events import AnswerDone, AnswerText, Event, PathDone, PathText
from insightv.interfaces import ChatModel
from insightv.testing import ScriptedModel, sample_picture
from tests.servers.fake_openai import FakeServer
from tests.world import insightv

THOUGHTS = "<thoughts>\n### Look\nThe bar B ends at 7.\n### Compare\nB is above all others.\n</thoughts>"


def test_the_summary_agent_sees_the_image_and_the_path() -> None:
    judge = ScriptedModel(["B"])
    reasoner = Reasoner.of(ScriptedModel([THOUGHTS]), judge)
    answer = reasoner.answer(sample_picture(), "Which bar is tallest?")
    assert answer.text == "B"
    assert answer.path is not None
    assert [step.title for step in answer.path.steps] == ["Look", "Compare"]
    system, user = judge.asked[0].messages
    assert user.parts[0] == sample_picture()
    assert "The bar B ends at 7." in str(user.parts[1])
    assert "judge" in str(system.content).lower()


def test_a_stream_shows_the_path_then_the_answer() -> None:
    async def run() -> list[Event]:
        reasoner = Reasoner.of(ScriptedModel([THOUGHTS]), ScriptedModel(["B"]))
        return [event async for event in reasoner.astream(sample_picture(), "Which bar is tallest?")]

    events = asyncio.run(run())
    kinds = [type(event) for event in events]
    assert kinds.index(PathText) < kinds.index(PathDone) < kinds.index(AnswerText) < kinds.index(AnswerDone)
    assert "".join(event.text for event in events if isinstance(event, PathText)) == THOUGHTS
    assert isinstance(events[-1], AnswerDone)
    assert events[-1].answer.text == "B"


def test_a_path_that_was_refused_still_leads_to_an_answer_that_says_so() -> None:
    refused: ChatModel = ScriptedModel([Completion(text="I cannot.", finish="refusal")])
    answer = Reasoner.of(refused, ScriptedModel(["B"])).answer(sample_picture(), "Which bar is tallest?")
    assert answer.text == "B"
    assert answer.path is not None
    assert (answer.path.status, answer.path.code) == ("rejected", "refusal")
    assert "path_rejected" in answer.flags


def test_the_command_line_asks_a_server(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (40, 30), "red").save(tmp_path / "x.png")
    with FakeServer() as server:
        args = ("answer", tmp_path / "x.png", "What is 3 + 4? [truth=7]", "--model", "openai/fake")
        done = insightv(*args, "--base-url", server.base_url, "--json")
        assert done.returncode == 0, done.stderr
        assert "7" in json.loads(done.stdout)["text"]
        missing = insightv("answer", tmp_path / "gone.png", *args[2:], "--base-url", server.base_url)
    assert missing.returncode == 2
    assert "gone.png" in missing.stderr


def test_blocking_and_awaited_calls_share_a_reasoner_in_a_running_loop() -> None:
    async def notebook(reasoner: Reasoner) -> list[str]:
        asked = sample_picture(), "What is 3 + 4? [truth=7]"
        texts = [reasoner.answer(*asked).text, (await reasoner.aanswer(*asked)).text, reasoner.answer(*asked).text]
        reasoner.close()
        await asyncio.sleep(0.05)  # the session of this loop is closed by this loop
        return texts

    with FakeServer() as server:
        reasoner = Reasoner.of("openai/fake", base_url=server.base_url)
        assert len(set(asyncio.run(notebook(reasoner)))) == 1


def test_a_server_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    args = ("answer", tmp_path / "x.png", "What?", "--model", "openai/fake", "--base-url", "http://127.0.0.1:9/v1")
    done = insightv(*args)
    assert done.returncode == 2
    assert "no server can be reached" in done.stderr


@pytest.mark.parametrize("args", [("answer", "x.png", "?"), ("status", "--run", "nowhere"), ("build",)])
def test_what_cannot_be_started_ends_with_2_and_says_the_cure(args: tuple[str, ...], tmp_path: Path) -> None:
    done = insightv(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "error:" in done.stderr


@pytest.mark.parametrize(
    ("question", "asked", "error", "text"),
    [
        (" ", {}, InputError, "the question is empty"),
        ("Which?", {"seed": -1}, ValueError, "seed = -1: a seed is a whole number"),
        ("Which?", {"seed": 2**60}, ValueError, "seed = "),
        ("Which?", {"options": {"deadline": 3}}, ValueError, "deadline"),
        ("Which?", {"options": {"max_steps": 0}}, ValueError, "max_steps"),
        ("Which?", {"paths": 0}, ValueError, "paths = 0"),
        ("Which?", {"show": "some"}, ValueError, "show = 'some'"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_spent(
    question: str, asked: dict[str, Any], error: type[Exception], text: str
) -> None:
    model = ScriptedModel([THOUGHTS, "B"])
    with pytest.raises(error, match=text):
        Reasoner.of(model).answer([], question, **asked)
    assert model.asked == []


def test_limits_may_be_given_as_a_dict() -> None:
    answer = Reasoner.of(ScriptedModel([THOUGHTS, "B"])).answer([], "Which?", options={"max_steps": 1})
    assert answer.path is not None
    assert (len(answer.path.steps), answer.path.code) == (1, "step_limit")
