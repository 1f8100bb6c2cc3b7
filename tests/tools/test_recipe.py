"""The recipe: batches that hold what they should, and training that can be stopped."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from insightv.agents.summary import summary_messages
from insightv.records import Question, ReasoningPath
from insightv.tiny import ask as asking
from insightv.tiny import world
from tools.tiny import batches, model, recipe, tell

SMALL = model.Shape(64, 2, 64, 2, 128, 32)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return model.build_tokenizer()


def told(tokenizer: Any, batch: batches.Batch) -> list[str]:
    return [tokenizer.decode([token for token in row if token >= 0]) for row in batch.labels.tolist()]


def test_only_replies_are_learned(tokenizer: Any) -> None:
    batch = batches.make_batch(tokenizer, [("direct", "steps")], 4, random.Random(0))
    assert batch.pixels is not None
    assert batch.pixels.shape == (4, 3, 84, 84)
    for text in told(tokenizer, batch):
        answer, step, *_, last = text.removesuffix("<eos>").split("<eos>")
        assert answer
        assert set(json.loads(last)) == {"answer"}
        assert set(json.loads(step)) == {"title", "content", "action"}


@pytest.mark.parametrize(
    ("mode", "given"), [("steps", '{"title": "'), ("reason", "<thoughts>\n### "), ("drill", "")], ids=str
)
def test_texts_are_given_what_only_a_picture_tells(tokenizer: Any, mode: str, given: str) -> None:
    batch = batches.make_texts(tokenizer, [mode], 6, random.Random(1))
    assert batch.pixels is None
    for text, row in zip(told(tokenizer, batch), batch.ids.tolist(), strict=True):
        whole = tokenizer.decode(row).replace("<pad>", "")
        reply = whole.partition("<bot>")[2]
        assert reply.startswith(given)
        assert not text.startswith(reply[: len(given) + 8])
        assert text[-20:] == whole.replace("<final><bot>", "")[-20:]


def test_a_short_reply_weighs_more_than_its_length(tokenizer: Any) -> None:
    rows = [
        [tokenizer("<direct>A?<bot>5<eos>")["input_ids"], tokenizer("<direct>B?<bot>7 7 7 7 7 7 7<eos>")["input_ids"]]
    ]
    batch = batches.pack(tokenizer, None, rows)
    assert sorted(batch.weights[batch.labels != -100].tolist()) == pytest.approx([8**-0.5] * 8 + [2**-0.5] * 2)


@pytest.mark.parametrize("seed", range(20))
def test_a_slip_is_a_path_that_read_right_and_ends_wrong(seed: int) -> None:
    rng = random.Random(seed)
    chart = world.chart_of("train", rng)
    kind, ask = "sum", asking.pick(chart, "sum", rng)
    assert ask is not None
    truth = asking.answer(chart, kind, ask)
    steps = tell.steps(chart, kind, ask, rng)
    slipped = batches.slip(steps, truth, rng)
    assert slipped[0] == steps[0]
    assert f"The answer is {truth}." in steps[-1][1]
    assert f"The answer is {truth}." not in slipped[-1][1]


def test_the_judge_learns_what_the_summary_agent_is_shown_without_a_path() -> None:
    question = Question(id="q", question="A?", images=())
    path = ReasoningPath(question_id="q", index=0, steps=(), status="failed", code="timeout")
    assert batches.NO_REASONING in str(summary_messages(question, path)[1].content)


def test_conversations_of_one_chart_do_not_see_each_other(tokenizer: Any) -> None:
    rows = [[tokenizer("<direct>A?<bot>5<eos>")["input_ids"], tokenizer("<direct>B?<bot>7<eos>")["input_ids"]]]
    batch = batches.pack(tokenizer, np.zeros((1, 3, 84, 84), dtype=np.float32), rows)
    first, second = batches.IMAGE_TOKENS, batches.IMAGE_TOKENS + len(rows[0][0])
    mask = batch.mask[0, 0]
    assert mask[second:, : batches.IMAGE_TOKENS].all()
    assert not mask[second:, first:second].any()
    assert batch.positions[0, first] == batch.positions[0, second] == batches.IMAGE_TOKENS


def test_a_stopped_training_goes_on(tokenizer: Any, tmp_path: Path) -> None:
    stages = [
        recipe.Stage(("describe", "text steps"), 2, 1e-3, 1e-4, batch=2),
        recipe.Stage(("text drill",), 2, 1e-3, 1e-4, batch=2),
    ]
    processor = model.build_processor(tokenizer)
    recipe.train(model.build_model(tokenizer, SMALL), processor, stages[:1], tmp_path, seed=0)
    recipe.train(model.build_model(tokenizer, SMALL, seed=1), processor, stages, tmp_path, seed=0)
    log = [json.loads(line) for line in (tmp_path / recipe.LOG).read_text("utf-8").splitlines()]
    assert [row["mix"] for row in log if "mix" in row] == [["describe", "text steps"], ["text drill"]]
    told = [row for row in log if "step" in row]
    assert [(row["stage"], row["step"]) for row in told] == [(1, 2), (2, 2)]
    assert {"describe", "text steps"} <= set(told[0])
    assert (tmp_path / "model.safetensors").is_file()


def test_every_stage_of_the_recipes_can_be_made(tokenizer: Any) -> None:
    for stage in {stage for stages in recipe.RECIPES.values() for stage in stages}:
        assert set(stage.mix) <= set(recipe.MIXES) | set(recipe.TEXTS)
